# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL cluster of our own, with the hub's schema, on a socket."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from energy_collector.config import SOURCES
from energy_hub import migrate

from tests.fault.rig.exact import Row
from tests.fault.rig.process import Process, wait_for

USER = "postgres"  # PostgreSQL refuses to run as root; this is the user of its Debian package
NAME = "energy"
# Points of the gateway's own health, which flow on when its meters fall silent: a regular expression.
HEALTH = f"^({'|'.join(SOURCES)})/"
STARTS = 20


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, f"{name} is missing: apt-get install postgresql"
    return str(found[-1])


class Database:
    """The cluster and its one database."""

    def __init__(self, folder: Path, *, data: Path | None = None, wal: Path | None = None) -> None:
        """`data` and `wal` are elsewhere, as on disks of their own, or both below `folder`."""
        self.folder = folder
        folder.mkdir()
        data = data or folder / "data"
        owner = pwd.getpwnam(USER)
        for path in (folder, data, wal):
            if path is not None:
                path.mkdir(exist_ok=True)
                os.chown(path, owner.pw_uid, owner.pw_gid)
        as_user = ["--reuid", USER, "--regid", USER, "--clear-groups"]
        initdb = [_program("initdb"), "-A", "trust", "-U", "owner", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": "30"}
        if wal is not None:
            # Its segments are small, too, so that a small disk holds some.
            initdb += ["-X", str(wal), "--wal-segsize=1"]
            settings |= {"min_wal_size": "2MB", "max_wal_size": "8MB"}
        command = ["setpriv", *as_user, *initdb, "-D", str(data)]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        server = ["setpriv", *as_user, "--pdeathsig", "INT", _program("postgres"), "-D", str(data), *options]
        self._process = Process(server, folder / "log")

    def conninfo(self, user: str, database: str = NAME) -> str:
        """For psycopg."""
        return f"host={self.folder} dbname={database} user={user}"

    def connect(self, user: str = "owner") -> psycopg.Connection:
        """A connection of the test itself."""
        return psycopg.connect(self.conninfo(user), autocommit=True)

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        return self._process.pid

    def start(self) -> None:
        """Start, and make the schema."""
        self.again()
        with psycopg.connect(self.conninfo("owner", "postgres"), autocommit=True) as connection:
            for role in ("energy_migrate", "energy_ingest", "energy_rollup", "energy_read"):
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"CREATE DATABASE {NAME} OWNER energy_migrate")
        with self.connect("energy_migrate") as connection:
            list(migrate.apply(connection))

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        self._process.start()

    def again(self) -> None:
        """Start what was stopped or killed. It does not start before the last process of the one before has ended, so
        it is tried again, as systemd does."""
        for _ in range(STARTS):
            self._process.start()
            if (
                wait_for(lambda: not self._process.alive or self._answers(), "PostgreSQL answers")
                and self.alive
            ):
                return
            time.sleep(0.5)
        raise AssertionError(f"PostgreSQL does not start: {self._process.journal[-500:]}")

    @property
    def alive(self) -> bool:
        """Whether its first process runs."""
        return self._process.alive

    def kill(self, *, everything: bool = True) -> None:
        """kill -9 of its first process, or of all."""
        pids = [self._process.pid]
        if everything:
            children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text()
            pids += map(int, children.split())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()

    def kill_backend(self, application: str) -> None:
        """kill -9 of a process that serves this application."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s", (application,)
            ).fetchall()
        assert rows, f"nobody serves {application}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(rows)[0], signal.SIGKILL)
        # It ends all others, and takes nobody until it has recovered.
        time.sleep(0.5)
        wait_for(self._answers, "PostgreSQL answers")

    def write_log(self, size: int) -> None:
        """So many bytes of its log of changes (WAL), or as many as there is room for."""
        piece = 500_000
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            for _ in range(size // piece):
                connection.execute("SELECT pg_logical_emit_message(false, 'load', repeat('x', %s))", (piece,))

    def write_late(self) -> None:
        """Sabotage: what nobody waits for stays in memory for ten seconds."""
        with self.connect() as connection:
            connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            connection.execute("SELECT pg_reload_conf()")

    def end(self) -> None:
        """Stop as systemd does: what was written is in the archive afterwards."""
        self._process.kill(signal.SIGINT)

    def wait_for_the_end_of_recovery(self) -> None:
        """After a restore it answers before it has gone through its log."""
        wait_for(self._takes_writes, "PostgreSQL has recovered", 60)

    def _takes_writes(self) -> bool:
        with self.connect() as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)

    def stop(self) -> None:
        """Leave at once; nobody needs the data any more."""
        self._process.kill(signal.SIGQUIT)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.conninfo("owner", "postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def number_of_readings(self) -> int:
        """How many readings of meters are committed with a value. Not the gateway's own health."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(value) FROM reading WHERE point IN (SELECT id FROM point WHERE name !~ %s)",
                (HEALTH,),
            ).fetchone()
            assert row is not None
            return int(row[0])

    def rows(self, site: str | None = None) -> list[Row]:
        """Every reading, of one site or of all."""
        with self.connect() as connection:
            found = connection.execute(
                "SELECT p.name, round(extract(epoch FROM r.time) * 1000)::bigint, r.value, r.quality"
                " FROM reading r JOIN point p ON p.id = r.point JOIN site s ON s.id = p.site"
                " WHERE s.name = %s OR %s::text IS NULL",
                (site, site),
            ).fetchall()
        return [Row(*row) for row in found]

    def newest(self) -> float | None:
        """Unix seconds of the newest reading of a meter with a value."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT extract(epoch FROM max(time))::float8 FROM reading WHERE value IS NOT NULL"
                " AND point IN (SELECT id FROM point WHERE name !~ %s)",
                (HEALTH,),
            ).fetchone()
            return None if row is None else row[0]

    def backlog(self, begin: float, end: float) -> int:
        """How many requests were answered between two Unix times, by what is committed: one point of each counts."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM reading r JOIN point p ON p.id = r.point WHERE value IS NOT NULL"
                " AND split_part(p.name, '/', 2) IN ('voltage_l1', 'voltage_l1_l2')"
                " AND time BETWEEN to_timestamp(%s) AND to_timestamp(%s)",
                (begin, end),
            ).fetchone()
            assert row is not None
            return int(row[0])

    def evidence(self, without: str = "") -> list[str]:
        """What ingest found wrong: forks, broken chains, one identity with two values, what it could not read. Of all
        sites but one."""
        with self.connect() as connection:
            found = connection.execute(
                "SELECT kind, detail FROM evidence e JOIN site s ON s.id = e.site WHERE s.name <> %s",
                (without,),
            ).fetchall()
            found += connection.execute(
                "SELECT 'quarantine', reason FROM quarantine WHERE topic_site <> %s", (without,)
            ).fetchall()
        return [f"{kind}: {detail}" for kind, detail in found]

    def forget_identities(self) -> None:
        """Sabotage: a reading may be there twice."""
        with self.connect() as connection:
            connection.execute("ALTER TABLE reading DROP CONSTRAINT reading_pkey")

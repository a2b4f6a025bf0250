# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL cluster of our own, with the hub's schema, on a socket."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from pathlib import Path

import psycopg
from energy_hub import migrate

from tests.fault.rig.exact import Row
from tests.fault.rig.process import Process, wait_for

USER = "postgres"  # PostgreSQL refuses to run as root; this is the user of its Debian package
NAME = "energy"


def _program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, f"{name} is missing: apt-get install postgresql"
    return str(found[-1])


class Database:
    """The cluster and its one database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        owner = pwd.getpwnam(USER)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["--reuid", USER, "--regid", USER, "--clear-groups"]
        options = [
            "-A",
            "trust",
            "-U",
            "owner",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
            "-D",
            f"{folder}/data",
        ]
        command = ["setpriv", *as_user, _program("initdb"), *options]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        listen = [
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={folder}",
            "-c",
            "max_connections=30",
        ]
        server = [
            "setpriv",
            *as_user,
            "--pdeathsig",
            "INT",
            _program("postgres"),
            "-D",
            f"{folder}/data",
            *listen,
        ]
        self._process = Process(server, folder / "log")

    def conninfo(self, user: str, database: str = NAME) -> str:
        """For psycopg."""
        return f"host={self.folder} dbname={database} user={user}"

    def connect(self, user: str = "owner") -> psycopg.Connection:
        """A connection of the test itself."""
        return psycopg.connect(self.conninfo(user), autocommit=True)

    def start(self) -> None:
        """Start, and make the schema."""
        self._process.start()
        wait_for(self._answers, "PostgreSQL answers")
        with psycopg.connect(self.conninfo("owner", "postgres"), autocommit=True) as connection:
            for role in ("energy_migrate", "energy_ingest", "energy_rollup", "energy_read"):
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"CREATE DATABASE {NAME} OWNER energy_migrate")
        with self.connect("energy_migrate") as connection:
            list(migrate.apply(connection))

    def stop(self) -> None:
        """Leave at once; nobody needs the data any more."""
        self._process.kill(signal.SIGQUIT)

    def _answers(self) -> bool:
        assert self._process.alive, self._process.journal
        try:
            psycopg.connect(self.conninfo("owner", "postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def number_of_readings(self) -> int:
        """How many readings of meters are committed with a value. The gateway's own health flows on without them."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(value) FROM reading WHERE point NOT IN (SELECT id FROM point WHERE name LIKE 'host/%')"
            ).fetchone()
            assert row is not None
            return int(row[0])

    def rows(self) -> list[Row]:
        """Every reading."""
        with self.connect() as connection:
            found = connection.execute(
                "SELECT p.name, round(extract(epoch FROM r.time) * 1000)::bigint, r.value, r.quality"
                " FROM reading r JOIN point p ON p.id = r.point"
            ).fetchall()
        return [Row(*row) for row in found]

    def newest(self) -> float | None:
        """Unix seconds of the newest reading of a meter with a value."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT extract(epoch FROM max(time))::float8 FROM reading WHERE value IS NOT NULL"
                " AND point NOT IN (SELECT id FROM point WHERE name LIKE 'host/%')"
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

    def evidence(self) -> list[str]:
        """What ingest found wrong: forks, broken chains, one identity with two values, what it could not read."""
        with self.connect() as connection:
            found = connection.execute("SELECT kind, detail FROM evidence").fetchall()
            found += connection.execute("SELECT 'quarantine', reason FROM quarantine").fetchall()
        return [f"{kind}: {detail}" for kind, detail in found]

    def forget_identities(self) -> None:
        """Sabotage: a reading may be there twice."""
        with self.connect() as connection:
            connection.execute("ALTER TABLE reading DROP CONSTRAINT reading_pkey")

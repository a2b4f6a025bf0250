# SPDX-License-Identifier: Apache-2.0
"""Which database each site lives in, and what keeps a worker with an old answer from writing to the wrong one.

The directory is a table of one of the databases. What a worker remembers of it may be old: each transaction that writes
of a site holds the site's row, which says whether the site is here at all. A move fences the row first, so that a
worker that comes too late is refused by the database, asks the directory again and goes to the right one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg.conninfo import make_conninfo

from energy_hub import migrate
from energy_hub.config import Databases
from energy_hub.store import Committed, ElsewhereError, Signed, Store, Vouched
from energy_hub.trust import TrustedKey

# After a connection that failed, in s: whoever asks meanwhile is told so at once.
PAUSE = 2.0
# libpq: s without an answer from a host that has vanished, and ms with bytes that nobody has confirmed.
GONE = {"connect_timeout": 5, "keepalives_idle": 10, "tcp_user_timeout": 30_000}


class WrongShardError(psycopg.OperationalError):
    """A database does not bear the name under which it is configured."""


def move_lock(site: str) -> str:
    """The advisory lock, by its text, that whoever moves a site holds in the directory's database."""
    return f"energy.move.{site}"


class Directory:
    """A connection to the directory, made when it is needed. For one thread."""

    def __init__(self, conninfo: str, names: Sequence[str]) -> None:
        self._conninfo = conninfo
        self._names = sorted(names)
        self._connection: psycopg.Connection | None = None
        self._not_before = 0.0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> psycopg.Connection:
        """Raises psycopg.Error."""
        if self._connection is not None and self._connection.broken:
            self.close()
        if self._connection is None:
            if time.monotonic() < self._not_before:
                raise psycopg.OperationalError("the directory's database is away")
            self._not_before = time.monotonic() + PAUSE
            self._connection = psycopg.connect(make_conninfo(self._conninfo, **GONE), autocommit=True)
        return self._connection

    def where(self, site: str) -> str | None:
        """The database of a site, None for one that has none yet. Raises psycopg.Error."""
        row = self.connection.execute("SELECT shard FROM directory WHERE site = %s", (site,)).fetchone()
        return row[0] if row else None

    def sites(self) -> dict[str, str]:
        """All sites. Raises psycopg.Error."""
        return dict(self.connection.execute("SELECT site, shard FROM directory").fetchall())

    def assign(self, site: str) -> str:
        """The database of a site; one that has none gets the one with the fewest sites, and keeps it. Raises
        psycopg.Error."""
        with self.connection.transaction():
            self.connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('energy.directory', 0))")
            found = self.where(site)
            if found is None:
                # Not in one statement with what follows: Citus writes that in a way which its nodes cannot read.
                row = self.connection.execute(
                    "SELECT n.name FROM unnest(%s::text[]) AS n (name) LEFT JOIN directory d ON d.shard = n.name"
                    " GROUP BY n.name ORDER BY count(d.site), n.name LIMIT 1",
                    (self._names,),
                ).fetchone()
                assert row is not None, "there are several databases"
                found = str(row[0])
                self.connection.execute("INSERT INTO directory (site, shard) VALUES (%s, %s)", (site, found))
        return found

    def settle(self, site: str, shard: str, connection: psycopg.Connection) -> bool:
        """Take a site's fence away where a move has left it behind: the site is this database's by the directory, and
        nobody is moving it. Whether it is open now. Raises psycopg.Error."""
        with self.connection.transaction():
            lock = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
            if self.connection.execute(lock, (move_lock(site),)).fetchone() != (True,):
                return False
            if self.where(site) != shard:
                return False
            connection.execute("UPDATE site SET here = true WHERE name = %s", (site,))
        return True


def check_name(connection: psycopg.Connection, name: str) -> None:
    """Raises WrongShardError."""
    row = connection.execute("SELECT name FROM shard").fetchone()
    if row is None:
        raise WrongShardError(f"the database of shard {name} does not know its name: run energy-hub migrate")
    if row[0] != name:
        raise WrongShardError(
            f"the database that is configured as shard {name} is {row[0]}: the connections in databases are mixed up"
        )


class ShardStore(Store):
    """The store of one of several databases. A directory that is away holds up only the sites that have to be asked
    for: ElsewhereError says that they have to wait."""

    def __init__(self, name: str, conninfo: str, directory: Directory) -> None:
        super().__init__(make_conninfo(conninfo, **GONE))
        self.name = name
        self._directory = directory
        try:
            check_name(self.connection, name)
        except psycopg.Error:
            self.close()
            raise

    def _look_up(self, site: str) -> tuple[int, list[Vouched]] | None:
        found = super()._look_up(site)
        if found is None and self._where(site) not in (None, self.name):
            raise ElsewhereError([site])
        return found

    def trust(self, site: str, key: TrustedKey) -> None:
        if self.connection.execute("SELECT FROM site WHERE name = %s", (site,)).fetchone() is None:
            try:
                home = self._directory.assign(site)
            except psycopg.Error:
                raise ElsewhereError([site]) from None
            if home != self.name:
                raise ElsewhereError([site])
        super().trust(site, key)

    def commit(self, group: Sequence[Signed]) -> Committed:
        try:
            return super().commit(group)
        except ElsewhereError as error:
            for site in sorted(error.sites):
                self._not_here(site)
            return super().commit(group)

    def _not_here(self, site: str) -> None:
        try:
            is_open = self._directory.settle(site, self.name, self.connection)
        except psycopg.Error:
            is_open = False
        if not is_open:
            raise ElsewhereError([site])

    def _where(self, site: str) -> str | None:
        try:
            return self._directory.where(site)
        except psycopg.Error:
            raise ElsewhereError([site]) from None


def adopt(name: str, connection: psycopg.Connection, directory: psycopg.Connection) -> list[str]:
    """What `energy-hub migrate` does with each database: it learns its name, and the directory its sites, which are
    returned. Raises WrongShardError, psycopg.Error."""
    connection.execute("INSERT INTO shard (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
    check_name(connection, name)
    sites = [site for (site,) in connection.execute("SELECT name FROM site WHERE here ORDER BY name")]
    rows = directory.execute(
        "INSERT INTO directory (site, shard) SELECT site, %s FROM unnest(%s::text[]) AS site"
        " ON CONFLICT DO NOTHING RETURNING site",
        (name, sites),
    )
    return [site for (site,) in rows]


def plan(databases: Databases) -> Iterator[str]:
    """What `apply` would do, one line each; nothing is changed. Raises MigrationError, psycopg.Error."""
    with _owners(databases) as found:
        for name, connection in found.items():
            lines = migrate.plan(connection)
            yield from (f"{name}: {line}" for line in lines)
            if any(line.startswith("migration") for line in lines):
                continue
            if connection.execute("SELECT count(*) FROM shard").fetchone() == (0,):
                yield f"{name}: its name"
            else:
                check_name(connection, name)
            known = {site for (site,) in found[databases.directory].execute("SELECT site FROM directory")}
            missing = {site for (site,) in connection.execute("SELECT name FROM site WHERE here")} - known
            yield from (f"{name}: {site} in the directory" for site in sorted(missing))


def apply(databases: Databases) -> Iterator[str]:
    """Bring the schema of each to this release, and tell the directory of the sites that were there before it; a line
    for each thing done. Raises MigrationError, psycopg.Error."""
    with _owners(databases) as found:
        # The one with the directory first.
        for name in sorted(found, key=lambda one: (one != databases.directory, one)):
            yield from (f"{name}: {line}" for line in migrate.apply(found[name]))
            for site in adopt(name, found[name], found[databases.directory]):
                yield f"{name}: {site} in the directory"


@contextmanager
def _owners(databases: Databases) -> Iterator[dict[str, psycopg.Connection]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                psycopg.connect(
                    databases.conninfo(name, "energy_migrate"), autocommit=True, connect_timeout=10
                )
            )
            for name in databases.conninfos
        }

# SPDX-License-Identifier: Apache-2.0
"""Brings the database's schema to the state of this release."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources

import psycopg
from psycopg import sql

MONTHS_AHEAD = 3
_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# Migrations were written when the schema was always `public`; in these phrases its name stands for the schema's. So the
# text, and with it the digest, is the same in every database. On nodes of Citus a statement may alter one thing of a
# table: those after 63 keep to that.
_NAMED = ("search_path = public", "'public'::regnamespace", "SCHEMA public")
_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    digest bytea NOT NULL,
    applied timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(RuntimeError):
    """The database and this release do not fit together; the message says how."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.sql.encode()).digest()

    def of(self, schema: str) -> str:
        """The statements for a schema."""
        text = self.sql
        for phrase in _NAMED:
            text = text.replace(phrase, phrase.replace("public", schema))
        return text

    def __str__(self) -> str:
        return f"{self.number:04}_{self.name}"


def shipped() -> list[Migration]:
    """The migrations of this release, by number."""
    found = []
    for entry in resources.files("energy_hub.migrations").iterdir():
        match = _NAME.fullmatch(entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda one: one.number)


def pending(connection: psycopg.Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """What is not applied yet. Raises MigrationError when the database holds what this release does not
    know."""
    ledger = "SELECT to_regclass(quote_ident(current_schema()) || '.migration')"
    if connection.execute(ledger).fetchone() == (None,):
        return list(migrations)
    applied = {
        number: (name, digest)
        for number, name, digest in connection.execute("SELECT number, name, digest FROM migration")
    }
    known = {one.number: one for one in migrations}
    for number, (name, digest) in sorted(applied.items()):
        if number not in known:
            raise MigrationError(
                f"the database has migration {number:04}_{name}, this release ends at "
                f"{max(known, default=0):04}: install the newer release again"
            )
        if known[number].digest != digest:
            raise MigrationError(
                f"migration {known[number]} was applied with other content (SHA-256 {digest.hex()[:16]}..., "
                f"this release has {known[number].digest.hex()[:16]}...): released migrations must not be "
                "edited"
            )
    return [one for one in migrations if one.number not in applied]


def missing_months(connection: psycopg.Connection, today: datetime) -> list[datetime]:
    """First days of the months, from the last one to MONTHS_AHEAD from now, that have no partition."""
    count = today.year * 12 + today.month - 1
    months = [
        datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
        for number in range(count - 1, count + MONTHS_AHEAD + 1)
    ]
    rows = connection.execute(
        "SELECT month FROM unnest(%s::timestamptz[]) AS month "
        "WHERE to_regclass('reading_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM')) IS NULL "
        # A hypertable makes its chunks itself.
        "AND EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass('reading')) "
        "ORDER BY month",
        (months,),
    )
    return [month for (month,) in rows]


def plan(connection: psycopg.Connection) -> list[str]:
    """What `apply` would do, one line each; nothing is changed."""
    lines = [f"migration {one}" for one in pending(connection, shipped())]
    if lines:
        return lines
    return [f"partition {month:%Y-%m}" for month in missing_months(connection, datetime.now(UTC))]


def apply(connection: psycopg.Connection) -> Iterator[str]:
    """Apply what is pending, each migration in a transaction of its own, then make the partitions of the
    months ahead; yields a line for each thing done. The connection must be in autocommit mode."""
    with _alone(connection):
        schema = _schema(connection)
        for one in pending(connection, shipped()):
            with connection.transaction():
                connection.execute(_LEDGER)
                connection.execute(one.of(schema).encode())
                connection.execute(
                    "INSERT INTO migration (number, name, digest) VALUES (%s, %s, %s)",
                    (one.number, one.name, one.digest),
                )
            yield f"migration {one}"
        for month in missing_months(connection, datetime.now(UTC)):
            connection.execute("SELECT ensure_month(%s)", (month,))
            yield f"partition {month:%Y-%m}"


def _schema(connection: psycopg.Connection) -> str:
    """Where the search path of the connection leads, `public` unless it says otherwise; made when it names one schema
    that is not there. Raises MigrationError."""
    row = connection.execute("SELECT current_schema(), current_setting('search_path')").fetchone()
    assert row is not None
    found, path = row
    name: str = found or path
    if not _SCHEMA.fullmatch(name):
        raise MigrationError(f"search_path is {path}: expected one schema, of small letters, digits and _")
    if found is None:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            # As everybody has it of public.
            connection.execute(
                sql.SQL("GRANT USAGE ON SCHEMA {} TO energy_ingest, energy_rollup, energy_read").format(
                    sql.Identifier(name)
                )
            )
    return name


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    """Two migrations at once wait for each other. The lock belongs to the session: a crash frees it."""
    key = "hashtextextended('energy.migrate', 0)"
    connection.execute(f"SELECT pg_advisory_lock({key})")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(f"SELECT pg_advisory_unlock({key})")

# SPDX-License-Identifier: Apache-2.0
"""What every part of an audit needs: the database at one moment, names and keys, and the report."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from cryptography import x509

from energy_hub.audit.findings import Progress, Report, Times
from energy_hub.batch import Body
from energy_hub.trust import TrustError, check_statement

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSORS = itertools.count()


class SiteKey(NamedTuple):
    site: int
    public: bytes


class Restore(NamedTuple):
    """The database was set back `at` to `target`, and `checkpoint` was the newest one that it then had."""

    at: datetime
    target: datetime | None
    checkpoint: int

    def __str__(self) -> str:
        to = f"{self.target:%Y-%m-%dT%H:%M:%SZ}" if self.target else "the end of its archive"
        return f"restored at {self.at:%Y-%m-%dT%H:%M:%SZ} to {to}"


class Seen(NamedTuple):
    """So many batches of a site a gateway has seen signed at `time`, by a database that was then set back."""

    size: int
    time: datetime
    restore: Restore


@dataclass(frozen=True, slots=True)
class Scope:
    """What is to be looked at. `keys` are the hub's public keys, `None` where nobody knows them; `authorities` the CA
    that gateways' certificates come from; `since` bounds batches and readings by their arrival."""

    sites: frozenset[str] | None = None
    since: datetime | None = None
    keys: frozenset[bytes] | None = None
    authorities: Sequence[x509.Certificate] = ()
    witnesses: Sequence[Path] = ()
    stamp_ca: Path | None = None


@dataclass
class Context:
    """One audit of one database. Checkpoints are in the one of `fleet`, which may be the same; `living` are the sites
    that live here, where others have left a copy."""

    connection: psycopg.Connection
    scope: Scope
    progress: Progress
    fleet: psycopg.Connection
    living: frozenset[str] | None = None
    report: Report = field(default_factory=Report)
    sites: dict[int, str] = field(default_factory=dict)
    chosen: list[int] = field(default_factory=list)
    keys: dict[int, SiteKey] = field(default_factory=dict)
    restores: list[Restore] = field(default_factory=list)
    # By the site's number, the most that a gateway has seen of it.
    seen: dict[int, Seen] = field(default_factory=dict)
    # Batches from this number on are looked at.
    first_batch: int = 0
    # When the audit began, by the database's clock: what cannot be bounded otherwise was before.
    now: datetime = EPOCH

    def stream(self, query: str, values: Sequence[object] = (), size: int = 1000) -> Iterator[Any]:
        """Rows by and by, never all of them in memory."""
        return self._stream(self.connection, query, values, size)

    def stream_of_fleet(self, query: str, values: Sequence[object] = (), size: int = 1000) -> Iterator[Any]:
        """The same from the database that has the checkpoints."""
        return self._stream(self.fleet, query, values, size)

    def _stream(
        self, connection: psycopg.Connection, query: str, values: Sequence[object], size: int
    ) -> Iterator[Any]:
        with connection.cursor(name=f"audit_{next(_CURSORS)}") as cursor:
            cursor.itersize = size
            cursor.execute(query, values)
            yield from cursor

    def load(self) -> None:
        """Names and keys."""
        self.sites = dict(self.connection.execute("SELECT id, name FROM site ORDER BY name").fetchall())
        wanted = self.scope.sites
        self.chosen = [
            number
            for number, name in self.sites.items()
            if (wanted is None or name in wanted) and (self.living is None or name in self.living)
        ]
        row = self.connection.execute("SELECT now()").fetchone()
        self.now = row[0] if row else EPOCH
        self._load_keys()
        rows = self.fleet.execute("SELECT at, target, checkpoint FROM restored ORDER BY at")
        self.restores = [Restore(*row) for row in rows]
        if self.scope.since is not None:
            row = self.connection.execute(
                "SELECT coalesce((SELECT min(id) FROM batch WHERE received >= %s),"
                " (SELECT max(id) + 1 FROM batch), 0)",
                (self.scope.since,),
            ).fetchone()
            self.first_batch = row[0] if row else 0

    def replaced(self, number: int, time: datetime) -> Restore | None:
        """The restore by which the hub lost a checkpoint; None for one that it should have."""
        return next((one for one in self.restores if one.checkpoint < number and time <= one.at), None)

    def across(self, measured: datetime, received: datetime) -> Restore | None:
        """A restore that lies between a batch's first reading and its arrival."""
        return next((one for one in self.restores if measured <= one.at <= received), None)

    def remember(self, site: int, seen: Seen) -> None:
        if site not in self.seen or self.seen[site].size < seen.size:
            self.seen[site] = seen

    def _load_keys(self) -> None:
        for number, site, public, statement, certificate, first_seen in self.connection.execute(
            "SELECT id, site, public, statement, certificate, first_seen FROM site_key ORDER BY id"
        ):
            self.keys[number] = SiteKey(site, bytes(public))
            name = self.sites[site]
            if site not in self.chosen or not self.scope.authorities:
                continue
            presented = {
                "public": base64.b64encode(public).decode(),
                "statement": base64.b64encode(statement).decode(),
                "certificate": certificate,
            }
            self.report.count("keys")
            try:
                # As it was when the hub came to trust it: the certificate may have expired since.
                check_statement(name, presented, self.scope.authorities, first_seen)
            except TrustError as error:
                text = f"no certificate of {name} vouches for it: {error}"
                subject = f"key {bytes(public).hex()[:16]}"
                self.report.find(name, "key-not-vouched-for", subject, text, (first_seen, first_seen))


def moment(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


def span(body: Body) -> Times:
    """First and last time of a batch's readings, of which there is one at least."""
    return (
        moment(min(one.times[0] for one in body.series)),
        moment(max(one.times[-1] for one in body.series)),
    )

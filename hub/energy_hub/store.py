# SPDX-License-Identifier: Apache-2.0
"""The database side of ingest: commits groups of batches, and says what is committed.

Any number of workers may do this at the same time. What keeps them apart is the database alone: the unique
identity of a batch makes the second of two workers wait for the first one's commit and then find a
duplicate, and every statement takes its locks in the same order.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

import psycopg

from energy_hub.alarms import Alarms
from energy_hub.batch import NO_PREVIOUS, Body, Envelope
from energy_hub.gaps import Gaps
from energy_hub.points import Points
from energy_hub.revocation import CertificateId, certificate_id
from energy_hub.rows import COLUMNS, Columns
from energy_hub.sequences import Identity, Ranges, multirange, ranges
from energy_hub.times import spans
from energy_hub.trust import TrustedKey, load_certificates

CHAIN_PENDING, CHAIN_OK, CHAIN_BROKEN = 0, 1, 2
# What table evidence says of a batch whose readings were stored later than itself.
READ_AGAIN = "read-again"
# Of what nobody trusted has signed, so much is kept: by payload, and by site.
UNSIGNED_BYTES = 65_536
UNSIGNED_ROWS = 1_000
# Batches that may have come in the last second or two before a crash, and more.
RECENT = 10_000
# A batch that no known key has signed has the keys of its site looked up again, but only after so long, in s.
LOOK_AGAIN = 5.0
# The primary key of a month of readings, or of its shard.
_KEY_OF_READINGS = re.compile(r"\breading_(?:default|\d{4}_\d{2})_pkey(?:_\d+)?\b")


class StreamKey(NamedTuple):
    """A stream of one site; `stream` is the 8 bytes of the batch header."""

    site: str
    stream: bytes


class Vouched(NamedTuple):
    """A trusted key of a site, and the certificate that vouches for it."""

    id: int
    public: bytes
    certificate: CertificateId


@dataclass(frozen=True, slots=True)
class Signed:
    """A batch that a trusted key of the site has signed. `body` is None when it could not be read, for
    `reason`."""

    site: str
    site_id: int
    key_id: int
    payload: bytes
    envelope: Envelope
    body: Body | None
    reason: str = ""

    @property
    def identity(self) -> Identity:
        return self.site_id, self.envelope.stream, self.envelope.sequence


@dataclass(slots=True)
class Committed:
    """What a commit did: all that is committed now of the streams it touched, and counts."""

    streams: dict[StreamKey, Ranges] = field(default_factory=dict)
    batches: int = 0
    readings: int = 0
    duplicates: int = 0
    # Of the batches, those that are signed and could not be read; other batches with the number of a stored one.
    quarantined: int = 0
    forks: int = 0
    # Left out, since each would open a further range in a stream that has too many.
    scattered: list[Signed] = field(default_factory=list)
    # By kind, as in the table evidence.
    evidence: Counter[str] = field(default_factory=Counter)
    # Of each new batch its newest reading, ms since 1970.
    newest: list[int] = field(default_factory=list)


class ElsewhereError(Exception):
    """Sites that are not to be written in this database: they live in another one, or are on their way."""

    def __init__(self, sites: Collection[str]) -> None:
        super().__init__(f"not in this database: {', '.join(sorted(sites))}")
        self.sites = frozenset(sites)


class Store:
    """One worker's connection and what it remembers of slowly changing tables."""

    def __init__(self, conninfo: str) -> None:
        """Connects at once. Raises psycopg.Error."""
        self.connection = psycopg.connect(
            conninfo, autocommit=True, connect_timeout=10, application_name="energy-ingest"
        )
        self._keys: dict[str, tuple[int, list[Vouched]] | None] = {}
        # By site: when its keys were last looked up again.
        self._looked: dict[str, float] = {}
        self._alarms = Alarms(self.connection)
        self._points = Points(self.connection, self._alarms)
        self._gaps = Gaps(self.connection)
        # Dates as UTC and intervals in one style, whatever the server's defaults are.
        self.connection.execute("SET timezone = 'UTC'")
        self.connection.execute(
            "CREATE TEMPORARY TABLE stage (time timestamptz, value double precision, batch bigint,"
            " point integer, quality smallint) ON COMMIT DELETE ROWS"
        )

        self.generation = generation_of(self.connection)
        row = self.connection.execute("SELECT max(number) FROM migration").fetchone()
        # Number of the newest migration.
        self.migration: int = row[0] if row else 0
        self._make_good()

    def close(self) -> None:
        self.connection.close()

    # --- sites and keys

    def keys(self, site: str, *, again: bool = False) -> tuple[int, list[Vouched]] | None:
        """The site's number and its trusted keys, newest first; None for an unknown site. A key is there once
        for each certificate that vouches for it. `again` asks the database even if the answer is remembered:
        another worker may have learned a key. That is not done more often than every LOOK_AGAIN s for a site. Raises
        ElsewhereError."""
        now = monotonic()
        if site not in self._keys:
            self._keys[site] = self._look_up(site)
        elif again and (site not in self._looked or now - self._looked[site] >= LOOK_AGAIN):
            self._keys[site] = self._look_up(site)
            self._looked[site] = now
        return self._keys[site]

    def _look_up(self, site: str) -> tuple[int, list[Vouched]] | None:
        rows = self.connection.execute(
            "SELECT s.id, s.here, k.id, k.public, k.certificate FROM site s JOIN site_key k ON k.site = s.id"
            " WHERE s.name = %s ORDER BY k.id DESC",
            (site,),
        ).fetchall()
        if not rows:
            return None
        if not rows[0][1]:
            self._not_here(site)
        return rows[0][0], [
            Vouched(key_id, bytes(public), certificate_id(load_certificates(pem.encode())[0]))
            for _, _, key_id, public, pem in rows
        ]

    def _not_here(self, site: str) -> None:
        """A row of the site says that it is not to be written here. Returns when it is, by now."""
        raise ElsewhereError([site])

    def _hold(self, names: dict[int, str]) -> None:
        """Keep sites, by their numbers, in this database until the transaction ends: whoever moves one away waits for
        that. Raises ElsewhereError for those that are not here any more."""
        here = {
            number
            for (number,) in self.connection.execute(
                "SELECT id FROM site WHERE id = ANY(%s) AND here ORDER BY id FOR KEY SHARE", (list(names),)
            )
        }
        gone = {name for number, name in names.items() if number not in here}
        if gone:
            for name in gone:
                self._keys.pop(name, None)
            raise ElsewhereError(gone)

    def vouching(self, site: str, public: bytes, *, again: bool = False) -> list[CertificateId]:
        """The certificates that vouch for a key; none for a key that is not known."""
        found = self.keys(site, again=again)
        return [known.certificate for known in found[1] if known.public == public] if found else []

    def trust(self, site: str, key: TrustedKey) -> None:
        """Keep a key that was verified, for ever; makes the site when it is its first. Raises ElsewhereError."""
        with self.connection.transaction():
            self.connection.execute("INSERT INTO site (name) VALUES (%s) ON CONFLICT DO NOTHING", (site,))
            self._hold_by_name(site)
            self.connection.execute(
                "INSERT INTO site_key (site, public, statement, certificate, fingerprint, not_after)"
                " SELECT id, %s, %s, %s, %s, %s FROM site WHERE name = %s ON CONFLICT DO NOTHING",
                (key.public, key.statement, key.certificate, key.fingerprint, key.not_after, site),
            )
        self._keys.pop(site, None)

    def _hold_by_name(self, site: str) -> None:
        """The same for one site, which may be unknown."""
        row = self.connection.execute(
            "SELECT here FROM site WHERE name = %s FOR KEY SHARE", (site,)
        ).fetchone()
        if row == (False,):
            raise ElsewhereError([site])

    def set_status(self, site: str, state: str, status: dict[str, object], *, seen: bool) -> None:
        """`seen`: the message is fresh, not one that the broker had kept. Raises ElsewhereError."""
        with self.connection.transaction():
            self._hold_by_name(site)
            self.connection.execute(
                "UPDATE site SET state = %s, status = CASE WHEN %s THEN %s::jsonb ELSE status END"  # noqa: S608  (constants)
                + (", last_seen = now()" if seen else "")
                + " WHERE name = %s",
                (state, bool(status), json.dumps(status), site),
            )

    def committed(self, key: StreamKey) -> Ranges:
        """All committed sequences of one stream."""
        row = self.connection.execute(
            "SELECT t.committed::text FROM stream t JOIN site s ON s.id = t.site"
            " WHERE s.name = %s AND t.stream = %s",
            key,
        ).fetchone()
        return ranges(row[0]) if row else []

    # --- batches

    def commit(self, group: Sequence[Signed]) -> Committed:
        """Commit a group in one transaction, durably, before it returns. Raises psycopg.Error, and then
        nothing of the group is committed; trying again is always safe. So it is after ElsewhereError."""
        self._alarms.found = Counter()
        fits = self._gaps.fits([one.identity for one in group])
        ordered = sorted((one for one in group if one.identity in fits), key=lambda one: one.identity)
        scattered = [one for one in group if one.identity not in fits]
        points = {
            id(one): self._points.numbers(one.site_id, one.body) for one in ordered if one.body is not None
        }
        self._points.ensure_months([one.body for one in ordered if one.body is not None])
        result = Committed(evidence=self._alarms.found, scattered=scattered)
        if not ordered:
            return result
        names = {one.site_id: one.site for one in ordered}
        with self.connection.transaction():
            self._hold(names)
            new = self._insert_batches(ordered, result)
            columns = Columns()
            for one, batch_id in new:
                result.batches += 1
                if one.body is None:
                    self._quarantine(one.site, one.payload, one.reason, signed=True)
                    result.quarantined += 1
                    continue
                # A batch may be empty.
                if one.body.series:
                    result.newest.append(max(series.times[-1] for series in one.body.series))
                for series, point_id in zip(one.body.series, points[id(one)], strict=True):
                    columns.add(batch_id, point_id, series)
            if len(columns):
                self._insert_readings(columns, [batch_id for _, batch_id in new])
                self._touch([(one, batch, points[id(one)]) for one, batch in new if one.body])
            result.readings = len(columns)
        result.streams = self._mark_committed([one.identity for one in ordered], names)
        return result

    def add_readings(self, one: Signed, batch_id: int, detail: str) -> None:
        """Store the readings of a batch that is here without them, and evidence of it, in one transaction. Raises
        psycopg.Error and ElsewhereError."""
        assert one.body is not None
        points = self._points.numbers(one.site_id, one.body)
        self._points.ensure_months([one.body])
        with self.connection.transaction():
            self._hold({one.site_id: one.site})
            self._alarms.keep(one.site_id, READ_AGAIN, one.envelope.stream, one.envelope.sequence, detail)
            columns = Columns()
            for series, point_id in zip(one.body.series, points, strict=True):
                columns.add(batch_id, point_id, series)
            if len(columns):
                self._insert_readings(columns, [batch_id])
                self._touch([(one, batch_id, points)])

    def quarantine(self, site: str, payload: bytes, reason: str) -> None:
        """Keep a payload that no trusted key has signed and that cannot be read. Raises ElsewhereError."""
        with self.connection.transaction():
            self._hold_by_name(site)
            kept = self.connection.execute(
                "SELECT count(*) FROM quarantine WHERE topic_site = %s AND NOT signed", (site,)
            ).fetchone()
            if kept is not None and kept[0] < UNSIGNED_ROWS:
                self._quarantine(site, payload, reason, signed=False)

    def _quarantine(self, site: str, payload: bytes, reason: str, *, signed: bool) -> None:
        self.connection.execute(
            "INSERT INTO quarantine (topic_site, digest, reason, signed, size, content)"
            " VALUES (%s, %s, %s, %s, %s, %b)"
            " ON CONFLICT (topic_site, digest)"
            " DO UPDATE SET count = quarantine.count + 1, last_seen = excluded.last_seen",
            (
                site,
                hashlib.sha256(payload).digest(),
                reason,
                signed,
                len(payload),
                payload if signed else payload[:UNSIGNED_BYTES],
            ),
        )

    def _insert_batches(self, ordered: Sequence[Signed], result: Committed) -> list[tuple[Signed, int]]:
        """Insert what is new and sort out the rest: the same batch again, or another batch with the same
        number."""
        inserted = {
            (site, bytes(stream), sequence): (bytes(digest), batch_id, chain)
            for site, stream, sequence, digest, batch_id, chain in self.connection.execute(
                # The batch before is in the table, or it comes with this very statement and lag() sees it.
                # Only a link that holds is decided here; the others are looked at after the commit, in
                # _check_pending. What is due becomes a leaf of the site's tree with the next checkpoint.
                """
                WITH sent AS (
                    SELECT *, lag(sequence) OVER w AS before, lag(digest) OVER w AS before_digest
                    FROM unnest(%b::int[], %b::bytea[], %b::bigint[], %b::bytea[], %b::bytea[], %b::bytea[],
                                %b::int[], %b::int[], %b::int[], %b::bool[], %b::bytea[])
                         AS t (site, stream, sequence, digest, previous, signature, key, size, readings,
                               quarantined, content)
                    WINDOW w AS (PARTITION BY site, stream ORDER BY sequence)
                ), inserted AS (
                INSERT INTO batch (site, stream, sequence, digest, previous, signature, key, size, readings,
                                   quarantined, content, chain)
                SELECT site, stream, sequence, digest, previous, signature, key, size, readings,
                       quarantined, content,
                       CASE WHEN sequence = 1 THEN CASE WHEN previous = %b THEN 1 ELSE 2 END
                            WHEN previous = coalesce(
                                (SELECT p.digest FROM batch p
                                 WHERE p.site = sent.site AND p.stream = sent.stream
                                   AND p.sequence = sent.sequence - 1),
                                CASE WHEN before = sequence - 1 THEN before_digest END) THEN 1
                            ELSE 0 END
                FROM sent
                ORDER BY site, stream, sequence
                ON CONFLICT (site, stream, sequence) DO NOTHING
                RETURNING site, stream, sequence, digest, id, chain, received
                ), due AS (INSERT INTO leaf_due (batch, site, stream, sequence, received)
                           SELECT id, site, stream, sequence, received FROM inserted)
                SELECT site, stream, sequence, digest, id, chain FROM inserted
                """,
                (
                    [one.site_id for one in ordered],
                    [one.envelope.stream for one in ordered],
                    [one.envelope.sequence for one in ordered],
                    [one.envelope.digest for one in ordered],
                    [one.envelope.previous for one in ordered],
                    [one.envelope.signature for one in ordered],
                    [one.key_id for one in ordered],
                    [len(one.payload) for one in ordered],
                    [one.body.readings if one.body else 0 for one in ordered],
                    [one.body is None for one in ordered],
                    [one.payload for one in ordered],
                    NO_PREVIOUS,
                ),
            )
        }
        new: list[tuple[Signed, int]] = []
        others: list[Signed] = []
        taken: set[int] = set()
        for one in ordered:
            digest, batch_id, chain = inserted.get(one.identity, (b"", 0, CHAIN_OK))
            if digest != one.envelope.digest or batch_id in taken:
                others.append(one)
                continue
            taken.add(batch_id)
            new.append((one, batch_id))
            if chain == CHAIN_BROKEN:
                self._chain_broken(one.site, *one.identity, "the first batch of a stream names one before it")
        if others:
            self._duplicates_and_forks(others, result)
        return new

    def _duplicates_and_forks(self, others: Sequence[Signed], result: Committed) -> None:
        stored = {
            (site, bytes(stream), sequence): bytes(digest)
            for site, stream, sequence, digest in self.connection.execute(
                "SELECT site, stream, sequence, digest FROM batch"
                " JOIN unnest(%b::int[], %b::bytea[], %b::bigint[])"
                " AS t (site, stream, sequence) USING (site, stream, sequence)",
                _identities(others),
            )
        }
        for one in others:
            if stored[one.identity] == one.envelope.digest:
                result.duplicates += 1
                continue
            result.forks += 1
            stream, sequence = one.envelope.stream, one.envelope.sequence
            detail = (
                f"stored {stored[one.identity].hex()}, then {one.envelope.digest.hex()} (kept in quarantine)"
            )
            self._alarms.tell("fork", one.site, stream, sequence, detail)
            self._quarantine(one.site, one.payload, f"fork of sequence {sequence}: {detail}", signed=True)
            self._alarms.keep(one.site_id, "fork", stream, sequence, detail)
            # The batch after it may have been held against this one, when both came together: look again
            # later.
            self.connection.execute(
                "UPDATE batch SET chain = 0 WHERE site = %s AND stream = %s AND sequence = %s AND chain <> 0",
                (one.site_id, stream, sequence + 1),
            )

    def _insert_readings(self, columns: Columns, batches: Sequence[int]) -> None:
        """COPY straight into the table; when an identity is there already, roll back to here and go through
        the staging table, which is slower and only needed for a gateway that measured one time twice."""
        try:
            with self.connection.transaction():
                self._copy("reading", columns)
        except (psycopg.errors.UniqueViolation, psycopg.errors.InternalError_) as error:
            if not _is_there_already(error):
                raise
            self._copy("stage", columns)
            self.connection.execute(
                # COLUMNS is a constant of this module: nothing from outside gets into the statement.
                f"INSERT INTO reading ({', '.join(COLUMNS)}) SELECT {', '.join(COLUMNS)} FROM stage"  # noqa: S608  (columns of our own)
                " ORDER BY point, time, batch ON CONFLICT (point, time) DO NOTHING"
            )
            self._record_conflicts(batches)

    def _touch(self, new: Sequence[tuple[Signed, int, Sequence[int]]]) -> None:
        """Note for the rollups where the batches have readings, and of which points: there is a number of a point for
        each reading at most, however they are spread."""
        rows = [
            (one.site_id, batch, span.first, span.last, span.readings, _array(points, span.series))
            for one, batch, points in new
            if one.body
            for span in spans(one.body)
        ]
        self.connection.execute(
            "INSERT INTO touched (site, batch, first, last, readings, points)"
            " SELECT site, batch, to_timestamp(first / 1000.0), to_timestamp(last / 1000.0), readings, points::int[]"
            " FROM unnest(%b::int[], %b::bigint[], %b::bigint[], %b::bigint[], %b::int[], %t::text[])"
            " AS t (site, batch, first, last, readings, points)",
            tuple(map(list, zip(*rows, strict=True))),
        )

    def _copy(self, table: str, columns: Columns) -> None:
        with self.connection.cursor().copy(
            f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
        ) as copy:
            for piece in columns.copy_data():
                copy.write(piece)

    def _record_conflicts(self, batches: Sequence[int]) -> None:
        rows = self.connection.execute(
            """
            WITH found AS (
                INSERT INTO conflict (point, time, first_batch, first_value, first_quality,
                                      second_batch, second_value, second_quality)
                SELECT r.point, r.time, r.batch, r.value, r.quality, s.batch, s.value, s.quality
                FROM stage s JOIN reading r ON r.point = s.point AND r.time = s.time
                WHERE r.batch <> s.batch
                  AND (r.value IS DISTINCT FROM s.value OR r.quality <> s.quality)
                ON CONFLICT DO NOTHING
                RETURNING point, time, first_batch, second_batch
            )
            -- The first one of each batch is the instance that the line names.
            SELECT DISTINCT ON (b.id) b.site, s.name, b.stream, b.sequence, count(*) OVER (PARTITION BY b.id),
                   p.name, found.time, f.digest, b.digest
            FROM found JOIN batch b ON b.id = found.second_batch JOIN site s ON s.id = b.site
            JOIN point p ON p.id = found.point
            -- Somebody may have removed it: the conflict is told all the same.
            LEFT JOIN batch f ON f.id = found.first_batch
            WHERE b.id = ANY(%s) ORDER BY b.id, found.time, p.name
            """,
            (list(batches),),
        ).fetchall()
        for site_id, site, stream, sequence, count, point, time, first, second in rows:
            stored = f"{first.hex()[:16]}..." if first else "that is gone"
            detail = (
                f"{count} readings differ from those stored first, for instance {point} at {time.isoformat()}:"
                f" stored with batch {stored}, then came batch {second.hex()[:16]}..."
            )
            self._alarms.tell("conflict", site, stream, sequence, detail)
            self._alarms.keep(site_id, "conflict", stream, sequence, detail)

    def _mark_committed(
        self, identities: Sequence[Identity], names: dict[int, str]
    ) -> dict[StreamKey, Ranges]:
        """After the commit: bring the streams' ranges and the pending links of the chains up to date. `names` are those
        of the sites.

        Both are derived from what is committed, so that a crash which takes this transaction loses nothing: a gateway
        that has no acknowledgement sends again, and for one that has _make_good does it again. That is why it need
        not wait for the disk.
        """
        sequences: dict[tuple[int, bytes], list[int]] = {}
        for site_id, stream, sequence in identities:
            sequences.setdefault((site_id, stream), []).append(sequence)
        streams = sorted(sequences)
        with self.connection.transaction():
            self.connection.execute("SET LOCAL synchronous_commit = off")
            rows = self.connection.execute(
                """
                INSERT INTO stream (site, stream, committed)
                SELECT site, stream, added::int8multirange
                FROM unnest(%b::int[], %b::bytea[], %t::text[]) AS t (site, stream, added)
                ORDER BY site, stream
                ON CONFLICT (site, stream) DO UPDATE SET committed = stream.committed + excluded.committed
                RETURNING site, stream, committed::text
                """,
                (
                    [site for site, _ in streams],
                    [stream for _, stream in streams],
                    [multirange(sequences[key]) for key in streams],
                ),
            ).fetchall()
            self._check_pending(identities, names)
            self.connection.execute(
                "UPDATE site SET last_seen = now() FROM (SELECT id FROM site WHERE id = ANY(%s)"
                " AND last_seen < now() - interval '5 seconds' ORDER BY id FOR NO KEY UPDATE) AS old"
                " WHERE site.id = old.id",
                (list(names),),
            )
        found = {(site, bytes(stream)): ranges(committed) for site, stream, committed in rows}
        self._gaps.note(found)
        return {StreamKey(names[site], stream): committed for (site, stream), committed in found.items()}

    def _make_good(self) -> None:
        """A server that crashed has forgotten the last transactions that nobody waited for, though gateways were told
        of them: their batches would be missing for ever, and links unchecked. So whoever connects looks."""
        with self.connection.transaction():
            rows = self.connection.execute(
                """
                SELECT s.id, s.name, b.stream, b.sequence
                FROM batch b JOIN site s ON s.id = b.site
                     LEFT JOIN stream t ON t.site = b.site AND t.stream = b.stream
                WHERE b.id > (SELECT max(id) FROM batch) - %s AND s.here
                      AND (b.chain = 0 OR NOT coalesce(t.committed @> b.sequence, false))
                ORDER BY s.id FOR KEY SHARE OF s
                """,
                (RECENT,),
            ).fetchall()
            if rows:
                self._mark_committed(
                    [(site_id, bytes(stream), sequence) for site_id, _, stream, sequence in rows],
                    {site_id: name for site_id, name, _, _ in rows},
                )

    def _check_pending(self, identities: Sequence[Identity], names: dict[int, str]) -> None:
        """Links that could not be checked when their batch came: its own, and those of the batches after
        it."""
        broken = self.connection.execute(
            """
            UPDATE batch b SET chain = CASE WHEN b.previous = p.digest THEN 1 ELSE 2 END
            FROM batch p
            WHERE b.chain = 0 AND p.site = b.site AND p.stream = b.stream AND p.sequence = b.sequence - 1
              AND (b.site, b.stream, b.sequence) IN (
                  SELECT site, stream, sequence + step
                  FROM unnest(%b::int[], %b::bytea[], %b::bigint[]) AS t (site, stream, sequence),
                       generate_series(0, 1) AS step)
            RETURNING b.site, b.stream, b.sequence, b.chain
            """,
            tuple(map(list, zip(*identities, strict=True))),
        ).fetchall()
        for site_id, stream, sequence, chain in broken:
            if chain == CHAIN_BROKEN:
                detail = "previous is not the digest of the batch before it"
                self._chain_broken(names[site_id], site_id, bytes(stream), sequence, detail)

    def _chain_broken(self, site: str, site_id: int, stream: bytes, sequence: int, detail: str) -> None:
        self._alarms.tell("chain broken", site, stream, sequence, detail)
        self._alarms.keep(site_id, "chain-broken", stream, sequence, detail)


def generation_of(connection: psycopg.Connection) -> str:
    """Names this database's history: its cluster, and the timeline, which is another after a restore from a backup."""
    row = connection.execute(
        "SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()"
    ).fetchone()
    assert row is not None, "a function has one row"
    return f"{row[0]}-{int(row[1], 16)}"


def _is_there_already(error: psycopg.errors.UniqueViolation | psycopg.errors.InternalError_) -> bool:
    """Whether a COPY into `reading` has met a time that is there. Citus passes a node's error on as an internal one,
    with the text alone, which names the key that is violated in any language."""
    return isinstance(error, psycopg.errors.UniqueViolation) or bool(
        _KEY_OF_READINGS.search(error.diag.message_primary or "")
    )


def _identities(group: Sequence[Signed]) -> tuple[list[int], list[bytes], list[int]]:
    return (
        [one.site_id for one in group],
        [one.envelope.stream for one in group],
        [one.envelope.sequence for one in group],
    )


def _array(points: Sequence[int], places: Iterable[int]) -> str:
    return "{" + ",".join(str(points[place]) for place in places) + "}"

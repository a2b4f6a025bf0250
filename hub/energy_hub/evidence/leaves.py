# SPDX-License-Identifier: Apache-2.0
"""The leaves of a site's tree: what a leaf says of its batch, and how batches get there.

Leaves are added by one process at a time (`checkpoint` sees to that), and not by ingest: see
docs/decisions/0050-evidence.md.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple

import psycopg

from energy_hub.evidence.merkle import Frontier, edge, leaf_hash

log = logging.getLogger(__name__)

LEAF_PREFIX = b"energy/v1/leaf\0"
HASH = 32
# Batches that one transaction takes into the trees.
SLICE = 5000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What the hub says of a batch for ever; `key` is the public key that verified it."""

    site: str
    stream: bytes
    sequence: int
    digest: bytes
    key: bytes
    received: datetime
    readings: int
    quarantined: bool

    def data(self) -> bytes:
        site = self.site.encode()
        micros = (self.received - _EPOCH) // timedelta(microseconds=1)
        return b"".join(
            (
                LEAF_PREFIX,
                struct.pack(">B", len(site)),
                site,
                self.stream,
                struct.pack(">Q", self.sequence),
                self.digest,
                self.key,
                struct.pack(">qIB", micros, self.readings, self.quarantined),
            )
        )

    def hash(self) -> bytes:
        return leaf_hash(self.data())


class Due(NamedTuple):
    """A batch that is to become a leaf, by the database's numbers."""

    batch: int
    site: int
    leaf: Leaf


class Nodes:
    """The complete nodes of one site's tree, from the table. A node is kept with the last leaf that it covers."""

    def __init__(self, connection: psycopg.Connection, site: int) -> None:
        self._connection = connection
        self._site = site

    def __call__(self, level: int, index: int) -> bytes:
        return nodes(self._connection, [(self._site, level, index)])[self._site, level, index]


NodeKey = tuple[int, int, int]
"""(number of the site, level, index)"""


def nodes(connection: psycopg.Connection, keys: Sequence[NodeKey]) -> dict[NodeKey, bytes]:
    """Nodes of any sites. Raises LookupError for one that is not there."""
    found: dict[NodeKey, bytes] = {}
    rows = connection.execute(
        "SELECT t.site, t.level, t.index, substr(l.hashes, t.level * 32 + 1, 32)"
        " FROM unnest(%s::int[], %s::int[], %s::bigint[]) AS t (site, level, index)"
        " JOIN leaf l ON l.site = t.site AND l.number = ((t.index + 1) << t.level) - 1",
        ([key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]),
    )
    for site, level, index, hash_ in rows:
        found[site, level, index] = bytes(hash_)
    for key in keys:
        if len(found.get(key, b"")) != HASH:
            raise LookupError(f"the tree of site number {key[0]} has no node {key[2]} of level {key[1]}")
    return found


def sizes(connection: psycopg.Connection) -> dict[int, int]:
    """How many leaves each site has."""
    return dict(
        connection.execute(
            "SELECT s.id, coalesce((SELECT max(number) + 1 FROM leaf WHERE site = s.id), 0) FROM site s"
        ).fetchall()
    )


def frontiers(connection: psycopg.Connection, sites: Mapping[int, int]) -> dict[int, Frontier]:
    """The right edges of trees, by the sizes of the sites' trees."""
    keys = [(site, *key) for site, size in sites.items() for key in edge(0, size)]
    found = nodes(connection, keys)
    return {
        site: Frontier(size, [found[site, level, index] for level, index in edge(0, size)])
        for site, size in sites.items()
    }


def take_due(connection: psycopg.Connection) -> list[Due]:
    """Batches that are due, in the order of their numbers within each site, and due no more."""
    rows = connection.execute(
        # Those of a site that has gone to another database become leaves there. One that is not here stays due, and
        # so does one that no key is known of: keep_removed() and count_stuck() tell of them.
        "WITH taken AS (DELETE FROM leaf_due WHERE batch IN (SELECT d.batch FROM leaf_due d"
        " JOIN batch b ON b.id = d.batch JOIN site s ON s.id = b.site JOIN site_key k ON k.id = b.key"
        " WHERE s.here ORDER BY d.batch LIMIT %s) RETURNING batch)"
        " SELECT b.id, b.site, s.name, b.stream, b.sequence, b.digest, k.public, b.received, b.readings,"
        " b.quarantined FROM taken t JOIN batch b ON b.id = t.batch JOIN site s ON s.id = b.site"
        " JOIN site_key k ON k.id = b.key ORDER BY b.site, b.id",
        (SLICE,),
    ).fetchall()
    return [
        Due(batch, site, Leaf(name, bytes(stream), sequence, bytes(digest), bytes(key), *rest))
        for batch, site, name, stream, sequence, digest, key, *rest in rows
    ]


def keep_removed(connection: psycopg.Connection, moving: int | None = None) -> int:
    """Keep as evidence which batches were removed before they came into a tree, tell them to the log, and say how many.
    Those of the sites that live here, or of the one that is moving."""
    rows = connection.execute(
        """
        WITH gone AS (
            DELETE FROM leaf_due d USING site s
            WHERE s.id = d.site AND CASE WHEN %(moving)s::int IS NULL THEN s.here ELSE s.id = %(moving)s::int END
                  AND NOT EXISTS (SELECT FROM batch b WHERE b.id = d.batch)
            RETURNING d.site, s.name, d.stream, d.sequence, d.received AS moment
        ), told AS (
            SELECT *, to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS received FROM gone
        ), kept AS (
            INSERT INTO evidence (site, kind, stream, sequence, detail)
            SELECT site, 'batch-removed', stream, sequence,
                   'came in at ' || received || ' and was removed before it came into a tree'
            FROM told ORDER BY site, stream, sequence
        )
        SELECT name, stream, sequence, received FROM told ORDER BY name, received, sequence
        """,
        {"moving": moving},
    ).fetchall()
    for site, group in groupby(rows, key=lambda row: row[0]):
        removed = list(group)
        _, stream, sequence, received = removed[0]
        log.error(
            "ERR evidence: site %s: %d batches were removed before they came into a tree, the first of them stream %s"
            " sequence %d, which came in at %s; run energy-audit verify",
            site,
            len(removed),
            bytes(stream).hex(),
            sequence,
            received,
        )
    return len(rows)


def count_stuck(connection: psycopg.Connection) -> int:
    """Say how many batches are due and stay so, since their site or their key is unknown, and tell them to the log."""
    rows = connection.execute(
        "SELECT d.batch FROM leaf_due d LEFT JOIN batch b ON b.id = d.batch"
        " LEFT JOIN site s ON s.id = coalesce(b.site, d.site) LEFT JOIN site_key k ON k.id = b.key"
        " WHERE s.id IS NULL OR (s.here AND b.id IS NOT NULL AND k.id IS NULL) ORDER BY d.batch"
    ).fetchall()
    if rows:
        numbers = ", ".join(str(batch) for (batch,) in rows[:10])
        log.error(
            "ERR evidence: %d batches that are due for a tree have no site or no key any more: numbers %s;"
            " run energy-audit verify",
            len(rows),
            numbers,
        )
    return len(rows)


def append(connection: psycopg.Connection, due: Iterable[Due], trees: Mapping[int, Frontier]) -> None:
    """Put leaves at the right edge of their sites' trees, which moves on."""
    with connection.cursor().copy(
        "COPY leaf (site, number, batch, stream, sequence, received, hashes) FROM STDIN"
    ) as copy:
        for one in due:
            tree = trees[one.site]
            number = tree.size
            hashes = b"".join(tree.append(one.leaf.hash()))
            leaf = one.leaf
            copy.write_row((one.site, number, one.batch, leaf.stream, leaf.sequence, leaf.received, hashes))

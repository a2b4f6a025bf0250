# SPDX-License-Identifier: Apache-2.0
"""One step of the evidence: take what is due into the trees, and sign a checkpoint of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from energy_hub.evidence import leaves
from energy_hub.evidence.checkpoint import NO_PREVIOUS, Checkpoint, SiteTree, sign

# A batch that a worker is committing now is due in the next step, so nothing is waited for here but another step.
LOCK = "hashtextextended('energy.checkpoint', 0)"


class StepError(RuntimeError):
    """A checkpoint cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Done:
    checkpoint: Checkpoint
    number: int
    leaves: int
    sites: int
    # Batches that were due and are gone, or cannot be taken: the log has told which.
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """A database with sites, and which of the sites in it are meant: those that have moved away have left a copy."""

    connection: psycopg.Connection
    sites: frozenset[str] | None = None


def run(
    connection: psycopg.Connection,
    key: Ed25519PrivateKey,
    now: datetime | None = None,
    shards: Sequence[Shard] = (),
) -> Done | None:
    """Add leaves and sign; None when another process is doing that. The connection must be in autocommit mode; it is
    that of the database which has the checkpoints. Sites are in the same one, or in `shards`: of one that is not among
    them the trees stay what they were.
    Cut at any instant it has lost nothing: leaves come in transactions of their own, and a checkpoint in one. Batches
    that were due and are gone keep nobody from signing what is there."""
    if connection.execute(f"SELECT pg_try_advisory_lock({LOCK})").fetchone() != (True,):
        return None
    try:
        shards = shards or [Shard(connection)]
        added = sum(_grow(one.connection) for one in shards)
        missing = sum(
            leaves.keep_removed(one.connection) + leaves.count_stuck(one.connection) for one in shards
        )
        checkpoint, number, sites = _sign(connection, key, now or datetime.now(UTC), shards)
        return Done(checkpoint, number, added, sites, missing)
    finally:
        if not connection.closed:
            connection.execute(f"SELECT pg_advisory_unlock({LOCK})")


def _grow(connection: psycopg.Connection) -> int:
    trees = leaves.frontiers(connection, leaves.sizes(connection))
    added = 0
    while True:
        with connection.transaction():
            due = leaves.take_due(connection)
            # Sites that have come since.
            new = {one.site: 0 for one in due if one.site not in trees}
            trees |= leaves.frontiers(connection, new)
            leaves.append(connection, due, trees)
        added += len(due)
        if len(due) < leaves.SLICE:
            return added


def _grown(shard: Shard, before: dict[str, SiteTree]) -> dict[str, SiteTree]:
    """Trees that are not those of the newest checkpoint. Raises StepError."""
    connection = shard.connection
    names: dict[int, str] = dict(connection.execute("SELECT id, name FROM site").fetchall())
    sizes = {
        site: size
        for site, size in leaves.sizes(connection).items()
        if size and (shard.sites is None or names[site] in shard.sites)
    }
    for site, size in sizes.items():
        known = before.get(names[site])
        if known is not None and size < known.size:
            raise StepError(
                f"site {names[site]}: its tree has {size} leaves, checkpoints were signed for {known.size}:"
                " rows of table leaf were removed; nothing is signed, run energy-audit verify"
            )
    grown = {
        site: size
        for site, size in sizes.items()
        if names[site] not in before or before[names[site]].size != size
    }
    return {
        names[site]: SiteTree(tree.size, tree.root())
        for site, tree in leaves.frontiers(connection, grown).items()
    }


def _sign(
    connection: psycopg.Connection, key: Ed25519PrivateKey, now: datetime, shards: Sequence[Shard]
) -> tuple[Checkpoint, int, int]:
    before = latest_sites(connection)
    trees: dict[str, SiteTree] = {}
    for shard in shards:
        trees |= _grown(shard, before)
    with connection.transaction():
        row = connection.execute(
            "SELECT number, body, signature, key FROM checkpoint ORDER BY number DESC LIMIT 1"
        ).fetchone()
        last = Checkpoint(row[1], bytes(row[2]), bytes(row[3])) if row else None
        if last is not None:
            # A clock that was set back must not make time run backwards.
            now = max(now, last.body().time)
        number = row[0] + 1 if row else 1
        sites = before | trees
        new = sign(key, number, now, last.digest if last else NO_PREVIOUS, sites)
        connection.execute(
            "INSERT INTO checkpoint (number, body, signature, key) VALUES (%s, %s, %s, %s)",
            (number, new.text, new.signature, new.key),
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO checkpoint_site (checkpoint, site, size, root) VALUES (%s, %s, %s, %s)",
                [(number, site, tree.size, tree.root) for site, tree in sorted(trees.items())],
            )
    return new, number, len(sites)


def latest_sites(connection: psycopg.Connection) -> dict[str, SiteTree]:
    """Each site's tree as the newest checkpoint has it, by its name."""
    # One look by the key for each site; DISTINCT ON would read all rows.
    return {
        site: SiteTree(size, bytes(root))
        for site, size, root in connection.execute(
            """
            WITH RECURSIVE names AS (
                (SELECT site FROM checkpoint_site ORDER BY site LIMIT 1)
                UNION ALL
                SELECT (SELECT c.site FROM checkpoint_site c WHERE c.site > n.site ORDER BY c.site LIMIT 1)
                FROM names n WHERE n.site IS NOT NULL
            )
            SELECT n.site, c.size, c.root FROM names n CROSS JOIN LATERAL
            (SELECT size, root FROM checkpoint_site WHERE site = n.site ORDER BY checkpoint DESC LIMIT 1) AS c
            """
        )
    }

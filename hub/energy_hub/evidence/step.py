# SPDX-License-Identifier: Apache-2.0
"""One step of the evidence: take what is due into the trees, and sign a checkpoint of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from energy_hub.evidence import leaves
from energy_hub.evidence.checkpoint import NO_PREVIOUS, Checkpoint, SiteTree, sign

# A batch that a worker is committing now is due in the next step, so nothing is waited for here but another step.
_LOCK = "hashtextextended('energy.checkpoint', 0)"


class StepError(RuntimeError):
    """A checkpoint cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Done:
    checkpoint: Checkpoint
    number: int
    leaves: int
    sites: int


def run(connection: psycopg.Connection, key: Ed25519PrivateKey, now: datetime | None = None) -> Done | None:
    """Add leaves and sign; None when another process is doing that. The connection must be in autocommit mode.
    Cut at any instant it has lost nothing: leaves come in transactions of their own, and a checkpoint in one."""
    if connection.execute(f"SELECT pg_try_advisory_lock({_LOCK})").fetchone() != (True,):
        return None
    try:
        added = _grow(connection)
        checkpoint, number, sites = _sign(connection, key, now or datetime.now(UTC))
        return Done(checkpoint, number, added, sites)
    finally:
        if not connection.closed:
            connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")


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


def _sign(
    connection: psycopg.Connection, key: Ed25519PrivateKey, now: datetime
) -> tuple[Checkpoint, int, int]:
    names: dict[int, str] = dict(connection.execute("SELECT id, name FROM site").fetchall())
    before = latest_sites(connection)
    sizes = {site: size for site, size in leaves.sizes(connection).items() if size}
    grown = {site: size for site, size in sizes.items() if site not in before or before[site].size != size}
    trees = {
        site: SiteTree(tree.size, tree.root()) for site, tree in leaves.frontiers(connection, grown).items()
    }
    for site, size in sizes.items():
        if site in before and size < before[site].size:
            raise StepError(
                f"site {names[site]}: its tree has {size} leaves, checkpoints were signed for {before[site].size}:"
                " rows of table leaf were removed; nothing is signed, run energy-audit verify"
            )
    with connection.transaction():
        row = connection.execute(
            "SELECT number, body, signature, key FROM checkpoint ORDER BY number DESC LIMIT 1"
        ).fetchone()
        last = Checkpoint(row[1], bytes(row[2]), bytes(row[3])) if row else None
        if last is not None:
            # A clock that was set back must not make time run backwards.
            now = max(now, last.body().time)
        number = row[0] + 1 if row else 1
        sites = {names[site]: tree for site, tree in (before | trees).items()}
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


def latest_sites(connection: psycopg.Connection) -> dict[int, SiteTree]:
    """Each site's tree as the newest checkpoint has it, by the site's number."""
    return {
        site: SiteTree(size, bytes(root))
        for site, size, root in connection.execute(
            "SELECT s.id, c.size, c.root FROM site s CROSS JOIN LATERAL"
            " (SELECT size, root FROM checkpoint_site WHERE site = s.id ORDER BY checkpoint DESC LIMIT 1) AS c"
        )
    }

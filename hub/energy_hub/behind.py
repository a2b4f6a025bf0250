# SPDX-License-Identifier: Apache-2.0
"""How far rollups and checkpoints are behind what is committed."""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from energy_hub.evidence.checkpoint import Checkpoint, CheckpointError

# Notes that are counted, which bounds the cost: from an index, in its order. How old the oldest is says the rest.
MOST = 100_000

_BEHIND = """
SELECT count(*), extract(epoch FROM coalesce((SELECT received FROM batch WHERE id = min(t.batch)), now()))::float8,
       (SELECT body FROM checkpoint ORDER BY number DESC LIMIT 1)
FROM (SELECT batch FROM touched ORDER BY batch LIMIT %s) AS t
"""


class Behind(NamedTuple):
    """Times are Unix seconds."""

    # Of rows of `touched`: how many, `MOST` at most, and when the oldest one's batch was committed; with none, now.
    notes: int
    since: float
    # Of the newest checkpoint: None for none, and for a row that is none.
    checkpoint: float | None


def look(connection: psycopg.Connection) -> Behind:
    """Raises psycopg.Error."""
    row = connection.execute(_BEHIND, (MOST,)).fetchone()
    assert row is not None, "an aggregate has one row"
    notes, since, body = row
    return Behind(notes, since, _time(body) if body is not None else None)


def _time(body: str) -> float | None:
    try:
        return Checkpoint(body, b"", b"").body().time.timestamp()
    except CheckpointError:
        return None

# SPDX-License-Identifier: Apache-2.0
"""The fleet's energy over a span of time, by what the meters measure: sums of each database, then of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from energy_hub.evidence.step import Shard

# Mean power of a quarter of an hour, in W, to kWh.
_ENERGY = """
SELECT coalesce(m.role, 'consumption'), sum(q.sum / (q.good + q.uncertain)) / 4000, count(*), count(DISTINCT s.id)
FROM site s
CROSS JOIN LATERAL (SELECT content FROM site_description d WHERE d.site = s.name AND d.since < %(until)s
                    ORDER BY d.since DESC LIMIT 1) AS d
CROSS JOIN LATERAL jsonb_to_recordset(d.content -> 'meters') AS m (name text, role text)
JOIN point p ON p.site = s.id AND p.name = m.name || '/active_power'
JOIN rollup_quarter q ON q.point = p.id AND q.start >= %(since)s AND q.start < %(until)s AND q.sum IS NOT NULL
WHERE %(sites)s::text[] IS NULL OR s.name = ANY(%(sites)s)
GROUP BY 1
"""


@dataclass(frozen=True)
class Total:
    """Of all meters with one role. `quarters` are those of all meters together."""

    energy_kwh: float
    quarters: int
    sites: int

    def __add__(self, other: Total) -> Total:
        # A site is in one database, so that no site is counted twice.
        return Total(
            self.energy_kwh + other.energy_kwh, self.quarters + other.quarters, self.sites + other.sites
        )


def of_all(shards: Sequence[Shard], since: datetime, until: datetime) -> dict[str, Total]:
    """By role, as the sites' files say; sites that are not described are in none. Raises psycopg.Error."""
    found: dict[str, Total] = {}
    for shard in shards:
        sites = None if shard.sites is None else sorted(shard.sites)
        for role, total in _of_database(shard.connection, since, until, sites):
            found[role] = found[role] + total if role in found else total
    return dict(sorted(found.items()))


def _of_database(
    connection: psycopg.Connection, since: datetime, until: datetime, sites: list[str] | None
) -> list[tuple[str, Total]]:
    rows = connection.execute(_ENERGY, {"since": since, "until": until, "sites": sites})
    return [(role, Total(*figures)) for role, *figures in rows]

# SPDX-License-Identifier: Apache-2.0
"""What readings tell of meters that give no value and of lines that spoil what is said on them: a line in the log of
the rollups, which meet every batch once, in the words that a person searches the logs for.

The journal of a gateway says more, and at once. Here it is one line for a meter or a bus in a period, so that what is
wrong with a whole fleet can be read in one place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import psycopg

from energy_hub.health import OWN_SOURCES
from energy_hub.logs import Throttle

log = logging.getLogger(__name__)

PERIOD = 3600.0  # s
# Quality codes of readings without a value, docs/reference/wire-format.md: what they say, and where to look.
CAUSES = {
    129: ("bad_no_answer", "check the meter's power, its unit id and the wiring, or the way of its radio"),
    130: ("bad_device_failure", "the device refuses; check the meter's profile and model, and its display"),
    131: ("bad_frame", "noise on the line, a second master, or two devices with one unit id"),
    132: ("bad_connection", "check the address and the port of its bus, the cable, and the device there"),
    134: ("bad_configuration", "check the meter's profile and model"),
}
# The register was read, and it says that no sensor is there.
BAD_SENSOR = 133

# Of the minutes that a statement counts, the points that are worth a look: those without a value in one, and those that
# may be a counter that has met an error, which is a whole number from 1 on. That leaves most out.
_SUSPECT = """
WITH counted AS ({insert} RETURNING point, start, readings - good - uncertain AS nulls, minimum, maximum)
SELECT point, min(start), max(start), min(minimum), max(maximum), max(start) FILTER (WHERE nulls > 0)
FROM counted GROUP BY point
HAVING max(nulls) > 0 OR max(maximum) >= 1 AND max(maximum) = trunc(max(maximum))
"""

_SILENT = """
SELECT DISTINCT ON (s.name, m.name) s.name, m.name, r.time, r.quality, 0::float8
FROM unnest(%s::int[], %s::timestamptz[]) AS c (point, start)
JOIN point p ON p.id = c.point
JOIN site s ON s.id = p.site
CROSS JOIN LATERAL (SELECT split_part(p.name, '/', 1)) AS m (name)
CROSS JOIN LATERAL (SELECT time, quality FROM reading
                    WHERE point = c.point AND time >= c.start AND time < c.start + interval '1 minute'
                    AND quality >= 128 AND quality <> %s ORDER BY time DESC LIMIT 1) AS r
WHERE m.name <> ALL(%s)
ORDER BY s.name, m.name, r.time DESC
"""

# A value below the one before began again at 0; the first one of all is where counting begins.
_NOISY = """
SELECT s.name, substr(p.name, 7, length(p.name) - 17), c.newest, 0, g.grown
FROM unnest(%s::int[], %s::timestamptz[], %s::timestamptz[], %s::float8[], %s::float8[])
     AS c (point, oldest, newest, least, most)
JOIN point p ON p.id = c.point AND p.name ~ '^buses/.*-crc_errors$'
JOIN site s ON s.id = p.site
CROSS JOIN LATERAL (SELECT coalesce(
    (SELECT last_value FROM rollup_minute
     WHERE point = c.point AND start < c.oldest AND start >= c.oldest - interval '1 hour' AND last_value IS NOT NULL
     ORDER BY start DESC LIMIT 1), c.least)) AS b (before)
CROSS JOIN LATERAL (SELECT CASE WHEN c.most >= b.before THEN c.most - b.before ELSE c.most END) AS g (grown)
WHERE g.grown > 0
ORDER BY s.name, p.name
"""


class Fault(NamedTuple):
    """Of a meter, its newest reading without a value; of a bus, by how much its counter of CRC errors grew."""

    site: str
    name: str
    time: datetime
    quality: int
    grown: float


_told = Throttle(PERIOD)


def count(connection: psycopg.Connection, insert: str, values: Mapping[str, object]) -> list[Fault]:
    """Do the statement that counts minutes, and look at what it wrote. Raises psycopg.Error."""
    # Planned each time, for as many minutes as there are.
    suspect = connection.execute(_SUSPECT.replace("{insert}", insert), values, prepare=False).fetchall()
    silent = [(row[0], row[5]) for row in suspect if row[5] is not None]
    noisy = [row[:5] for row in suspect if row[4] is not None and row[4] >= 1]
    rows = []
    if silent:
        places = (*map(list, zip(*silent, strict=True)), BAD_SENSOR, list(OWN_SOURCES))
        rows += connection.execute(_SILENT, places).fetchall()
    if noisy:
        rows += connection.execute(_NOISY, tuple(map(list, zip(*noisy, strict=True)))).fetchall()
    return [Fault(*row) for row in rows]


def tell(faults: list[Fault]) -> None:
    """A line for each, within reason: a meter that is silent for weeks must not fill the log."""
    for one in faults:
        if _told((one.site, one.name, one.grown > 0)) is None:
            continue
        time = f"{one.time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if one.grown:
            text = "ERR CRC Error: site %s bus %s: %d more by %s; check shielding, termination and earthing of its line"
            log.error(text, one.site, one.name, one.grown, time)
        else:
            name, cause = CAUSES.get(one.quality, (f"quality {one.quality}", "see the gateway's journal"))
            text = "ERR REGISTER_READ_FAILURE: site %s meter %s: no value at %s (%s); %s"
            log.error(text, one.site, one.name, time, name, cause)

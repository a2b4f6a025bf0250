# SPDX-License-Identifier: Apache-2.0
"""What has to be there before readings are stored: their points, the points' units, and the months they fall into."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from energy_hub.alarms import Alarms
from energy_hub.batch import Body, Series
from energy_hub.times import EPOCH, iso, milliseconds, months

log = logging.getLogger(__name__)

# Points of one site; a thousand meters have fewer.
REMEMBERED = 30_000


@dataclass(slots=True)
class _Point:
    id: int
    units: list[tuple[int, str]]  # (since, ms; unit), ascending


class Points:
    """What one worker remembers of them."""

    def __init__(self, connection: psycopg.Connection, alarms: Alarms) -> None:
        self._connection = connection
        self._alarms = alarms
        self._known: dict[int, dict[str, _Point]] = {}
        self._months: set[tuple[int, int]] = set()

    def numbers(self, site_id: int, body: Body) -> list[int]:
        """The numbers of a body's points, in their order; points and units that are new are made."""
        known = self._known.setdefault(site_id, {})
        if len(known) > REMEMBERED:
            # No site has so many; one that makes up new ones must not fill the memory of all.
            known.clear()
        missing = sorted({series.point for series in body.series if series.point not in known})
        if missing:
            self._load(site_id, missing, body.series)
        numbers = []
        for series in body.series:
            point = known[series.point]
            since, unit = point.units[0]
            if len(point.units) > 1:
                since, unit = max(
                    (entry for entry in point.units if entry[0] <= series.times[0]), default=point.units[0]
                )
            if unit != series.unit:
                self._add_unit(site_id, point, series, f"from {unit} (since {iso(since)})")
            numbers.append(point.id)
        return numbers

    def _load(self, site_id: int, names: list[str], series: Iterable[Series]) -> None:
        units = {one.point: one.unit for one in series}
        with self._connection.transaction():
            self._connection.execute(
                "INSERT INTO point (site, name) SELECT %s, name FROM unnest(%s::text[]) AS name"
                " ORDER BY name ON CONFLICT DO NOTHING",
                (site_id, names),
            )
            # The first unit of a point holds from the beginning: a backlog may bring older readings later.
            self._connection.execute(
                "INSERT INTO point_unit (point, since, unit) SELECT p.id, %s, t.unit"
                " FROM unnest(%s::text[], %s::text[]) AS t (name, unit)"
                " JOIN point p ON p.site = %s AND p.name = t.name ORDER BY p.id ON CONFLICT DO NOTHING",
                (EPOCH, names, [units[name] for name in names], site_id),
            )
        known = self._known[site_id]
        for point_id, name, since, unit in self._connection.execute(
            "SELECT p.id, p.name, u.since, u.unit FROM point p JOIN point_unit u ON u.point = p.id"
            " WHERE p.site = %s AND p.name = ANY(%s) ORDER BY u.since",
            (site_id, names),
        ):
            known.setdefault(name, _Point(point_id, [])).units.append((milliseconds(since), unit))

    def _add_unit(self, site_id: int, point: _Point, series: Series, was: str) -> None:
        since = EPOCH + timedelta(milliseconds=series.times[0])
        detail = f"{series.point}: {was} to {series.unit} since {iso(series.times[0])}"
        with self._connection.transaction():
            added = self._connection.execute(
                "INSERT INTO point_unit (point, since, unit) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (point.id, since, series.unit),
            ).rowcount
            if added:
                if self._alarms.told(("unit changed", site_id)) is not None:
                    log.warning("unit changed: %s", detail)
                self._alarms.keep(site_id, "unit-changed", None, None, detail)
        point.units = sorted([*point.units, (series.times[0], series.unit)])

    def ensure_months(self, bodies: Sequence[Body]) -> None:
        moments: dict[tuple[int, int], datetime] = {}
        seen: set[int] = set()
        for body in bodies:
            for series in body.series:
                if id(series.times) in seen:
                    continue
                seen.add(id(series.times))
                for moment in months(series.times):
                    moments[moment.year, moment.month] = moment
        for month in sorted(moments.keys() - self._months):
            if self._connection.execute("SELECT ensure_month(%s)", (moments[month],)).fetchone() == (True,):
                log.info("partition of %04d-%02d made", *month)
            self._months.add(month)

# SPDX-License-Identifier: Apache-2.0
"""The document of `energy-hub fleet`: every site's figures, and the fleet's, which are their sums.

Its shape is docs/reference/schema/fleet-status.schema.json. It has figures only: what of them is a trouble is judged by
who shows them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from energy_hub.evidence.step import Shard
from energy_hub.fleet import agreement, queries
from energy_hub.fleet.balance import FIGURES, Balance, balance, counting, energy_of
from energy_hub.fleet.history import Cut, cuts_of
from energy_hub.fleet.meters import (
    EXPORT,
    IMPORT,
    MAIN,
    MEAN,
    POWER,
    Description,
    Meter,
    description_of,
    holds_from,
    meters_of,
    without_power,
)
from energy_hub.reconcile import Verdict

Row = dict[str, Any]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# Readings of the hour before may still be under way for so long.
UNDER_WAY = timedelta(minutes=10)
# A site that is online is late when its newest reading is older than this and three of its meters' intervals.
LATE = timedelta(minutes=10)
# A value counts as that of now when it is no older than this and three of its meter's intervals.
NOW = timedelta(minutes=5)
# A clock may be fast by so much.
AHEAD = timedelta(minutes=1)
STATES = ("online", "late", "offline", "never seen")
VERDICTS = ("agrees", "differs", "unknown")
# What in the queries' rows is a time.
TIMES = frozenset(
    (
        "now",
        "received",
        "state_since",
        "first_seen",
        "last_seen",
        "expires",
        "today",
        "yesterday",
        "since",
        "first",
        "time",
        "start",
    )
) | {"first_time", "last_time"}
ERRORS = ("requests", "crc_errors", "timeouts")


@dataclass
class _Site:
    """What is gathered of a site. `id` is None while the hub has never heard of it."""

    name: str
    row: Row | None = None
    described: Description | None = None
    meters: tuple[Meter, ...] = ()
    cuts: Mapping[str, set[Cut]] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    buses: dict[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        assert self.row is not None, "only asked of sites that the hub knows"
        return int(self.row["id"])


def of_all(shards: Sequence[Shard], names: Sequence[str] | None = None, now: datetime | None = None) -> Row:
    """The same of several databases, each with the sites that live in it."""
    if len(shards) == 1 and shards[0].sites is None:
        return document(shards[0].connection, names, now)
    found = []
    for shard in shards:
        living = shard.sites or frozenset()
        wanted = sorted(living if names is None else living.intersection(names))
        found.append(document(shard.connection, wanted, now))
        now = now or found[0]["time"]
    nowhere = set(names or ()).difference(*(one["sites"] for one in found))
    found.append(document(shards[0].connection, sorted(nowhere), now))
    sites = dict(sorted((name, site) for one in found for name, site in one["sites"].items()))
    return {
        **found[0],
        "window": {edge: min(one["window"][edge] for one in found) for edge in ("since", "until")},
        "fleet": _fleet(sites),
        "hours": _summed([one["hours"] for one in found]),
        "sites": sites,
    }


def _summed(parts: Sequence[Row]) -> Row:
    """Hours of several databases. One that is behind with its rollups begins earlier."""
    starts = sorted({start for one in parts for start in one["start"]})

    def total(name: str) -> list[Any]:
        columns = [dict(zip(one["start"], one[name], strict=True)) for one in parts]
        rows = [[column[at] for column in columns if column.get(at) is not None] for at in starts]
        return [_rounded(math.fsum(values)) if values else None for values in rows]

    return {
        "start": starts,
        "sites": [int(count or 0) for count in total("sites")],
        **{name: total(name) for name in FIGURES},
    }


def document(
    connection: psycopg.Connection, names: Sequence[str] | None = None, now: datetime | None = None
) -> Row:
    """All sites that are described or were heard of, or those of `names`, whether the hub knows them or not."""
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        # Few spans are looked up in large tables, as in rollup.py; compiling takes longer than running.
        cursor.execute("SET LOCAL enable_mergejoin = off")
        cursor.execute("SET LOCAL jit = off")
        return _Glance(cursor, names, now).document()


class _Glance:
    def __init__(
        self, cursor: psycopg.Cursor[Row], names: Sequence[str] | None, now: datetime | None
    ) -> None:
        self._cursor = cursor
        self.now: datetime = now or self._rows("SELECT now() AS now")[0]["now"]
        self._sites = self._known(names)
        self._seen = {site.number: site for site in self._sites.values() if site.row}
        waiting = {row["site"]: row["received"] for row in self._rows(queries.WAITING)}
        usual = self.now - UNDER_WAY
        counted = min(usual, waiting.get(0, usual))
        # Up to which hour all of a site is counted. One that is behind holds back its own figures, and no other's.
        self._until = {number: _hour(min(counted, waiting.get(number, counted))) for number in self._seen}
        self.until = max(self._until.values(), default=_hour(counted))
        self.since = self.until - DAY
        self._points(None if names is None else list(self._seen))

    def document(self) -> Row:
        newest = self._newest()
        last = self._last(newest)
        days = self._days()
        counts = self._counts()
        delays = self._by_site(queries.DELAYS, **self._delay_points(newest))
        chains = self._by_site(queries.CHAINS)
        hours = self._hours()
        agreed = self._agreed()
        errors = self._errors(hours["start"])
        sites = {}
        for name, site in sorted(self._sites.items()):
            number = site.number if site.row else -1
            sites[name] = {
                "label": site.described.label if site.described else None,
                "region": site.described.region if site.described else None,
                "described": site.described is not None,
                **self._state(site, last.get(number)),
                "last_reading": last.get(number),
                "last_seen": site.row["last_seen"] if site.row else None,
                "delay": _delay(delays.get(number)),
                "completeness": self._completeness(site, counts),
                "bus_errors": errors.get(number),
                "certificate": self._certificate(site),
                "chain": _chain(chains.get(number)) if site.row else None,
                "collector": site.row["collector"] if site.row else None,
                "power_kw": _figures(self._power(site, newest)),
                "energy_kwh": _figures(self._energy(site, days)),
                "agreement": _agreement(agreed.get(number)),
            }
        return {
            "version": 1,
            "time": self.now,
            "window": {"since": self.since, "until": self.until},
            "fleet": _fleet(sites),
            "hours": hours,
            "sites": sites,
        }

    # --- which sites, with which meters

    def _known(self, names: Sequence[str] | None) -> dict[str, _Site]:
        asked = {"names": None if names is None else list(names), "now": self.now}
        sites = {name: _Site(name) for name in names or ()}
        said: dict[str, list[Description]] = {}
        for row in self._rows(queries.DESCRIPTIONS, **asked):
            said.setdefault(row["site"], []).append(description_of(row))
        for name, history in said.items():
            history.sort(key=lambda one: one.begins)
            site = sites.setdefault(name, _Site(name))
            site.described, site.cuts = history[-1], cuts_of(history)
        for row in self._rows(queries.SITES, **asked):
            sites.setdefault(row["name"], _Site(row["name"])).row = row
        return sites

    def _points(self, numbers: list[int] | None) -> None:
        for row in self._rows(queries.POINTS, points=[POWER, MEAN, IMPORT, EXPORT], sites=numbers):
            site = self._seen.get(row["site"])
            if site is not None:
                own = site.buses if row["name"].startswith("buses/") else site.points
                own[row["name"]] = row["id"]
        missing = [
            (site.number, meter)
            for site in self._seen.values()
            if site.described
            for meter in without_power(site.described, site.points)
        ]
        others: dict[int, dict[str, int]] = {}
        if missing:
            asked = {"sites": [site for site, _ in missing], "meters": [meter for _, meter in missing]}
            for row in self._rows(queries.OTHER_POINTS, **asked):
                others.setdefault(row["site"], {})[row["meter"]] = row["id"]
        for site in self._sites.values():
            if site.described:
                found = others.get(site.number, {}) if site.row else {}
                site.meters = meters_of(site.described, site.points, found)

    # --- readings

    def _newest(self) -> dict[int, Row]:
        """The newest reading of each point that meters are shown by, where it is one of now."""
        wanted = {
            one.shown: self.now - NOW - 3 * timedelta(seconds=one.interval)
            for site in self._seen.values()
            for one in site.meters
            if one.shown is not None
        }
        for site in self._seen.values():
            if not site.described:
                wanted |= dict.fromkeys(site.points.values(), self.now - NOW)
        rows = self._rows(
            queries.NEWEST, points=list(wanted), since=list(wanted.values()), until=self.now + AHEAD
        )
        return {row["point"]: row for row in rows}

    def _last(self, newest: Mapping[int, Row]) -> dict[int, datetime]:
        """The time of each site's newest reading, however old."""
        last = {}
        for site in self._seen.values():
            times = [newest[point]["time"] for point in _shown(site) if point in newest]
            if times:
                last[site.number] = max(times)
        silent = [number for number in self._seen if number not in last]
        if silent:
            rows = self._rows(queries.NEWEST_OF_SITES, sites=silent, until=self.now + AHEAD)
            last |= {row["site"]: row["time"] for row in rows}
        return last

    def _delay_points(self, newest: Mapping[int, Row]) -> Row:
        """A point of each site that delivers now, that of its supply where it has one."""
        chosen = {}
        for site in self._seen.values():
            points = [point for point in _shown(site) if point in newest]
            if points:
                chosen[site.number] = points[0]
        return {"sites": list(chosen), "points": list(chosen.values()), "now": self.now}

    def _counts(self) -> dict[int, Row]:
        wanted = {
            one.shown: (self._expected_from(site), self._until[number])
            for number, site in self._seen.items()
            for one in site.meters
            if one.shown is not None
        }
        rows = self._rows(
            queries.COUNTS,
            points=list(wanted),
            since=[since for since, _ in wanted.values()],
            until=[until for _, until in wanted.values()],
        )
        return {row["point"]: row for row in rows}

    def _days(self) -> dict[int, Row]:
        wanted: dict[int, datetime] = {}
        for site in self._seen.values():
            assert site.row is not None
            if site.row["today"] is not None:
                for one in counting(site.meters):
                    for point in (one.power, one.energy_import, one.energy_export):
                        if point is not None:
                            wanted[point] = site.row["today"]
        rows = self._rows(queries.DAYS, points=list(wanted), starts=list(wanted.values()))
        return {row["point"]: row for row in rows}

    def _hours(self) -> Row:
        starts = [self.since]
        while starts[-1] + HOUR <= self.now:
            starts.append(starts[-1] + HOUR)
        points: list[int] = []
        sites: list[int] = []
        roles: list[str] = []
        meters: list[int] = []
        for number, site in self._seen.items():
            needed = counting(site.meters)
            for one in needed if all(meter.power is not None for meter in needed) else ():
                points.append(one.power or 0)
                sites.append(number)
                roles.append(one.role)
                meters.append(len(needed))
        rows = self._rows(
            queries.HOURS,
            points=points,
            sites=sites,
            roles=roles,
            meters=meters,
            since=self.since,
            now=self.now,
        )
        found = {row["start"]: row for row in rows}
        return {
            "start": starts,
            "sites": [found[at]["sites"] if at in found else 0 for at in starts],
            **{
                name: [_rounded(found[at][name]) if at in found else None for at in starts]
                for name in FIGURES
            },
        }

    def _agreed(self) -> dict[int, tuple[agreement.Day, Verdict]]:
        """Of the sites that are described, with the last whole day of each."""
        days = {}
        for number, site in self._seen.items():
            if site.described and site.row and site.row["today"]:
                begins = site.row["yesterday"]
                until = site.row["today"]
                since = max(begins, holds_from(site.described.begins, site.described.meters, until))
                days[number] = agreement.Day(number, site.described, site.meters, begins, since, until)
        found = agreement.verdicts(self._rows, list(days.values()))
        return {number: (days[number], one) for number, one in found.items()}

    def _errors(self, starts: Sequence[datetime]) -> dict[int, Row]:
        points = [
            (point, number, name.rpartition("-")[2])
            for number, site in self._seen.items()
            for name, point in site.buses.items()
        ]
        rows = self._rows(
            queries.ERRORS,
            points=[point for point, _, _ in points],
            sites=[number for _, number, _ in points],
            counters=[counter for _, _, counter in points],
            since=self.since,
            now=self.now,
        )
        place = {at: number for number, at in enumerate(starts)}
        found: dict[int, Row] = {}
        for row in rows:
            one = found.setdefault(
                row["site"], {**dict.fromkeys(ERRORS, 0), "crc_by_hour": [], "timeouts_by_hour": []}
            )
            for name in ERRORS:
                one[name] += row[name]
            for name, hours in (("crc_errors", "crc_by_hour"), ("timeouts", "timeouts_by_hour")):
                if row[name]:
                    one[hours] = one[hours] or [0] * len(starts)
                    one[hours][place[row["start"]]] += row[name]
        return found

    # --- the figures of a site

    def _state(self, site: _Site, last: datetime | None) -> Row:
        if site.row is None:
            return {"state": "never seen", "since": site.described.first if site.described else None}
        if site.row["state"] == "offline":
            return {"state": "offline", "since": site.row["state_since"] or site.row["last_seen"]}
        usual = min((one.interval for one in site.meters), default=0.0)
        quiet = self.now - (last or site.row["first_seen"])
        if quiet > LATE + 3 * timedelta(seconds=usual):
            return {"state": "late", "since": last or site.row["first_seen"]}
        return {"state": "online", "since": site.row["state_since"]}

    def _expected_from(self, site: _Site) -> datetime:
        """What was measured before the site was there, or by another file, is not held against it."""
        assert site.row is not None
        assert site.described is not None
        begins = max(site.row["first_seen"], site.described.begins)
        return max(self.since, min(self._until[site.number], _hour(begins) + HOUR))

    def _completeness(self, site: _Site, counts: Mapping[int, Row]) -> Row | None:
        if site.row is None or site.described is None or not site.meters:
            return None
        seconds = (self._until[site.number] - self._expected_from(site)).total_seconds()
        if seconds <= 0:
            return None
        expected = received = missing = null = 0
        for one in site.meters:
            count = counts.get(one.shown or 0)
            wanted, here = math.floor(seconds / one.interval), count["readings"] if count else 0
            expected += wanted
            received += here
            missing += max(0, wanted - here)
            null += here - count["valued"] if count else 0
        return {
            "hours": round(seconds / 3600),
            "expected": expected,
            "received": received,
            "missing": missing,
            "null": null,
        }

    def _certificate(self, site: _Site) -> Row | None:
        if site.row is None or site.row["expires"] is None:
            return None
        left = (site.row["expires"] - self.now) / DAY
        return {"expires": site.row["expires"], "days_left": math.floor(left)}

    def _power(self, site: _Site, newest: Mapping[int, Row]) -> Balance:
        values = {}
        for one in site.meters:
            row = newest.get(one.power) if one.power is not None else None
            values[one.name] = None if row is None or row["value"] is None else row["value"] / 1000
        return balance(site.meters, values)

    def _energy(self, site: _Site, days: Mapping[int, Row]) -> Balance:
        values = {one.name: energy_of(one, days, site.cuts.get(one.name, ())) for one in site.meters}
        return balance(site.meters, values)

    # --- the database

    def _rows(self, query: str, **values: object) -> list[Row]:
        """As one JSON text: row by row, Python would take several times as long as PostgreSQL for a large fleet."""
        whole = f"SELECT coalesce(json_agg(r), '[]')::text AS rows FROM ({query}) AS r"  # noqa: S608  (our queries)
        found = self._cursor.execute(whole, values).fetchone()
        assert found is not None, "an aggregate has one row"
        return [
            {name: _read(name, value) for name, value in row.items()} for row in json.loads(found["rows"])
        ]

    def _by_site(self, query: str, **values: object) -> dict[int, Row]:
        return {row["site"]: row for row in self._rows(query, **values)}


def _shown(site: _Site) -> list[int]:
    """Points by which a site's readings are looked at, that of its supply first."""
    if not site.described:
        return list(site.points.values())
    meters = sorted(site.meters, key=lambda one: one.role != MAIN)
    return [one.shown for one in meters if one.shown is not None]


def _fleet(sites: Mapping[str, Row]) -> Row:
    """The sums over the sites. `known` says of how many sites a figure is the sum; the others are not in it."""
    counted = [one["completeness"] for one in sites.values() if one["completeness"]]
    errors = [one["bus_errors"] for one in sites.values() if one["bus_errors"]]
    days = [one["certificate"]["days_left"] for one in sites.values() if one["certificate"]]
    states = Counter(one["state"] for one in sites.values())
    agreed = Counter(one["agreement"]["state"] for one in sites.values() if one["agreement"])
    return {
        "sites": len(sites),
        "states": {state: states[state] for state in STATES},
        "completeness": {
            name: sum(one[name] for one in counted) for name in ("expected", "received", "missing", "null")
        },
        "bus_errors": {name: sum(one[name] for one in errors) for name in ERRORS},
        "certificate_days_least": min(days, default=None),
        "collectors": dict(
            Counter(one["collector"] or "unknown" for one in sites.values() if one["last_seen"])
        ),
        "power_kw": _totals([one["power_kw"] for one in sites.values()]),
        "energy_kwh": _totals([one["energy_kwh"] for one in sites.values()]),
        "agreement": {state: agreed[state] for state in VERDICTS},
    }


def _totals(rows: Sequence[Row]) -> Row:
    known = {name: [row[name] for row in rows if row[name] is not None] for name in FIGURES}
    return {
        **{name: _rounded(math.fsum(values)) if values else None for name, values in known.items()},
        "known": {name: len(values) for name, values in known.items()},
    }


def _figures(one: Balance) -> Row:
    return {name: _rounded(value) for name, value in asdict(one).items()}


def _rounded(value: float | None) -> float | None:
    """To a watt or a watt hour, and no -0.0."""
    return None if value is None else round(value, 3) + 0.0


def _agreement(found: tuple[agreement.Day, Verdict] | None) -> Row | None:
    if found is None:
        return None
    day, one = found
    known = one.state != "unknown"
    return {
        "since": day.begins,
        "until": day.until,
        "state": one.state,
        "supply_kwh": _rounded(one.supply) if known else None,
        "parts_kwh": _rounded(one.parts) if known else None,
        "share": None if one.share is None else round(one.share, 4),
        "meter": one.meter,
        "causes": list(one.causes),
    }


def _delay(row: Row | None) -> Row | None:
    if row is None:
        return None
    median, most = row["delays"]
    return {"p50": round(median, 1), "p95": round(most, 1), "samples": row["samples"]}


def _chain(row: Row | None) -> str:
    return "ok" if row is None else "broken" if row["broken"] else "pending"


def _read(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in TIMES and value is not None else value


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)

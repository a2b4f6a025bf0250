# SPDX-License-Identifier: Apache-2.0
"""How long a day of one site takes to read, at a hundred million readings, and whether it matters how many sites they
are of.

    .venv/bin/python tests/bench/bench_query.py [--rows 100000000] [--sites 10 100 1000] [--picks 100]

A PostgreSQL of its own, as it comes, with the hub's schema. For each number of sites as many readings in all: every
point has one each minute, so that ten sites have a hundred times the days of a thousand. They are put into `reading` as
ingest puts them there, its partitions and keys in place: minute by minute, site by site, each minute of a site a batch.
So a point's day lies scattered over 1,440 places, a reading each, which is as bad as it gets.

Asked is what `energy-hub export-identities` asks, `report.identities`, all rows fetched: a day (UTC) of one site and
point, and of one site with all its points, by chance. `cold`: before each the operating system forgets the tables'
files, so that all of it comes from the disk; once for all would not do, since what is read of a day is read of all
sites, and with a thousand sites there are two days to ask for. `warm`: each a second time, at once; `CPU` is what these
take of the processors, server and client together, which others that run beside do not change. `disk`: what the server
had fetched from there for a cold one. With fewer --rows a site has fewer points.

100 million rows take about 11 GB below --folder, and about a quarter of an hour to load for each number of sites.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "hub")]

import psycopg
from energy_hub import report

from tests.bench.rig.cost import cpu_seconds, fetched
from tests.bench.rig.results import Result, write
from tests.fault.rig.database import Database

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTES = 1440
# The most sites have so many days.
DAYS = 1.7
# Rows of one transaction of the load.
PIECE = 500_000
KINDS = ("one point", "all points")
HOW = ("cold", "warm", "CPU")
DISK = "disk"

# One series, and not one for each of the three: PostgreSQL chooses by itself which of those it takes for the outer one.
_LOAD = """
INSERT INTO reading (time, value, batch, point, quality)
SELECT to_timestamp(%(start)s + 60 * (n / %(minute)s)),
       round((1000 + 100 * random())::numeric, 2)::float8, n / %(points)s + 1, n %% %(minute)s + 1, 0
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""


class Layout(NamedTuple):
    """So many readings: one a minute of each point."""

    sites: int
    points: int
    minutes: int

    @property
    def rows(self) -> int:
        return self.sites * self.points * self.minutes

    @property
    def days(self) -> int:
        """Whole days; one at least, which may be short."""
        return max(1, self.minutes // MINUTES)


class Question(NamedTuple):
    """A day of a site, of one point or of all."""

    site: str
    points: list[str] | None
    since: datetime


Asked = dict[tuple[str, str], list[float]]
"""Seconds by (kind, cold, warm or CPU), KiB by (kind, disk)"""


def layout(rows: int, sites: int, most: int) -> Layout:
    points = max(1, int(rows / (most * MINUTES * DAYS)))
    return Layout(sites, points, max(1, rows // (sites * points)))


def load(connection: psycopg.Connection, one: Layout) -> None:
    """Fill the tables, and tell how far it is."""
    connection.execute(
        "INSERT INTO site (name) SELECT 'site-' || n FROM generate_series(1, %s::int) AS n ORDER BY n",
        (one.sites,),
    )
    connection.execute(
        "INSERT INTO point (site, name) SELECT s.id, 'meter/quantity_' || p"
        " FROM site s, generate_series(1, %s::int) AS p ORDER BY s.id, p",
        (one.points,),
    )
    for day in range(0, one.minutes // MINUTES + 2, 14):
        connection.execute("SELECT ensure_month(%s)", (START + day * DAY,))
    connection.execute("SELECT ensure_month(%s)", (START + timedelta(minutes=one.minutes),))
    # Nothing is lost with a power cut that could not be loaded again.
    connection.execute("SET synchronous_commit = off")
    step = max(1, PIECE // (one.sites * one.points))
    begun = time.monotonic()
    told = begun
    for first in range(0, one.minutes, step):
        last = min(first + step, one.minutes) - 1
        a_minute = one.sites * one.points
        values = {"start": START.timestamp(), "first": first * a_minute, "last": (last + 1) * a_minute - 1}
        connection.execute(_LOAD, values | {"minute": a_minute, "points": one.points})
        now = time.monotonic()
        if now - told > 10 or last + 1 == one.minutes:
            told = now
            rate = (last + 1) * one.sites * one.points / (now - begun)
            left = (one.minutes - last - 1) * one.sites * one.points / rate
            print(
                f"  {one.sites} sites: {(last + 1) * one.sites * one.points:,} of {one.rows:,} rows,"
                f" {rate:,.0f}/s, {left:.0f} s left",
                flush=True,
            )
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def questions(one: Layout, picks: int) -> dict[str, list[Question]]:
    """By kind; the same ones each time."""
    chance = random.Random(one.sites)

    def pick(*, all_points: bool) -> Question:
        site = f"site-{chance.randint(1, one.sites)}"
        points = None if all_points else [f"meter/quantity_{chance.randint(1, one.points)}"]
        return Question(site, points, START + chance.randrange(one.days) * DAY)

    return {kind: [pick(all_points=kind == KINDS[1]) for _ in range(picks)] for kind in KINDS}


def ask(connection: psycopg.Connection, one: Question) -> tuple[float, float, int]:
    """(s on the clock, s of CPU here and in the server, rows)"""
    processes = [os.getpid(), connection.info.backend_pid]
    cpu, begun = sum(map(cpu_seconds, processes)), time.perf_counter()
    rows = sum(1 for _ in report.identities(connection, one.site, one.since, one.since + DAY, one.points))
    return time.perf_counter() - begun, sum(map(cpu_seconds, processes)) - cpu, rows


def forget(folder: Path) -> None:
    """Have the operating system drop what it keeps in memory of the files below a folder."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure(database: Database, one: Layout, picks: int, *, plan: bool) -> Asked:
    """Each question cold and warm."""
    taken: Asked = {}
    for kind, asked in questions(one, picks).items():
        with database.connect("energy_read") as connection:
            connection.execute("SET timezone = 'UTC'")
            rows = []
            for question in asked:
                forget(database.folder)
                before = fetched(connection.info.backend_pid)
                for how in ("cold", "warm"):
                    seconds, cpu, count = ask(connection, question)
                    taken.setdefault((kind, how), []).append(seconds)
                    rows.append(count)
                disk = (fetched(connection.info.backend_pid) - before) / 1024
                taken.setdefault((kind, DISK), []).append(disk)
                taken.setdefault((kind, "CPU"), []).append(cpu)
        assert min(rows) > 0, f"{kind}: a day without readings"
        print(
            f"  {one.sites} sites, {kind}: {statistics.median(rows):,.0f} rows, "
            + ", ".join(
                f"{how} p50 {p50(taken[kind, how]) * 1000:,.1f} ms p95 {p95(taken[kind, how]) * 1000:,.1f} ms"
                for how in HOW
            )
            + f", {p50(taken[kind, DISK]):,.0f} KiB from the disk",
            flush=True,
        )
        if plan:
            tell_plan(database, asked[0])
    return taken


def tell_plan(database: Database, one: Question) -> None:
    """The plan of a question as it is really asked, through a cursor: what the server logs of it."""
    with database.connect() as connection:
        connection.execute("LOAD 'auto_explain'")
        for name, value in (("log_min_duration", "0"), ("log_analyze", "on"), ("log_buffers", "on")):
            connection.execute(f"SET auto_explain.{name} = '{value}'")
        connection.execute("SET client_min_messages = log")
        connection.add_notice_handler(lambda notice: print(f"    {notice.message_primary}"))
        ask(connection, one)


def p50(times: Sequence[float]) -> float:
    return statistics.median(times)


def p95(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, round(0.95 * len(times)))]


def results(found: dict[int, Asked]) -> list[Result]:
    """p50 and p95 of each, in ms, and KiB from the disk, against those with the fewest sites."""
    fewest = min(found)
    rows = []
    figures = [(how, name, of, "ms", 1000) for how in HOW for name, of in (("p50", p50), ("p95", p95))]
    for kind in KINDS:
        for how, name, of, unit, factor in [*figures, (DISK, "p50", p50, "KiB", 1)]:
            other = of(found[fewest][kind, how])
            for sites in sorted(found):
                ours = of(found[sites][kind, how])
                what = f"a day of one site, {kind}, {how}, {name}: {sites:,} sites against {fewest:,}"
                rows.append(
                    Result(
                        what, round(ours * factor, 1), unit, round(other * factor, 1), round(ours / other, 2)
                    )
                )
    return [one for one in rows if f": {fewest:,} sites" not in one.name or len(found) == 1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads days of sites among very many readings.")
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--picks", type=int, default=100, help="questions of each kind")
    parser.add_argument(
        "--folder", type=Path, help="where the database lies meanwhile (default: the temporary one)"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan of one question of each kind")
    parser.add_argument("--quick", action="store_true", help="5 million rows: for a look, not for the page")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.picks = 5_000_000, 40
    found: dict[int, Asked] = {}
    for sites in options.sites:
        one = layout(options.rows, sites, max(options.sites))
        folder = Path(tempfile.mkdtemp(prefix="energy-bench-", dir=options.folder))
        folder.chmod(0o755)
        database = Database(folder / "pg")
        try:
            database.start()
            with database.connect() as connection:
                load(connection, one)
            found[sites] = measure(database, one, options.picks, plan=options.plan)
        finally:
            database.stop()
            shutil.rmtree(folder)
    print(f"{options.rows:,} rows in all")
    write("query", results(found), quick=options.rows < 100_000_000)


if __name__ == "__main__":
    main()

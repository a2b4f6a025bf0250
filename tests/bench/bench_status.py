# SPDX-License-Identifier: Apache-2.0
"""What the glance at a large fleet costs: `energy-hub fleet` on a real PostgreSQL, query by query, and the page.

    tests/bench/bench_status.py --sites 5000

The tables are filled by SQL: of each site the points, rollups of two days and the readings that the queries look for.
A hub has many more rows between them, which the queries pass by; its tables are less likely to be in memory than here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from energy_hub import migrate
from energy_hub.commands import tools
from energy_hub.fleet import document as fleet
from energy_hub.fleet import queries
from psycopg.rows import dict_row

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from wattfleet.status import page
from wattfleet.status.figures import complete

from tests.unit.hub.conftest import Cluster, Database

METERS = """[{"name": "grid", "role": "main"}, {"name": "roof", "role": "generation"},
    {"name": "cells", "role": "storage"}, {"name": "hall"}, {"name": "office"}]"""
OTHERS = (
    "voltage_l1 voltage_l2 voltage_l3 current_l1 current_l2 current_l3 power_factor frequency reactive_power"
)
COUNTERS = "requests timeouts exceptions crc_errors frame_errors connects missed_polls"

FILL = (
    "SELECT ensure_month(now()), ensure_month(now() - interval '1 day')",
    """INSERT INTO site (name, first_seen) SELECT format('site-%%s', n), now() - interval '9 days'
       FROM generate_series(1, %(sites)s) AS n""",
    "INSERT INTO rollup_zone SELECT id, 'Europe/Berlin' FROM site",
    """INSERT INTO site_key (site, public, statement, certificate, fingerprint, not_after)
       SELECT id, decode(md5(name) || md5(name), 'hex'), '', '', '', now() + interval '200 days' FROM site""",
    """INSERT INTO site_description (site, since, digest, content)
       SELECT name, now() - interval '9 days', decode(md5(name) || md5(name), 'hex'),
              jsonb_build_object('name', name, 'region', 'north', 'interval', 10, 'meters', %(meters)s::jsonb)
       FROM site""",
    """INSERT INTO point (site, name)
       SELECT s.id, m.meter || '/' || p.point FROM site s,
              unnest('{grid,roof,cells,hall,office}'::text[]) AS m (meter),
              unnest(string_to_array('active_power energy_import energy_export ' || %(others)s, ' ')) AS p (point)
       UNION ALL
       SELECT s.id, format('buses/%%s-%%s', b.bus, c.counter) FROM site s, unnest('{hall,roof}'::text[]) AS b (bus),
              unnest(string_to_array(%(counters)s, ' ')) AS c (counter)""",
    # A batch a minute, that reaches back a minute.
    """INSERT INTO batch (site, stream, sequence, digest, previous, signature, key, size, readings, received, chain)
       SELECT s.id, '\\x0000000000000001', n, decode(md5(s.name || n) || md5(n || s.name), 'hex'),
              decode(repeat('00', 32), 'hex'), decode(repeat('00', 64), 'hex'), k.id, 1000, 360,
              date_trunc('minute', now()) - (60 - n) * interval '1 min' + interval '4 s', 1
       FROM generate_series(1, 60) AS n, site s JOIN site_key k ON k.site = s.id""",
    """INSERT INTO reading (time, value, batch, point, quality)
       SELECT b.received - interval '4 s' - i * interval '10 s', 1000, b.id, p.id, 0
       FROM batch b JOIN point p ON p.site = b.site AND p.name LIKE '%%/active_power', generate_series(1, 6) AS i
       WHERE p.name = 'grid/active_power' OR b.sequence > 54
       ORDER BY b.received""",
    """INSERT INTO rollup_hour (point, start, readings, good, uncertain, sum, minimum, maximum, first_time, first_value,
                                last_time, last_value)
       SELECT p.id, h, 360, 360, 0, 360000, n, n + 10, h, n, h + interval '59 min', n + 10
       FROM generate_series(0, 48) AS n, point p,
            LATERAL (SELECT date_trunc('hour', now()) - (48 - n) * interval '1 hour' AS h) AS t
       WHERE p.name ~ '/(active_power|energy_import|energy_export)$|-(requests|crc_errors|timeouts)$'""",
    """INSERT INTO rollup_day (point, start, readings, good, uncertain, sum, minimum, maximum, first_time, first_value,
                               last_time, last_value)
       SELECT p.id, d, 2000, 2000, 0, 2000000, 0, 10, d, 0, d + interval '8 hours', 10
       FROM point p, (SELECT date_trunc('day', now() AT TIME ZONE 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin' AS d) t
       WHERE p.name ~ '/(active_power|energy_import|energy_export)$'""",
    "ANALYZE",
)


class Told(fleet._Glance):
    """Has PostgreSQL tell how long each query took, besides."""

    took: dict[str, list[float]]

    def _rows(self, query: str, **values: object) -> list[dict[str, Any]]:
        began = time.monotonic()
        rows = super()._rows(query, **values)
        whole = 1000 * (time.monotonic() - began)
        plan: Any = self._cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, values).fetchone()
        name = next((name for name, text in vars(queries).items() if text == query), "now")
        self.took = getattr(self, "took", {})
        self.took[name] = [plan["QUERY PLAN"][0]["Execution Time"], whole, len(rows)]
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=5000)
    parser.add_argument("--page", type=Path, help="keep the page here")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="energy-status-"))
    cluster = Cluster(folder)
    cluster.start()
    try:
        _measure(cluster, arguments.sites, arguments.page or folder / "fleet.html")
    finally:
        cluster.stop("immediate")
        shutil.rmtree(folder)


def _measure(cluster: Cluster, sites: int, file: Path) -> None:
    database = Database(cluster, "energy")
    with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        for role in ("energy_migrate", "energy_ingest", "energy_rollup", "energy_read"):
            connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute("CREATE DATABASE energy OWNER energy_migrate")
    with database.connect("energy_migrate") as connection:
        list(migrate.apply(connection))
        values = {"sites": sites, "meters": METERS, "others": OTHERS, "counters": COUNTERS}
        for statement in FILL:
            connection.execute(statement.encode(), values if "%(" in statement or "%%" in statement else None)
        row = connection.execute(
            "SELECT pg_size_pretty(pg_database_size('energy')), max(time) + interval '15 s' FROM reading"
        ).fetchone()
    assert row is not None
    # However long the filling took: a moment at which all sites are delivering.
    size, now = row
    print(f"{sites} sites, database {size}")
    for turn in ("first", "second"):
        with database.connect("energy_read") as connection:
            connection.execute("SET timezone = 'UTC'")
            backend = connection.info.backend_pid
            began, ours, theirs = time.monotonic(), time.process_time(), _computed(backend)
            found = fleet.document(connection, None, now)
            took, computed = time.monotonic() - began, time.process_time() - ours
            theirs = _computed(backend) - theirs
        text = json.dumps(found, default=tools.iso, separators=(",", ":"))
        print(
            f"{turn} document: {took:.2f} s, of which PostgreSQL computed {theirs:.2f} s and we {computed:.2f} s;"
            f" {len(text) / 1e6:.2f} MB of JSON"
        )
    with database.connect("energy_read") as connection, connection.transaction():
        connection.execute("SET timezone = 'UTC'")
        connection.execute("SET LOCAL enable_mergejoin = off")
        connection.execute("SET LOCAL jit = off")
        with connection.cursor(row_factory=dict_row) as cursor:
            glance = Told(cursor, None, now)
            glance.document()
    for name, (inside, whole, rows) in sorted(glance.took.items(), key=lambda one: -one[1][0]):
        print(f"  {name:18} {inside:8.0f} ms in PostgreSQL, {whole:8.0f} ms with its {rows} rows")
    began = time.process_time()
    page.write(complete(json.loads(text), {}), file)
    print(f"page: {time.process_time() - began:.2f} s of computing, {file.stat().st_size / 1e6:.2f} MB")


def _computed(process: int) -> float:
    """Seconds of CPU of a process: what does not depend on who else is busy."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""What the evidence costs, on a real PostgreSQL: the trees as a ratio of ingest's own commits, with leaves added by
a step of its own (as it is) and inside of ingest's transaction (as it might be), one worker and two; and the speed
and memory of `energy-audit verify`.

The two ways are measured in turns, on databases of their own, with the same batches.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import migrate
from energy_hub.audit.context import Scope
from energy_hub.audit.verify import verify
from energy_hub.evidence import leaves, step
from energy_hub.pipeline import examine
from energy_hub.store import Committed, Signed, Store

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.unit.hub.conftest import Cluster, Database
from tests.unit.hub.test_store import known
from tests.unit.hub.writer import Gateway

START = 1_767_225_600_000
SITES = 8
# 50 points each 10 s, batches of 30 s: an ordinary site.
POINTS, TIMES = 50, 3
GROUP = 40
HUB = Ed25519PrivateKey.generate()


class Inside(Store):
    """Ingest that adds leaves in its own transaction: sites are locked until it has committed."""

    def _insert_batches(self, ordered: Sequence[Signed], result: Committed) -> list[tuple[Signed, int]]:
        new = super()._insert_batches(ordered, result)
        self.connection.execute("DELETE FROM leaf_due WHERE batch = ANY(%s)", ([batch for _, batch in new],))
        sites = sorted({one.site_id for one, _ in new})
        self.connection.execute(
            "SELECT pg_advisory_xact_lock(1, site) FROM unnest(%s::int[]) AS site ORDER BY site", (sites,)
        )
        sizes: dict[int, int] = dict(
            self.connection.execute(
                "SELECT site, coalesce((SELECT max(number) + 1 FROM leaf WHERE site = t.site), 0)"
                " FROM unnest(%s::int[]) AS t (site)",
                (sites,),
            ).fetchall()
        )
        trees = leaves.frontiers(self.connection, sizes)
        received = datetime.now(UTC)
        due = [
            leaves.Due(
                batch,
                one.site_id,
                leaves.Leaf(
                    one.site,
                    one.envelope.stream,
                    one.envelope.sequence,
                    one.envelope.digest,
                    bytes(32),
                    received,
                    one.body.readings if one.body else 0,
                    one.body is None,
                ),
            )
            for one, batch in new
        ]
        leaves.append(self.connection, due, trees)
        return new


def batches(store: Store, count: int) -> list[tuple[str, bytes]]:
    gateways: list[Gateway] = [known(store, f"site-{number}") for number in range(SITES)]
    found = []
    for number in range(count // SITES):
        for index, one in enumerate(gateways):
            start = START + 30_000 * number
            points = {
                f"main/point_{point}": [
                    (start + 10_000 * n, float(point + n + index), 0) for n in range(TIMES)
                ]
                for point in range(POINTS)
            }
            found.append((one.site, one.batch(points)))
    return found


def examined(store: Store, payloads: Sequence[tuple[str, bytes]]) -> list[Signed]:
    found = []
    for site, payload in payloads:
        one = examine(store, site, payload, 1 << 20)
        assert isinstance(one, Signed)
        found.append(one)
    return found


def commit_all(store: Store, signed: Sequence[Signed]) -> None:
    for at in range(0, len(signed), GROUP):
        store.commit(signed[at : at + GROUP])


class Bench:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.number = 0

    def database(self) -> Database:
        self.number += 1
        name = f"bench_{self.number}"
        with psycopg.connect(self.cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER energy_migrate")
        database = Database(self.cluster, name)
        with database.connect("energy_migrate") as connection:
            list(migrate.apply(connection))
            connection.execute("SELECT ensure_month('2026-01-01')")
        return database

    def drop(self, database: Database) -> None:
        with psycopg.connect(self.cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {database.name} WITH (FORCE)")

    def ingest(
        self, kind: type[Store], workers: int, count: int, *, index: bool = True
    ) -> tuple[float, float]:
        """(s for all commits, s for the step that makes the trees afterwards)"""
        database = self.database()
        if not index:
            with database.connect("energy_migrate") as connection:
                connection.execute("DROP INDEX reading_batch")
        stores = [kind(database.conninfo("energy_ingest")) for _ in range(workers)]
        payloads = batches(stores[0], count)
        # Each worker takes every other group: both have batches of every site.
        shares: list[list[tuple[str, bytes]]] = [[] for _ in stores]
        for number, at in enumerate(range(0, len(payloads), GROUP)):
            shares[number % workers] += payloads[at : at + GROUP]
        signed = [examined(store, share) for store, share in zip(stores, shares, strict=True)]
        begun = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(commit_all, stores, signed))
        took = time.perf_counter() - begun
        for one in stores:
            one.close()
        begun = time.perf_counter()
        with database.connect("energy_ingest") as connection:
            assert step.run(connection, HUB)
        made = time.perf_counter() - begun
        assert database.one("SELECT count(*) FROM leaf") == len(payloads)
        self.drop(database)
        return took, made


def audit(bench: Bench, count: int) -> tuple[float, float, int, int]:
    """(s, s of this process's CPU, readings, MiB of the whole process at most)"""
    database = bench.database()
    store = Store(database.conninfo("energy_ingest"))
    commit_all(store, examined(store, batches(store, count)))
    store.close()
    with database.connect("energy_ingest") as connection:
        assert step.run(connection, HUB)
    with database.connect() as connection:
        connection.execute("VACUUM ANALYZE")
    child = subprocess.run(
        [sys.executable, __file__, "--audit", database.conninfo("energy_read")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    seconds, cpu, readings, memory = child.stdout.split()
    bench.drop(database)
    return float(seconds), float(cpu), int(readings), int(memory)


def audit_child(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        begun, cpu = time.perf_counter(), time.process_time()
        report = verify(connection, Scope(authorities=[]))
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert not report.findings, report.findings
    # Not ru_maxrss, which begins with what the parent had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    memory = int(status.split("VmHWM:")[1].split()[0])
    print(took, cpu, report.checked["readings"], memory // 1024)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=1600)
    parser.add_argument("--audit", help="for the process of the audit itself")
    options = parser.parse_args()
    if options.audit:
        audit_child(options.audit)
        return
    folder = Path(tempfile.mkdtemp(prefix="energy-bench-"))
    cluster = Cluster(folder)
    cluster.start()
    try:
        with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
            for role in ("energy_migrate", "energy_ingest", "energy_rollup", "energy_read"):
                connection.execute(f"CREATE ROLE {role} LOGIN")
        rows = measure(Bench(cluster), options.runs, options.batches)
    finally:
        cluster.stop("immediate")
        shutil.rmtree(folder)
    for row in rows:
        print(
            f"{row['name']:66} {row['value']:>10} {row['unit']:10} {row['ratio'] or '':>6}  {row['against']}"
        )
    target = ROOT / "build" / "bench" / "evidence.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(bench: Bench, runs: int, count: int) -> list[dict[str, object]]:
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "own step, 1 worker": lambda: bench.ingest(Store, 1, count),
        "in the transaction, 1 worker": lambda: bench.ingest(Inside, 1, count),
        "own step, 2 workers": lambda: bench.ingest(Store, 2, count),
        "in the transaction, 2 workers": lambda: bench.ingest(Inside, 2, count),
        "own step, 1 worker, no index by batch": lambda: bench.ingest(Store, 1, count, index=False),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, work in ways.items():
            taken[name].append(work())
    ingest = {name: statistics.median(one for one, _ in times) for name, times in taken.items()}
    steps = statistics.median(made for _, made in taken["own step, 1 worker"])
    base = ingest["own step, 1 worker"]
    rows: list[dict[str, object]] = [
        {
            "name": "the step that makes the trees, of ingest's own commits",
            "value": round(steps / count * 1e6),
            "unit": "us/batch",
            "against": f"ingest's commits: {base / count * 1e6:.0f} us/batch",
            "ratio": round(steps / base, 3),
        }
    ]
    for name in ways:
        against = ingest["own step, 2 workers" if "2 workers" in name else "own step, 1 worker"]
        rows.append(
            {
                "name": f"ingest, leaves by: {name}",
                "value": round(ingest[name] / count * 1e6),
                "unit": "us/batch",
                "against": "own step, as many workers",
                "ratio": round(ingest[name] / against, 3),
            }
        )
    for size in (count, 4 * count):
        seconds, cpu, readings, memory = audit(bench, size)
        rows.append(
            {
                "name": f"energy-audit verify, {readings:,} readings",
                "value": round(readings / seconds),
                "unit": "readings/s",
                "against": f"its own CPU: {readings / cpu:,.0f} readings/s; the whole process: {memory} MiB",
                "ratio": None,
            }
        )
    return rows


if __name__ == "__main__":
    main()

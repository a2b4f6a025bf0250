# SPDX-License-Identifier: Apache-2.0
"""What the hub's checks cost: batches with all checks against a plain COPY of the same rows, and what follows.

    .venv/bin/python tests/bench/bench_ingest.py [--runs 5] [--batches 400] [--quick]

One PostgreSQL of its own, as it comes. Every run has fresh points in the same tables, and the contenders take turns:
copy      rows made beforehand, COPY ... (FORMAT binary) into `reading` with its primary key, 1,000 rows a transaction
ingest    the same rows as signed batches of 1,000 readings: signature, chain, schema, identity, then committed in
          the groups that the service makes of a backlog
replay    all of these batches once more, as after a lost acknowledgement
two       two workers, half of the sites each, against one with all of them
rollups   minutes to days of what the ingest has stored
Figures are rows a second (medians), ratios are taken within a run. Writes build/bench/ingest.json, a list of
{name, value, unit, against, ratio}.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "hub")]

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from energy_hub import rollup
from energy_hub.batch import Series
from energy_hub.pipeline import examine
from energy_hub.rows import COLUMNS, Columns
from energy_hub.store import Signed, Store
from energy_hub.trust import TrustedKey

from tests.fault.rig.database import Database
from tests.unit.hub.authority import Authority
from tests.unit.hub.writer import Gateway, Reading

SITES, POINTS, TIMES = 20, 100, 10  # a batch has POINTS x TIMES readings
ROWS = POINTS * TIMES
STEP = 10_000  # ms between two readings of a point
START = 1_780_000_000_000
LIMIT = 1_048_576
GROUP = 50  # batches of one transaction: the service's bound of 50,000 readings

Payload = tuple[str, bytes]


class Fleet:
    """Gateways of one run, and what they send."""

    def __init__(self, store: Store, run: int, batches: int) -> None:
        noise = random.Random(run)
        client = Authority().client("bench")
        self.gateways = [
            Gateway(f"run-{run}-{number}", Ed25519PrivateKey.generate()) for number in range(SITES)
        ]
        for one in self.gateways:
            key = TrustedKey(
                one.public, b"statement", client.pem(), client.certificate.fingerprint(SHA256()),
                datetime(2030, 1, 1, tzinfo=UTC),
            )  # fmt: skip
            store.trust(one.site, key)
        self.payloads: list[Payload] = []
        for number in range(batches):
            gateway = self.gateways[number % SITES]
            start = START + number // SITES * TIMES * STEP
            readings: dict[str, list[Reading]] = {
                f"meter-{point // 20}/quantity_{point % 20}": [
                    (start + step * STEP, round(noise.uniform(0, 1e4), 2), 0) for step in range(TIMES)
                ]
                for point in range(POINTS)
            }
            self.payloads.append((gateway.site, gateway.batch(readings)))


def rates(rows: int, work: Callable[[], None]) -> float:
    since = time.perf_counter()
    work()
    return rows / (time.perf_counter() - since)


def ingest(store: Store, payloads: Sequence[Payload]) -> None:
    """What the service does with a backlog, without the broker."""
    for at in range(0, len(payloads), GROUP):
        group = payloads[at : at + GROUP]
        signed = [examine(store, site, payload, LIMIT) for site, payload in group]
        assert all(isinstance(one, Signed) for one in signed), signed
        store.commit([one for one in signed if isinstance(one, Signed)])


def plain_copies(connection: psycopg.Connection, run: int, batches: int) -> Iterator[bytes]:
    """The same number of rows for points of their own, as data of a COPY, one of 1,000 rows at a time."""
    noise = random.Random(run)
    first = 1_000_000 + run * SITES * POINTS
    for number in range(batches):
        columns = Columns()
        begin = START + number // SITES * TIMES * STEP
        for point in range(POINTS):
            times = array("q", range(begin, begin + TIMES * STEP, STEP))
            values = array("d", [round(noise.uniform(0, 1e4), 2) for _ in range(TIMES)])
            series = Series("", "", times, ((0, False, TIMES),), values)
            columns.add(1, first + number % SITES * POINTS + point, series)
        yield b"".join(columns.copy_data())


def copy(connection: psycopg.Connection, pieces: Sequence[bytes]) -> None:
    """Plain COPY, a transaction each."""
    for piece in pieces:
        with connection.cursor().copy(
            f"COPY reading ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
        ) as stream:
            stream.write(piece)


def worker(conninfo: str, payloads: Sequence[Payload], ready: Any, go: Any) -> None:
    """A process of its own, as a second worker is."""
    store = Store(conninfo)
    ready.release()
    go.wait()
    ingest(store, payloads)
    store.close()


def with_workers(conninfo: str, shares: Sequence[Sequence[Payload]]) -> float:
    """Rows a second of all shares at once."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Semaphore(0), context.Event()
    processes = [context.Process(target=worker, args=(conninfo, share, ready, go)) for share in shares]
    for one in processes:
        one.start()
    for _ in processes:
        ready.acquire()
    since = time.perf_counter()
    go.set()
    for one in processes:
        one.join()
        assert one.exitcode == 0
    return sum(len(share) for share in shares) * ROWS / (time.perf_counter() - since)


def count(connection: psycopg.Connection) -> None:
    while rollup.step(connection):
        pass


def one_run(database: Database, run: int, batches: int) -> dict[str, float]:
    conninfo = database.conninfo("energy_ingest")
    found: dict[str, float] = {}
    store = Store(conninfo)
    rows = batches * ROWS
    with database.connect("owner") as connection, database.connect("energy_rollup") as counting:
        counting.execute("SET timezone = 'UTC'")
        connection.execute("SELECT ensure_month(to_timestamp(%s))", (START / 1000,))
        connection.execute("CHECKPOINT")
        # Whoever comes first has the smaller table: they take turns at that, too.
        fleet = Fleet(store, 4 * run, batches)
        pieces = list(plain_copies(connection, run, batches))
        contenders: list[tuple[str, Callable[[], None]]] = [
            ("copy", lambda: copy(connection, pieces)),
            ("ingest", lambda: ingest(store, fleet.payloads)),
        ]
        for name, work in contenders if run % 2 else reversed(contenders):
            found[name] = rates(rows, work)
        found["replay"] = rates(rows, lambda: ingest(store, fleet.payloads))
        found["rollups"] = rates(rows, lambda: count(counting))
        single, double = Fleet(store, 4 * run + 1, batches), Fleet(store, 4 * run + 2, batches)
        found["one"] = with_workers(conninfo, [single.payloads])
        names = {gateway.site for gateway in double.gateways[: SITES // 2]}
        halves = [[one for one in double.payloads if (one[0] in names) is half] for half in (True, False)]
        found["two"] = with_workers(conninfo, halves)
    store.close()
    return found


@contextmanager
def private_database() -> Iterator[Database]:
    folder = Path(tempfile.mkdtemp(prefix="energy-bench-"))
    folder.chmod(0o755)
    database = Database(folder / "pg")
    database.start()
    try:
        yield database
    finally:
        database.stop()
        shutil.rmtree(folder)


PAIRS = (
    ("ingest", "copy", "plain COPY, 1,000 rows a transaction"),
    ("replay", "ingest", "the first time"),
    ("two", "one", "one worker"),
    ("rollups", "ingest", "the ingest of the same readings"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the hub's checks cost, against a plain COPY.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=400, help="of 1,000 readings, for each contender")
    parser.add_argument("--quick", action="store_true", help="one small run: for a look, not for the page")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.batches = 1, 60
    with private_database() as database:
        runs = []
        for number in range(options.runs):
            runs.append(one_run(database, number, options.batches))
            print(
                f"run {number + 1} of {options.runs}: "
                + ", ".join(f"{k} {v:,.0f}/s" for k, v in runs[-1].items())
            )
    results = []
    for name, against, what in PAIRS:
        value = statistics.median(one[name] for one in runs)
        ratio = statistics.median(one[name] / one[against] for one in runs)
        print(f"{name:8} {value:12,.0f} rows/s   {ratio:5.2f} of {what}")
        results.append(
            {"name": name, "value": round(value), "unit": "rows/s", "against": what, "ratio": round(ratio, 3)}
        )
    target = ROOT / "build" / "bench" / "ingest.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

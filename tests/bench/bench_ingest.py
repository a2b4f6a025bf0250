# SPDX-License-Identifier: Apache-2.0
"""What the hub's checks cost: batches with all checks against a plain COPY of the same rows, and what follows.

    .venv/bin/python tests/bench/bench_ingest.py [--runs 5] [--batches 400] [--quick]

PostgreSQL of its own, as it comes (each commit waits for the disk, as it does on a hub): one, and a second for
`shards`. Batches and rows are made before, as a gateway makes them: the collector's own encoder, two decimals, values
that move by half a percent. What is timed is the work of ingest and of PostgreSQL, without the broker. Every run has
fresh points in the same tables, and the contenders take turns at being first:

copy      rows made beforehand, COPY ... (FORMAT binary) into `reading` with its primary key, 1,000 rows a transaction
ingest    as many rows as signed batches of 1,000 readings: signature, chain, schema, identity, then committed in the
          groups that the service makes of a backlog
replay    all of these batches once more, as after a lost acknowledgement
one       a worker that is a process of its own, as it is on a hub
two       two of them, half of the sites each
shards    two of them with a PostgreSQL each: what a second database gives
rollups   minutes to days of what `ingest` has stored

Beside the speed stands where the time went: a worker and its PostgreSQL take turns, so that together they keep about
one processor busy, and two pairs need two that are free. `CPU` is theirs, `waited` is when one of them could have gone
on and others had the processors; the rest is the disk and locks. Where a machine has fewer processors than the
contenders want, the speed of two says little, and their CPU a row against that of one says what there is to know.

Figures are medians, ratios are taken within a run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "hub"), str(ROOT / "collector")]

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from energy_collector.batches import batch
from energy_hub import rollup
from energy_hub.batch import Series
from energy_hub.config import Databases
from energy_hub.ingest import spare_memory_searches
from energy_hub.pipeline import examine
from energy_hub.rows import COLUMNS, Columns
from energy_hub.shards import Directory, ShardStore, adopt
from energy_hub.store import Signed, Store
from energy_hub.trust import TrustedKey

from tests.bench.rig.cost import cpu_seconds, waited
from tests.bench.rig.results import Result, write
from tests.fault.rig.database import NAME, Database
from tests.unit.hub.authority import Authority
from tests.unit.hub.writer import Gateway

SITES, POINTS, TIMES = 20, 100, 10  # a batch has POINTS x TIMES readings
ROWS = POINTS * TIMES
STEP = 10_000  # ms between two readings of a point
START = 1_780_000_000_000
LIMIT = 1_048_576
ROLE = "energy_ingest"
GROUP = 50  # batches of one transaction: the service's bound of 50,000 readings
NOISE = 0.005

Payload = tuple[str, bytes]
Place = str | tuple[Databases, str]
"""A connection string, or one of several databases by its name."""


@dataclass(frozen=True, slots=True)
class Took:
    """Of one contender: rows, and s on the clock, of CPU, and of waiting for a processor."""

    rows: int
    clock: float
    cpu: float
    waited: float

    @property
    def rate(self) -> float:
        return self.rows / self.clock

    @property
    def busy(self) -> float:
        return self.cpu / self.clock

    @property
    def short(self) -> float:
        return self.waited / self.clock

    def micros(self, seconds: float) -> float:
        return seconds / self.rows * 1e6

    def __str__(self) -> str:
        each = (self.micros(one) for one in (self.clock, self.cpu, self.waited))
        return "{:,.0f}/s (us a row: {:.1f}, CPU {:.1f}, waited {:.1f})".format(self.rate, *each)


class Fleet:
    """Gateways of one run, and what they send."""

    def __init__(self, store: Store, run: int, batches: int, sites: Sequence[str] = ()) -> None:
        client = Authority().client("bench")
        sites = sites or [f"run-{run}-{number}" for number in range(SITES)]
        self.gateways = [Gateway(site, Ed25519PrivateKey.generate()) for site in sites]
        for one in self.gateways:
            key = TrustedKey(
                one.public, b"statement", client.pem(), client.certificate.fingerprint(SHA256()),
                datetime(2030, 1, 1, tzinfo=UTC),
            )  # fmt: skip
            store.trust(one.site, key)
        columns = values(run)
        self.payloads: list[Payload] = []
        for number in range(batches):
            gateway = self.gateways[number % len(sites)]
            start = START + number // len(sites) * TIMES * STEP
            times = list(range(start, start + TIMES * STEP, STEP))
            series = [
                batch.Series(
                    f"meter-{point // 20}/quantity_{point % 20}", "W", times, next(columns), [0] * TIMES
                )
                for point in range(POINTS)
            ]
            self.payloads.append((gateway.site, gateway.seal(batch.encode_body(gateway.site, series))))


def values(run: int) -> Iterator[list[float | None]]:
    """The values of one point and batch after the other, for ever."""
    chance = random.Random(run)
    bases = [chance.uniform(1, 1e4) for _ in range(POINTS)]
    while True:
        for base in bases:
            yield [round(base * (1 + chance.gauss(0, NOISE)), 2) for _ in range(TIMES)]


def measure(rows: int, work: Callable[[], None], processes: Sequence[int]) -> Took:
    """What a piece of work took; `processes` are those that do it."""
    cpu, idle = sum(map(cpu_seconds, processes)), sum(map(waited, processes))
    since = time.perf_counter()
    work()
    took = time.perf_counter() - since
    return Took(rows, took, sum(map(cpu_seconds, processes)) - cpu, sum(map(waited, processes)) - idle)


def ingest(store: Store, payloads: Sequence[Payload]) -> None:
    """What the service does with a backlog, without the broker."""
    for at in range(0, len(payloads), GROUP):
        group = payloads[at : at + GROUP]
        signed = [examine(store, site, payload, LIMIT) for site, payload in group]
        assert all(isinstance(one, Signed) for one in signed), signed
        store.commit([one for one in signed if isinstance(one, Signed)])


def plain_copies(run: int, batches: int) -> Iterator[bytes]:
    """The same number of rows for points of their own, as data of a COPY, one of 1,000 rows at a time."""
    found = values(run)
    first = 1_000_000 + run * SITES * POINTS
    for number in range(batches):
        columns = Columns()
        begin = START + number // SITES * TIMES * STEP
        for point in range(POINTS):
            times = array("q", range(begin, begin + TIMES * STEP, STEP))
            numbers = array("d", [value for value in next(found) if value is not None])
            series = Series("", "", times, ((0, False, TIMES),), numbers)
            columns.add(1, first + number % SITES * POINTS + point, series)
        yield b"".join(columns.copy_data())


def copy(connection: psycopg.Connection, pieces: Sequence[bytes]) -> None:
    """Plain COPY, a transaction each."""
    for piece in pieces:
        with connection.cursor().copy(
            f"COPY reading ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
        ) as stream:
            stream.write(piece)


def shard_store(databases: Databases, name: str) -> Store:
    """As a worker for several databases has it."""
    directory = Directory(databases.conninfo(databases.directory, ROLE), list(databases.conninfos))
    return ShardStore(name, databases.conninfo(name, ROLE), directory)


def worker(place: Place, payloads: Sequence[Payload], ready: Any, done: Any, go: Any, end: Any) -> None:
    """A process of its own, as a worker is. Its CPU is read before it ends, from outside."""
    spare_memory_searches()
    store = Store(place) if isinstance(place, str) else shard_store(*place)
    ready.put(store.connection.info.backend_pid)
    go.wait()
    ingest(store, payloads)
    done.put(None)
    end.wait()
    store.close()


def with_workers(shares: Sequence[tuple[Place, Sequence[Payload]]]) -> Took:
    """What all shares took at once, each into its database."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Queue(), context.Queue()
    go, end = context.Event(), context.Event()
    processes = [context.Process(target=worker, args=(*share, ready, done, go, end)) for share in shares]
    for one in processes:
        one.start()
    pids = [one.pid for one in processes if one.pid is not None]
    pids += [ready.get(timeout=60) for _ in processes]

    def work() -> None:
        go.set()
        for _ in processes:
            done.get(timeout=600)

    took = measure(sum(len(share) for _, share in shares) * ROWS, work, pids)
    end.set()
    for one in processes:
        one.join()
        assert one.exitcode == 0
    return took


def count(connection: psycopg.Connection) -> None:
    while rollup.step(connection):
        pass


class Run:
    """One turn of all contenders."""

    def __init__(self, databases: tuple[Database, Database], number: int, batches: int) -> None:
        self._first, self._second = databases
        self._number = number
        self._batches = batches
        self._conninfo = self._first.conninfo(ROLE)

    def measured(self) -> dict[str, Took]:
        contenders = [self._copy, self._ingest, self._one, self._two, self._shards]
        # Whoever comes first has the smaller tables: they take turns at that, too.
        first = self._number % len(contenders)
        found: dict[str, Took] = {}
        for one in contenders[first:] + contenders[:first]:
            with self._first.connect() as connection:
                connection.execute("SELECT ensure_month(to_timestamp(%s))", (START / 1000,))
                connection.execute("CHECKPOINT")
            found |= one()
        return found

    def _copy(self) -> dict[str, Took]:
        pieces = list(plain_copies(self._number, self._batches))
        with self._first.connect() as connection:
            processes = [os.getpid(), connection.info.backend_pid]
            work = measure(self._batches * ROWS, lambda: copy(connection, pieces), processes)
        return {"copy": work}

    def _ingest(self) -> dict[str, Took]:
        store = Store(self._conninfo)
        payloads = Fleet(store, 4 * self._number, self._batches).payloads
        rows = len(payloads) * ROWS
        processes = [os.getpid(), store.connection.info.backend_pid]
        with self._first.connect() as connection:
            connection.execute("DELETE FROM touched")  # of others, who are not counted here
        found = {
            "ingest": measure(rows, lambda: ingest(store, payloads), processes),
            "replay": measure(rows, lambda: ingest(store, payloads), processes),
        }
        store.close()
        with self._first.connect("energy_rollup") as connection:
            connection.execute("SET timezone = 'UTC'")
            processes = [os.getpid(), connection.info.backend_pid]
            found["rollups"] = measure(rows, lambda: count(connection), processes)
        return found

    def _one(self) -> dict[str, Took]:
        return {"one": with_workers([(self._conninfo, self._fleet(1).payloads)])}

    def _two(self) -> dict[str, Took]:
        fleet = self._fleet(2)
        names = {gateway.site for gateway in fleet.gateways[: SITES // 2]}
        halves = [[one for one in fleet.payloads if (one[0] in names) is half] for half in (True, False)]
        return {"two": with_workers([(self._conninfo, half) for half in halves])}

    def _fleet(self, which: int) -> Fleet:
        store = Store(self._conninfo)
        fleet = Fleet(store, 4 * self._number + which, self._batches)
        store.close()
        return fleet

    def _shards(self) -> dict[str, Took]:
        """Two workers, each with the database that the directory gives to half of the sites."""
        places = {"north": self._first, "south": self._second}
        databases = Databases(
            {name: f"host={one.folder} dbname={NAME}" for name, one in places.items()}, "north"
        )
        with self._first.connect("energy_migrate") as directory:
            for name, one in places.items():
                with one.connect("energy_migrate") as connection:
                    adopt(name, connection, directory)
                    connection.execute("SELECT ensure_month(to_timestamp(%s))", (START / 1000,))
        shares: list[tuple[Place, Sequence[Payload]]] = []
        for number, name in enumerate(places):
            # Which database a site gets is the directory's to say; here half of them are asked for, in each.
            sites = [f"run-{4 * self._number + 3}-{name}-{one}" for one in range(SITES // 2)]
            with self._first.connect() as directory:
                directory.execute(
                    "INSERT INTO directory (site, shard) SELECT site, %s FROM unnest(%s::text[]) AS site",
                    (name, sites),
                )
            store = shard_store(databases, name)
            fleet = Fleet(store, 4 * self._number + 3 + number, self._batches // 2, sites)
            store.close()
            shares.append(((databases, name), fleet.payloads))
        return {"shards": with_workers(shares)}


@contextmanager
def private_databases() -> Iterator[tuple[Database, Database]]:
    folder = Path(tempfile.mkdtemp(prefix="energy-bench-"))
    folder.chmod(0o755)
    first, second = Database(folder / "one"), Database(folder / "two")
    try:
        first.start()
        second.start()
        yield first, second
    finally:
        first.stop()
        second.stop()
        shutil.rmtree(folder)


PAIRS = (
    ("one worker with all checks", "ingest", "plain COPY, 1,000 rows a transaction", "copy"),
    ("all of it once more", "replay", "the first time", "ingest"),
    ("two workers", "two", "one worker", "one"),
    ("two databases with a worker each", "shards", "one worker", "one"),
    ("rollups", "rollups", "the ingest of the same readings", "ingest"),
)


def results(runs: Sequence[dict[str, Took]]) -> Iterator[Result]:
    """Speeds, then CPU a row, then what one and two workers had of the processors."""

    def median(name: str, of: Callable[[Took], float]) -> float:
        return statistics.median(of(one[name]) for one in runs)

    def pair(what: str, unit: str, ours: str, other: str, of: Callable[[Took], float]) -> Result:
        ratio = statistics.median(of(one[ours]) / of(one[other]) for one in runs)
        return Result(what, round(median(ours, of), 1), unit, round(median(other, of), 1), round(ratio, 3))

    for what, ours, against, other in PAIRS:
        yield pair(f"{what} against {against}", "rows/s", ours, other, lambda one: float(round(one.rate)))
    for what, ours, against, other in PAIRS[:1] + PAIRS[2:4]:
        name = f"{what} against {against}: CPU with PostgreSQL's"
        yield pair(name, "us/row", ours, other, lambda one: one.micros(one.cpu))
    for name, what in (("one", "one worker"), ("two", "two workers")):
        busy, short = median(name, lambda one: one.busy), median(name, lambda one: one.short)
        yield Result(f"processors that {what} and PostgreSQL kept busy", round(busy, 2), "processors")
        yield Result(f"processors that {what} and PostgreSQL waited for", round(short, 2), "processors")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the hub's checks cost, against a plain COPY.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=400, help="of 1,000 readings, for each contender")
    parser.add_argument("--quick", action="store_true", help="one small run: for a look, not for the page")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.batches = 1, 100
    with private_databases() as databases:
        runs = []
        for number in range(options.runs):
            runs.append(Run(databases, number, options.batches).measured())
            print(f"run {number + 1} of {options.runs}:")
            for name, took in runs[-1].items():
                print(f"  {name:8} {took}", flush=True)
    write("ingest", list(results(runs)), quick=options.quick)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Catching up after an outage of a day: how fast the backlog goes, and how late live data is meanwhile.

    .venv/bin/python tests/bench/bench_catch_up.py [--hours 24]

A site of eight meters with twenty points each, polled every 10 s, has been without its hub; all its readings are
sealed in the buffer. Then the real delivering service meets a real mosquitto (TLS 1.3), and a hub that takes what
has come, needs 20 ms for each commit as a database does, and acknowledges. The meters go on meanwhile, every 2 s
here, so that there is something to measure. Three ways:

- as it ships, for half a minute: live data first, the backlog at `delivery.backlog_rate`, started at once;
- live data first, and the backlog as fast as the hub acknowledges it;
- the same with all in the order of its age, which is what a queue does: live data comes last.

How late a live batch is, is the time from when it was due (its first reading and the interval) to the hub's commit.
Writes build/bench/catch_up.json.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "collector"), str(ROOT / "lab")]

from energy_collector import config, journal
from energy_collector.batches import batch
from energy_collector.delivery import identity, persistence
from energy_collector.delivery.window import Delivery
from energy_collector.storage.buffer import Buffer

from tests.bench.site_readings import SITE, SiteReadings, count
from tests.unit.collector.collector_support import Authority, Broker, FakeHub, document

INTERVAL = 10.0
LIVE_INTERVAL = 2.0
COMMIT = 0.02
SHIPPED_FOR = 30.0
# As roles/hub_broker sets it.
IN_FLIGHT = 100


def fill(path: Path, key: Path, hours: float) -> tuple[int, int]:
    """A buffer with `hours` of sealed readings that end now; how many batches and readings."""
    buffer, signing = Buffer(path), identity.signing_key(key)
    polls = int(hours * 3600 / INTERVAL)
    start = time.time() - hours * 3600
    readings = 0
    chunk: list[Any] = []
    # The lab's site knows its days from the fourth of January on; only the hours of the day matter here.
    for number, records in enumerate(SiteReadings().every(INTERVAL, polls)):
        shift = int((start + number * INTERVAL) * 1000) - records[0].time
        chunk += [record._replace(time=record.time + shift) for record in records]
        readings += count([records])
        if len(chunk) >= 4000 or number == polls - 1:
            buffer.append(chunk)
            chunk = []
            seal_all(buffer, signing, flush=number == polls - 1)
    batches = buffer.state().batches
    buffer.close()
    return batches, readings


def seal_all(buffer: Buffer, key: Ed25519PrivateKey, *, flush: bool) -> None:
    while buffer.seal(SITE, key, INTERVAL, 5000, flush=flush) is not None:
        pass


@dataclass
class Hub:
    """Commits what has come, a group at a time, and acknowledges it with one message."""

    broker: Broker
    authority: Authority
    backlog: int
    readings: int = 0
    late: list[float] = field(default_factory=list)
    batches: set[int] = field(default_factory=set)
    first: float = 0.0
    last: float = 0.0
    stop: bool = False

    def __post_init__(self) -> None:
        self._link = FakeHub(self.broker, self.authority, SITE)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self.stop = True
        self._thread.join()
        self._link.close()

    def _run(self) -> None:
        while not self.stop:
            try:
                group = [self._link.batches.get(timeout=0.1)]
            except queue.Empty:
                continue
            while not self._link.batches.empty():
                group.append(self._link.batches.get())
            time.sleep(COMMIT)
            self._commit([batch.parse(data) for data in group])

    def _commit(self, group: list[batch.Batch]) -> None:
        now = time.time()
        for one in group:
            if one.sequence in self.batches:
                continue
            self.batches.add(one.sequence)
            body = batch.decode_body(one.body)
            if one.sequence > self.backlog:
                due = min(series.times[0] for series in body.series) / 1000 + LIVE_INTERVAL
                self.late.append(max(now - due, 0.0))
                continue
            self.readings += sum(len(series.times) for series in body.series)
            self.first = self.first or now
            self.last = now
        ranges = ranges_of(self.batches)
        watermark = ranges.pop(0)[1] if ranges[0][0] == 1 else 0
        payload = {"stream": group[0].stream.hex(), "watermark": watermark, "ranges": ranges[-50:]}
        self._link._client.publish(f"energy/v1/{SITE}/ack", json.dumps(payload), qos=1)


def ranges_of(sequences: set[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for sequence in sorted(sequences):
        if found and found[-1][1] == sequence - 1:
            found[-1][1] = sequence
        else:
            found.append([sequence, sequence])
    return found


class ByAge(Delivery):
    """Everything is backlog, what is sealed later too."""

    def connected(self, newest: int, now: float, start: float) -> None:
        super().connected(newest + (1 << 60), now, start)


def serve(path: Path, *, in_order: bool) -> None:
    """The service; `in_order` takes everything for backlog, so that it goes by its age."""
    if in_order:
        setattr(persistence, "Delivery", ByAge)  # noqa: B010  (a name that the module does not export)
    journal.set_up()
    persistence.Persistence(config.load(path)).run()


def deliver(folder: Path, filled: Path, batches: int, *, rate: float, in_order: bool, most: float) -> Hub:
    """Deliver a copy of the filled buffer, for at most `most` s; the hub tells what it saw."""
    own = folder / f"run-{rate:g}-{in_order}"
    own.mkdir()
    shutil.copy(filled, own / "buffer.db")
    shutil.copy(folder / "signing.key", own / "signing.key")
    authority = Authority(own)
    authority.issue(SITE)
    broker = Broker(own, authority)
    with broker._config.open("a") as stream:
        stream.write(f"max_inflight_messages {IN_FLIGHT}\nmax_queued_messages 10000\nset_tcp_nodelay true\n")
    broker.start()
    settings = document(
        own,
        hub={"port": broker.port},
        batch={"interval": LIVE_INTERVAL},
        delivery={"backlog_rate": rate, "backlog_start": 0},
    )
    path = own / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    hub = Hub(broker, authority, batches)
    command = [sys.executable, __file__, "--serve", str(path), *(["--in-order"] if in_order else [])]
    with (own / "log").open("w") as log:
        service = subprocess.Popen(command, stderr=log)
    buffer, site = Buffer(own / "buffer.db"), SiteReadings()
    started = time.monotonic()
    number = 0
    while time.monotonic() - started < most and len(hub.batches) < batches:
        shift = int(time.time() * 1000)
        records = site.at(1_767_600_000.0 + number * INTERVAL)
        base = records[0].time
        buffer.append([record._replace(time=record.time - base + shift) for record in records])
        number += 1
        time.sleep(max(started + number * LIVE_INTERVAL - time.monotonic(), 0))
    service.send_signal(signal.SIGTERM)
    service.wait()
    buffer.close()
    hub.close()
    broker.stop()
    return hub


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure catching up after an outage.")
    parser.add_argument("--hours", type=float, default=24, help="length of the outage (default: 24)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--in-order", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, in_order=options.in_order)
        return
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled = folder / "filled.db"
        print(f"Filling a buffer with {options.hours:g} h of readings ...", flush=True)
        batches, readings = fill(filled, folder / "signing.key", options.hours)
        size = filled.stat().st_size
        print(f"{readings} readings in {batches} batches, {size / 1e6:.0f} MB")
        print(f"{'':34}{'readings/s':>12}{'done':>8}{'live late: p50':>16}{'most':>8}{'batches':>9}")
        shipped = config.DeliveryConfig.backlog_rate
        ways = (
            (f"as shipped, {shipped:g} readings/s", shipped, False, SHIPPED_FOR),
            ("live first, unpaced", 1e9, False, 600.0),
            ("by age, unpaced", 1e9, True, 600.0),
        )
        hubs = {}
        for title, rate, in_order, most in ways:
            hub = deliver(folder, filled, batches, rate=rate, in_order=in_order, most=most)
            speed = hub.readings / (hub.last - hub.first)
            late = sorted(hub.late) or [float("nan")]
            hubs[title] = hub, speed
            print(
                f"{title:34}{speed:12.0f}{hub.readings / readings:8.0%}{statistics.median(late):14.2f} s"
                f"{late[-1]:6.2f} s{len(hub.late):9}",
                flush=True,
            )
    (paced, _), (first, first_speed), (queue_hub, queue_speed) = hubs.values()
    against = max(queue_hub.late, default=0.0)
    results = [
        result("catch-up, live first", first_speed, "readings/s", queue_speed),
        result("live data late at most, as shipped", max(paced.late), "s", against),
        result("live data late at most, unpaced", max(first.late), "s", against),
    ]
    target = ROOT / "build" / "bench" / "catch_up.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(ROOT)}")
    if max(*paced.late, *first.late) > LIVE_INTERVAL:
        sys.exit(f"bench_catch_up: live data was later than its interval of {LIVE_INTERVAL:g} s")


def result(name: str, value: float, unit: str, against: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "against": round(against, 2),
        "ratio": round(value / against, 4) if against else None,
    }


if __name__ == "__main__":
    main()

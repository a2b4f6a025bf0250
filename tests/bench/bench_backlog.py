# SPDX-License-Identifier: Apache-2.0
"""The backlog of a whole fleet arrives at once, after an outage of the hub: how fast it is committed, in how much
memory, and how late live data is meanwhile.

    .venv/bin/python tests/bench/bench_backlog.py [--hours 24] [--sites 50] [--workers 2] [--without-rollups] [--quick]

A real mosquitto (TLS 1.3, client certificates, the queues of role hub_broker), a real PostgreSQL as it comes, ingest
workers and the rollup service as processes of their own, all on this machine. Each site has 160 points (eight meters
with twenty) every 10 s and seals a batch every 10 s, as shipped. Its backlog is encoded by the collector's encoder and
signed before anything is timed. One process plays all gateways: each with an MQTT connection of its own and with the
collector's own book-keeping of what is under way (energy_collector.delivery.window), but for the pace: `backlog_rate`
is out of force, so that only the hub's acknowledgements hold the backlog back. Live batches are sealed and signed when
they are due.

First only live data, for a minute: the other. Then the backlogs of all sites at once, and live data goes on. How late a
live batch is, is the time from its sealing until the hub's acknowledgement, which comes after the commit, names it. It
is on time within the period of 10 s. Memory is the most that a worker had resident, looked at each second; the other
is what it had with live data alone. In the end all rows are counted: each that was acknowledged is there, once.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import shutil
import ssl
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("hub", "collector", "controller", "lab"))]

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_collector.batches import batch
from energy_collector.batches.varint import put_string
from energy_collector.config import BatchConfig, DeliveryConfig
from energy_collector.delivery.window import Delivery
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench.rig.cost import cpu_seconds, memory
from tests.bench.rig.results import Result, write
from tests.fault.rig.broker import Broker
from tests.fault.rig.database import Database
from tests.fault.rig.ingest import Ingest
from tests.fault.rig.process import Process, wait_for
from tests.unit.hub.authority import Authority, Identity

METERS, POINTS = 8, 20
PERIOD = 10.0  # s between two polls, and between two batches
READINGS = METERS * POINTS  # of a batch
NOISE = 0.005
LIVE_ALONE = 60.0
TOPIC = "energy/v1"
UNPACED = DeliveryConfig(backlog_rate=1e9, backlog_start=0.0)
TELL = 10.0


class Bodies:
    """What the sites measure. All have the same values, which nobody compares: a body is encoded once."""

    def __init__(self) -> None:
        self._chance = random.Random(5)
        self._bases = [self._chance.uniform(1, 1e4) for _ in range(READINGS)]
        self._names = [f"meter-{n // POINTS}/quantity_{n % POINTS}" for n in range(READINGS)]

    def at(self, milliseconds: int) -> bytes:
        """All but the site's name, with which a body begins."""
        series = [
            batch.Series(
                name, "W", [milliseconds], [round(base * (1 + self._chance.gauss(0, NOISE)), 2)], [0]
            )
            for name, base in zip(self._names, self._bases, strict=True)
        ]
        return batch.encode_body("x", series)[len(_name("x")) :]


def _name(site: str) -> bytes:
    out = bytearray()
    put_string(out, site)
    return bytes(out)


class Gateway:
    """One site: its stream, and what of it is under way. Driven by the loop of `Fleet`."""

    def __init__(self, site: str, identity: Identity, number: int) -> None:
        self.site = site
        self._identity = identity
        self._key = Ed25519PrivateKey.generate()
        self._stream = number.to_bytes(8, "big")
        self._sequence = 0
        self._previous = bytes(32)
        self._batches: dict[int, bytes] = {}  # what is not acknowledged, by sequence
        self._sealed: dict[int, float] = {}  # live ones, by sequence: when, monotonic s
        self._live: deque[int] = deque()
        self._delivery = Delivery(UNPACED, PERIOD, BatchConfig.resend)
        self._up = False
        self.backlog = self.left = 0
        self.sent = self.repeated = 0
        self.may_catch_up = False
        self.delays: list[float] = []
        self.due = 0.0
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=site, protocol=mqtt.MQTTv5, manual_ack=False
        )
        # The windows bound what is under way; paho's own bound would hold live batches back.
        self.client.max_inflight_messages_set(65_535)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_publish = lambda _client, _data, message, *_: self._delivery.received(
            message, time.monotonic(), int(time.time() * 1000)
        )

    def seal(self, body: bytes) -> int:
        self._sequence += 1
        payload = batch.sign(_name(self.site) + body, self._stream, self._sequence, self._previous, self._key)
        self._previous = batch.digest(payload)
        self._batches[self._sequence] = payload
        return self._sequence

    def fill(self, bodies: Sequence[bytes]) -> None:
        """What the outage has left."""
        for body in bodies:
            self.seal(body)
        self.backlog = self.left = self._sequence

    def connect(self, folder: Path, ca: Path, port: int, authority: Authority) -> None:
        certificate, key = folder / f"{self.site}.crt", folder / f"{self.site}.key"
        certificate.write_text(authority.chain(self._identity))
        key.write_text(self._identity.key_pem())
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        self.client.tls_set_context(context)
        self.client.connect("localhost", port)

    def status(self, authority: Authority) -> bytes:
        """With the key, as a gateway presents it."""
        public = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        key = authority.key_statement(self._identity, self.site, public)
        document = {"state": "online", "site": self.site, "stream": self._stream.hex(), "key": key}
        return json.dumps(document).encode()

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"{TOPIC}/{self.site}/ack", qos=1)
        now = time.monotonic()
        self._delivery.connected(self.backlog, now, 0.0)
        self._up = True

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        now = time.monotonic()
        ack = json.loads(message.payload)
        if ack["stream"] != self._stream.hex():
            return
        self._delivery.heard(self._sequence, now)
        for sequence in [one for one in self._batches if self._delivery.is_under_way(one)]:
            if sequence > ack["watermark"] and not any(
                low <= sequence <= high for low, high in ack["ranges"]
            ):
                continue
            self._delivery.forget(sequence)
            del self._batches[sequence]
            if sequence <= self.backlog:
                self.left -= 1
            else:
                self.delays.append(now - self._sealed.pop(sequence))

    @property
    def is_owing(self) -> bool:
        """Whether something that was sent is not acknowledged yet."""
        return bool(self._batches)

    @property
    def batches(self) -> int:
        return self._sequence

    def measure(self, body: bytes) -> None:
        """A live batch."""
        sequence = self.seal(body)
        self._sealed[sequence] = time.monotonic()
        self._live.append(sequence)

    def send(self, now: float) -> None:
        """What may go now: live batches, those that are overdue, and the backlog."""
        if not self._up:
            return
        while self._live and self._delivery.live_room(now):
            self._hand_over(self._live.popleft(), now)
        due = self._delivery.next_due()
        if due is not None and now >= due:
            for sequence in self._delivery.overdue(now):
                self.repeated += 1
                self._hand_over(sequence, now)
        while self.may_catch_up and self.sent < self.backlog and self._delivery.backlog_wait(now) == 0:
            self.sent += 1
            self._hand_over(self.sent, now)

    def _hand_over(self, sequence: int, now: float) -> None:
        payload = self._batches[sequence]
        message = self.client.publish(f"{TOPIC}/{self.site}/batch", payload, qos=1).mid
        self._delivery.sent(sequence, READINGS, len(payload), message, now, int(time.time() * 1000))


class Fleet:
    """All gateways, in one thread."""

    def __init__(self, gateways: Sequence[Gateway], bodies: Bodies) -> None:
        self.gateways = gateways
        self._bodies = bodies
        now = time.monotonic()
        for number, one in enumerate(gateways):
            one.due = now + PERIOD * (1 + number / len(gateways))
        self._misc = now

    def turn(self) -> None:
        """Look after every connection once, and send what is due."""
        sockets = {}
        poll = select.poll()
        for one in self.gateways:
            found = one.client.socket()
            if found is None:
                raise RuntimeError(f"{one.site} has lost its connection")
            sockets[found.fileno()] = one
            poll.register(found, select.POLLIN | (select.POLLOUT if one.client.want_write() else 0))
        for handle, event in poll.poll(20):
            one = sockets[handle]
            if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                one.client.loop_read()
                while isinstance(found := one.client.socket(), ssl.SSLSocket) and found.pending():
                    one.client.loop_read()
            if event & select.POLLOUT:
                one.client.loop_write()
        now = time.monotonic()
        for one in self.gateways:
            if now >= one.due:
                one.due += PERIOD
                one.measure(self._bodies.at(int(time.time() * 1000)))
            one.send(now)
        if now - self._misc > 1:
            self._misc = now
            for one in self.gateways:
                one.client.loop_misc()

    @property
    def left(self) -> int:
        return sum(one.left for one in self.gateways)

    def taken_delays(self) -> list[float]:
        """How late live batches were since the last time, ascending."""
        found = sorted(delay for one in self.gateways for delay in one.delays)
        for one in self.gateways:
            one.delays.clear()
        return found


class Watch:
    """Memory of processes, looked at each second; the most that one of them had."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._next = 0.0
        self.most = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1
            self.most = max(self.most, *(memory(pid)[0] / 2**20 for pid in self._pids))

    def taken(self) -> float:
        """MiB since the last time."""
        self._next = 0.0
        self.look()
        found, self.most = self.most, 0.0
        return found


def prepared(authority: Authority, sites: int, hours: float, bodies: Bodies) -> list[Gateway]:
    """Gateways with their backlogs, which end now."""
    gateways = [Gateway(f"site-{n:03}", authority.client(f"site-{n:03}"), n + 1) for n in range(sites)]
    count = int(hours * 3600 / PERIOD)
    end = int(time.time() * 1000)
    encoded = [bodies.at(end - int((count - n) * PERIOD * 1000)) for n in range(count)]
    begun = time.monotonic()
    for number, one in enumerate(gateways, 1):
        one.fill(encoded)
        if number % 10 == 0:
            left = (time.monotonic() - begun) / number * (sites - number)
            print(f"  signed the backlog of {number} of {sites} sites, {left:.0f} s left", flush=True)
    return gateways


class Rig:
    """Broker, database, workers and rollups."""

    def __init__(self, folder: Path, authority: Authority, workers: int, *, rollups: bool) -> None:
        self.broker = Broker(folder / "broker", authority)
        config = self.broker.folder / "mosquitto.conf"
        text = config.read_text()
        for of_tests, of_the_role in (
            ("max_inflight_messages 200", "max_inflight_messages 100"),
            ("max_queued_messages 1000", "max_queued_messages 10000\nmax_queued_bytes 134217728"),
            ("autosave_interval 1", "autosave_interval 300"),
        ):
            assert of_tests in text
            text = text.replace(of_tests, of_the_role)
        config.write_text(text)
        users = "".join(f"user ingest-{n}\ntopic readwrite energy/v1/#\n\n" for n in range(3, workers + 1))
        access = self.broker.folder / "access"
        access.write_text(users + access.read_text())
        self.database = Database(folder / "pg")
        names = ["ingest", *(f"ingest-{n}" for n in range(2, workers + 1))]
        self.workers = [
            Ingest(folder / name, self.broker, self.database, authority, name=name) for name in names
        ]
        self.rollups: Process | None = None
        if rollups:
            conninfo = self.database.conninfo("energy_rollup")
            self.rollups = Process.module(
                "energy_hub", "rollup", "--database", conninfo, log=folder / "rollup.log"
            )

    def start(self) -> None:
        self.database.start()
        self.broker.start()
        for one in self.workers:
            one.start()
        if self.rollups is not None:
            self.rollups.start()

    def stop(self) -> None:
        for one in self.workers:
            one.stop()
        if self.rollups is not None:
            self.rollups.kill()
        self.broker.stop()
        self.database.stop()

    def processes(self) -> dict[str, list[int]]:
        """Pids by what they are, those of PostgreSQL that run now."""
        server = self.database.pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text(encoding="ascii").split()
        return {
            "workers": [one.pid for one in self.workers],
            "PostgreSQL": [server, *map(int, children)],
            "mosquitto": [self.broker.pid],
        }

    def cpu(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self.processes().items()}


def live_alone(fleet: Fleet, watch: Watch, seconds: float) -> tuple[list[float], float]:
    """How late live batches are when nothing else comes, and MiB of a worker."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fleet.turn()
        watch.look()
    return fleet.taken_delays(), watch.taken()


def catch_up(fleet: Fleet, watch: Watch) -> float:
    """Send the backlogs, until all of them are acknowledged; s."""
    whole = fleet.left
    begun = told = time.monotonic()
    for one in fleet.gateways:
        one.may_catch_up = True
    while fleet.left:
        fleet.turn()
        watch.look()
        now = time.monotonic()
        if now - told >= TELL:
            told = now
            done = whole - fleet.left
            rate = done / (now - begun)
            print(
                f"  {done * READINGS:,} of {whole * READINGS:,} readings, {rate * READINGS:,.0f}/s,"
                f" {fleet.left / rate if rate else 0:.0f} s left; a worker has had {watch.most:.0f} MiB",
                flush=True,
            )
    return time.monotonic() - begun


def count(database: Database) -> Iterator[tuple[str, int]]:
    with database.connect() as connection:
        for name, query in (
            ("readings stored", "SELECT count(*) FROM reading"),
            ("readings in batches", "SELECT coalesce(sum(readings), 0) FROM batch"),
            ("batches", "SELECT count(*) FROM batch"),
            ("batches of a broken or unknown chain", "SELECT count(*) FROM batch WHERE chain <> 1"),
            ("evidence of something wrong", "SELECT count(*) FROM evidence"),
            ("quarantined", "SELECT count(*) FROM quarantine"),
        ):
            row = connection.execute(query).fetchone()
            assert row is not None
            yield name, int(row[0])


def p95(delays: Sequence[float]) -> float:
    return delays[min(len(delays) - 1, round(0.95 * len(delays)))]


def run(options: argparse.Namespace, folder: Path) -> list[Result]:
    authority, bodies = Authority(), Bodies()
    print(f"Signing {options.hours:g} h of {options.sites} sites ...", flush=True)
    gateways = prepared(authority, options.sites, options.hours, bodies)
    rig = Rig(folder, authority, options.workers, rollups=not options.without_rollups)
    try:
        rig.start()
        for one in gateways:
            one.connect(folder, rig.broker.folder / "ca.crt", rig.broker.port, authority)
        fleet = Fleet(gateways, bodies)
        for one in gateways:
            one.client.publish(f"{TOPIC}/{one.site}/status", one.status(authority), qos=1, retain=True)

        def known() -> bool:
            fleet.turn()
            with rig.database.connect() as connection:
                return connection.execute("SELECT count(*) FROM site_key").fetchone() == (len(gateways),)

        wait_for(known, "the hub trusts all gateways' keys", 60)
        watch = Watch(rig.processes()["workers"])
        alone, usual = live_alone(fleet, watch, options.live_alone)
        before = rig.cpu()
        took = catch_up(fleet, watch)
        used = {name: value - before[name] for name, value in rig.cpu().items()}
        beside, most = fleet.taken_delays(), watch.taken()
        # What is on its way comes in, so that both ends can be counted.
        for one in gateways:
            one.due = float("inf")

        def paid() -> bool:
            fleet.turn()
            return not any(one.is_owing for one in gateways)

        wait_for(paid, "all are acknowledged", 60)
        found = dict(count(rig.database))
    finally:
        rig.stop()
    batches = sum(one.batches for one in gateways)
    print(", ".join(f"{name} {number:,}" for name, number in found.items()))
    expected = {
        "readings stored": batches * READINGS,
        "readings in batches": batches * READINGS,
        "batches": batches,
        "batches of a broken or unknown chain": 0,
        "evidence of something wrong": 0,
        "quarantined": 0,
    }
    if found != expected:
        sys.exit(f"bench_backlog: not what was acknowledged: {expected}")
    backlog = sum(one.backlog for one in gateways)
    readings = backlog * READINGS
    seen = sum(one.repeated for one in gateways)
    print(f"{backlog:,} batches of backlog in {took:.0f} s, {seen} batches sent more than once")
    print(
        ", ".join(f"CPU of {name} {value / readings * 1e6:.1f} us a reading" for name, value in used.items())
    )
    if max(beside) > PERIOD:
        print(f"NOT ON TIME: a live batch took {max(beside):.1f} s, more than its period of {PERIOD:g} s")

    what = f"{options.hours:g} h of {options.sites} sites at once"
    in_time = sum(one <= PERIOD for one in beside) / len(beside)

    def pair(name: str, ours: float, unit: str, other: float, digits: int = 3) -> Result:
        name = f"{what}: {name} against live data alone"
        return Result(name, round(ours, digits), unit, round(other, digits), round(ours / other, 2))

    late = "live batch to its acknowledgement"
    return [
        Result(f"{what}: committed by {options.workers} workers", round(readings / took), "readings/s"),
        Result(f"{what}: until all is committed", round(took), "s"),
        pair("memory of a worker at most", most, "MiB", usual, 0),
        pair(f"{late}, p50", statistics.median(beside), "s", statistics.median(alone)),
        pair(f"{late}, p95", p95(beside), "s", p95(alone)),
        pair(f"{late}, most", beside[-1], "s", alone[-1]),
        Result(f"{what}: live batches within their period", round(100 * in_time, 2), "%"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="A fleet's backlog at once, with live data beside it.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--without-rollups", action="store_true", help="leave out the rollup service")
    parser.add_argument("--live-alone", type=float, default=LIVE_ALONE, help="s before the backlog")
    parser.add_argument(
        "--folder", type=Path, help="where the database lies meanwhile (default: the temporary one)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="an hour of the fleet: for a look, not for the page"
    )
    options = parser.parse_args()
    if options.quick:
        options.hours, options.live_alone = 1.0, 25.0
    folder = Path(tempfile.mkdtemp(prefix="energy-bench-", dir=options.folder))
    folder.chmod(0o755)
    try:
        write("backlog", run(options, folder), quick=options.hours < 24)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

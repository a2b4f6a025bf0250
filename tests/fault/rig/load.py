# SPDX-License-Identifier: Apache-2.0
"""Sites that deliver without a pause, so that a fault at a random instant finds the hub at work; and what it found.

A gateway of the rig sends a batch a second, and between two batches the hub rests. Here one thread plays many gateways
that send twenty batches a second each, made by the collector's encoder. A batch is kept and sent again until the hub's
acknowledgement names it, as a gateway does it. So many of a site are under way and no more: a hub that is slow or away
is not buried, and always has some to do. Each answer that a batch comes from is kept, so both ends can be counted.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import psycopg
from energy_collector import quality
from energy_collector.batches import batch
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from tests.fault.report import FaultReport
from tests.fault.rig.meters import ADDRESSES, Answer, value_at
from tests.fault.rig.stranger import Stranger
from tests.unit.hub.authority import Authority

# The voltages of one meter: what is stored of a batch matters less than that it is committed.
UNIT, METER, ADDRESS, REGISTERS = 1, "main", ADDRESSES["voltage_l1"], 6
# s between two batches of a site; a worker's quota allows it.
PERIOD = 0.05
# Batches of a site under way.
WINDOW = 8
# s after which what nobody acknowledged is sent again.
RESEND = 5.0
# Of so many faults one meets an open commit, or the load is too small.
ENOUGH = 10
# s that a fault waits for work, where it is one of a few, and between two looks.
SEEK, LOOK = 10.0, 0.002


@dataclass
class UnderWay:
    """A batch that the hub has not acknowledged. `measured` is Unix s, `sent` is monotonic s."""

    payload: bytes
    measured: float
    sent: float = 0.0
    receipt: mqtt.MQTTMessageInfo | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a broker has it: from then on it is the hub's."""
        one = self.receipt
        return one is not None and one.rc == MQTTErrorCode.MQTT_ERR_SUCCESS and one.is_published()


class Source(Stranger):
    """One site. `turn` is called by the load's thread; the client's own thread hears what the hub says."""

    def __init__(
        self, name: str, domain: str, port: int, folder: Path, ca: Path, authority: Authority
    ) -> None:
        super().__init__(name, domain, port, folder, ca, authority, authority.client(name))
        self.answers: list[Answer] = []
        # Unix s of the newest reading that the hub has acknowledged.
        self.newest = 0.0
        self._time = 0
        self._under_way: dict[int, UnderWay] = {}
        # Held while `_under_way` is looked at, and never while something is published: paho calls back meanwhile.
        self._turn = threading.Lock()
        self._connected = self._heard = False
        self._told = 0.0

    def connect(self) -> None:
        """Whenever there is a broker, and again after each loss of the connection."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.name, protocol=mqtt.MQTTv5)
        client.tls_set_context(self.context)
        client.max_inflight_messages_set(100)
        client.reconnect_delay_set(1, 2)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.connect_async("127.0.0.1", self.port, keepalive=10)
        client.loop_start()
        self._client = client

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"energy/v1/{self.name}/ack", qos=1)
        with self._turn:
            # The broker may be another one than before.
            for one in self._under_way.values():
                one.sent, one.receipt = 0.0, None
            self._heard, self._told = False, 0.0
            self._connected = True

    def _on_disconnect(self, *_: object) -> None:
        self._connected = False

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        ack = json.loads(message.payload)
        if ack["stream"] != self.gateway.stream.hex():
            return
        spans = [[1, ack["watermark"]], *ack["ranges"]]
        with self._turn:
            self._heard = True
            for sequence in list(self._under_way):
                if any(low <= sequence <= high for low, high in spans):
                    self.newest = max(self.newest, self._under_way.pop(sequence).measured)

    def turn(self, *, silent: bool) -> None:
        """Measure, and send what is due."""
        client, now = self._client, time.monotonic()
        if client is None or not self._connected:
            return
        if not self._heard:
            # Before the hub has the key of a site, it can take none of its batches.
            if now - self._told >= RESEND:
                self._told = now
                client.publish(f"energy/v1/{self.name}/status", self.status(), qos=1, retain=True)
            return
        with self._turn:
            if not silent and len(self._under_way) < WINDOW:
                self._measure()
            due = [one for one in self._under_way.values() if not one.sent or now - one.sent >= RESEND]
        for one in due:
            one.sent = now
            one.receipt = client.publish(f"energy/v1/{self.name}/batch", one.payload, qos=1)

    def _measure(self) -> None:
        """A batch of one answer."""
        answer = Answer(len(self.answers) + 1, UNIT, ADDRESS, REGISTERS, time.time())
        self.answers.append(answer)
        self._time = max(int(answer.time * 1000), self._time + 1)
        series = [
            batch.Series(
                f"{METER}/{point}",
                "V",
                [self._time],
                [float(value_at(answer.number, ADDRESSES[point]))],
                [quality.GOOD],
            )
            for point in answer.points()
        ]
        gateway = self.gateway
        gateway.sequence += 1
        body = batch.encode_body(self.name, series)
        payload = batch.sign(body, gateway.stream, gateway.sequence, gateway.previous, gateway.key)
        gateway.previous = batch.digest(payload)
        self._under_way[gateway.sequence] = UnderWay(payload, answer.time)

    def oldest(self) -> float:
        """Unix seconds of the oldest reading that is not acknowledged; now when there is none."""
        with self._turn:
            return min((one.measured for one in self._under_way.values()), default=time.time())

    @property
    def held(self) -> int:
        """Batches that a broker has taken and the hub has not acknowledged."""
        with self._turn:
            return sum(one.is_taken for one in self._under_way.values())


class Load:
    """All of them, in one thread."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        # They measure nothing more, and send what they have.
        self.silent = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for one in self.sources:
            one.connect()
        if self.sources:
            self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for one in self.sources:
            one.close()

    def _run(self) -> None:
        pause = PERIOD / len(self.sources)
        for one in itertools.cycle(self.sources):
            # One after the other, so that commits are spread.
            if self._over.wait(pause):
                return
            one.turn(silent=self.silent)

    def behind(self, began: float) -> list[str]:
        """Sites of which nothing is acknowledged that was measured since a time."""
        return [one.name for one in self.sources if one.newest < began]

    def waiting(self, before: float) -> list[str]:
        """Sites that hold something that they measured before a time, and that is not acknowledged."""
        return [one.name for one in self.sources if one.oldest() < before]

    @property
    def held(self) -> int:
        """Batches that the hub has and has not acknowledged."""
        return sum(one.held for one in self.sources)


class Met:
    """What faults have met at their instants.

    Of many faults at random instants most meet work. Of two or three chance alone may spare most: with `seek` a fault
    comes when there is work, and one that waits `SEEK` s in vain has met none.
    """

    def __init__(self, *, seek: bool) -> None:
        self._seek = seek
        self._held: list[int] = []
        self._commits: list[int] = []

    def look(self, load: Load, connection: psycopg.Connection) -> None:
        """To be called right before a fault; the connection is there already, since making one takes its time."""
        deadline = time.monotonic() + (SEEK if self._seek else 0.0)
        while True:
            held = load.held
            row = connection.execute(OPEN).fetchone()
            assert row is not None
            if held or row[0] or time.monotonic() >= deadline:
                break
            time.sleep(LOOK)
        self.note(held, row[0])

    def note(self, held: int, commits: int) -> None:
        """Batches that the hub had and had not acknowledged, and commits that were open."""
        self._held.append(held)
        self._commits.append(commits)

    def tell(self, report: FaultReport) -> None:
        """Where most faults have met a hub with nothing to do, the run has shown nothing."""
        work = [bool(held or commits) for held, commits in zip(self._held, self._commits, strict=True)]
        commits = sum(map(bool, self._commits))
        report.figures |= {
            "met_work": sum(work),
            "met_an_open_commit": commits,
            "batches_held_least": min(self._held, default=0),
            "batches_held_most": max(self._held, default=0),
        }
        if 2 * sum(work) < len(work):
            report.idle += len(work) - sum(work)
            report.findings.append(f"{len(work) - sum(work)} of {len(work)} faults met no work")
        if len(work) >= ENOUGH and not commits:
            report.idle += len(work)
            report.findings.append(f"none of {len(work)} faults met an open commit")


# Transactions of workers that have written, and are not committed.
OPEN = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = 'energy-ingest' AND backend_xid IS NOT NULL"
)

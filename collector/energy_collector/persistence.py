# SPDX-License-Identifier: Apache-2.0
"""The delivering service: seals batches, sends them to the hub, and frees them when the hub has committed
them.

It never talks to a meter, and it goes on sealing while the hub is away.
"""

from __future__ import annotations

import json
import queue
import signal
import sqlite3
import time
from typing import Any

from energy_collector import __version__, acknowledgement
from energy_collector.backoff import ReconnectBackoff
from energy_collector.buffer import Buffer
from energy_collector.config import Config
from energy_collector.delivery import Delivery
from energy_collector.identity import IdentityError, key_statement, signing_key
from energy_collector.journal import Faults, log
from energy_collector.link import Acked, Committed, Down, Event, Link, Up
from energy_collector.notify import notify, watchdog_interval
from energy_collector.operations import iso
from energy_collector.telemetry import TelemetryLog, line

# How long one round waits for something to happen, in s. New readings are looked for in every round.
TICK = 0.5
# The status carries certificates and weighs as much as a minute of readings; batches show that we live.
STATUS_INTERVAL = 600.0
# A connection that has not come to life by then is given up.
CONNECT_PATIENCE = 30.0
# Batches sealed in one round after the service was away, so that the connection is not neglected meanwhile.
SEALS_PER_ROUND = 8
GOODBYE_PATIENCE = 2.0


def _now() -> int:
    return int(time.time() * 1000)


class Persistence:
    """The service. Raises BufferUnusableError or IdentityError when it cannot start."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._key = signing_key(config.signing_key)
        self._buffer = Buffer(config.buffer.path)
        self._stream = self._buffer.stream.hex()
        self._faults = Faults()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._delivery = Delivery(config.batch.resend)
        self._telemetry = TelemetryLog(config.telemetry_log)
        self._backoff = ReconnectBackoff()
        self._link: Link | None = None
        self._up = False
        self._try_at = 0.0
        self._give_up_at = 0.0
        self._status_at = 0.0
        self._oldest: tuple[int, float] | None = None
        self._stopping = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        log.info("%s: delivering stream %s to %s", self.config.site, self._stream, self.config.hub.host)
        notify("READY=1")
        watch = watchdog_interval()
        watched = 0.0
        while not self._stopping:
            self._round()
            if watch and time.monotonic() - watched >= watch:
                notify("WATCHDOG=1")
                watched = time.monotonic()
        notify("STOPPING=1")
        self._say_goodbye()
        self._buffer.close()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _round(self) -> None:
        self._take_event(TICK)
        # More may have happened meanwhile; it is served before anything is sent.
        while not self._events.empty():
            self._take_event(0)
        try:
            self._seal()
            self._send()
        except sqlite3.Error as error:
            cause = "the disk is full, read-only or failing"
            self._faults.report("buffer", f"cannot be read or written: {error}", cause)
        else:
            self._faults.over("buffer")
        self._keep_link()

    def _take_event(self, wait: float) -> None:
        try:
            event = self._events.get(timeout=wait) if wait else self._events.get_nowait()
        except queue.Empty:
            return
        if isinstance(event, Up):
            self._on_up()
        elif isinstance(event, Down):
            self._on_down(event)
        elif isinstance(event, Acked):
            self._on_received(event)
        else:
            self._on_committed(event)

    # The connection.

    def _keep_link(self) -> None:
        now = time.monotonic()
        if self._link is not None:
            if not self._up and now >= self._give_up_at:
                self._on_down(
                    Down("no answer from the broker", "the hub is overloaded, or the link loses packets")
                )
            return
        if now < self._try_at or self._stopping:
            return
        self._events = queue.SimpleQueue()
        will = json.dumps({"state": "offline", "site": self.config.site}).encode()
        self._link = Link(self.config.site, self.config.hub, will, self._events)
        self._give_up_at = now + CONNECT_PATIENCE
        self._link.connect()

    def _on_up(self) -> None:
        self._up = True
        self._faults.over("hub")
        log.info("hub: connected to %s", self.config.hub.host)
        self._delivery.reset()
        self._publish_status()

    def _on_down(self, event: Down) -> None:
        if self._link is None:
            return
        self._faults.report(
            "hub", f"{self.config.hub.host}:{self.config.hub.port}: {event.reason}", event.cause
        )
        self._link.close()
        self._link = None
        self._up = False
        # Closing a link tells of its end once more.
        self._events = queue.SimpleQueue()
        self._try_at = time.monotonic() + self._backoff.next()

    def _status(self, state: str) -> dict[str, Any]:
        status: dict[str, Any] = {
            "state": state,
            "site": self.config.site,
            "time": iso(_now()),
            "version": __version__,
            "stream": self._stream,
        }
        try:
            held = self._buffer.state()
        except sqlite3.Error as error:
            self._faults.report("buffer", f"cannot be read: {error}", "the disk is failing")
        else:
            status["sequence"] = held.sequence
            status["buffer"] = {
                "readings": held.readings,
                "batches": held.batches,
                "bytes": held.bytes,
                "dropped": held.dropped,
            }
        return status

    def _publish_status(self) -> None:
        if self._link is None:
            return
        hub = self.config.hub
        status = self._status("online")
        try:
            status["key"] = key_statement(self._key, self.config.site, hub.certificate, hub.key)
        except IdentityError as error:
            self._faults.report("identity", str(error), "the identity role has to be run again")
        else:
            self._faults.over("identity")
        self._link.publish("status", json.dumps(status).encode(), retain=True)
        self._status_at = time.monotonic() + STATUS_INTERVAL

    def _say_goodbye(self) -> None:
        if self._link is None:
            return
        if self._up:
            message = self._link.publish("status", json.dumps(self._status("offline")).encode(), retain=True)
            deadline = time.monotonic() + GOODBYE_PATIENCE
            while time.monotonic() < deadline:
                try:
                    event = self._events.get(timeout=0.1)
                except queue.Empty:
                    continue
                if isinstance(event, Committed):
                    self._on_committed(event)
                if isinstance(event, Down) or (isinstance(event, Acked) and event.message == message):
                    break
        self._link.close()

    # Batches.

    def _seal(self) -> None:
        """Seal what is due; a lonely reading is sealed once it has waited for the interval."""
        rules = self.config.batch
        for _ in range(SEALS_PER_ROUND):
            if self._buffer.seal(self.config.site, self._key, rules.interval, rules.max_readings) is None:
                break
        oldest = self._buffer.oldest_reading()
        now = time.monotonic()
        if oldest is None:
            self._oldest = None
        elif self._oldest is None or self._oldest[0] != oldest:
            self._oldest = (oldest, now)
        elif now - self._oldest[1] >= rules.interval:
            self._buffer.seal(self.config.site, self._key, rules.interval, rules.max_readings, flush=True)

    def _send(self) -> None:
        if not self._up or self._link is None:
            return
        now = time.monotonic()
        for sequence in self._delivery.overdue(now):
            stored = self._buffer.batch(sequence)
            if stored is None:
                self._delivery.forget(sequence)
            else:
                self._delivery.sent(sequence, self._link.publish("batch", stored.data), now)
        for stored in self._buffer.batches(self._delivery.cursor, self._delivery.room):
            self._delivery.sent(stored.sequence, self._link.publish("batch", stored.data), now)
        if now >= self._status_at:
            self._publish_status()

    def _on_received(self, event: Acked) -> None:
        if event.reason:
            cause = "the broker's access list does not fit the common name of our certificate"
            self._faults.report("broker", f"refuses a message: {event.reason}", cause)
            return
        self._faults.over("broker")
        self._delivery.received(event.message, _now())

    def _on_committed(self, event: Committed) -> None:
        try:
            ack = acknowledgement.parse(event.payload)
        except ValueError as error:
            self._faults.report("acknowledgement", f"is none: {error}", "the hub runs another version")
            return
        if ack.stream != self._stream:
            # Of a buffer that this gateway had before.
            return
        self._backoff.reset()
        try:
            freed = self._buffer.free(ack.watermark, ack.ranges)
        except sqlite3.Error as error:
            self._faults.report(
                "buffer", f"cannot be written: {error}", "the disk is full, read-only or failing"
            )
            return
        now = _now()
        lines = []
        for sequence, readings in freed:
            sent = self._delivery.forget(sequence)
            lines.append(line(now, self._stream, sequence, readings, sent.puback if sent else None))
        try:
            self._telemetry.write(lines)
        except OSError as error:
            cause = "the folder is missing or belongs to someone else, or the disk is full"
            self._faults.report("telemetry log", f"{self.config.telemetry_log}: {error.strerror}", cause)
        else:
            self._faults.over("telemetry log")

# SPDX-License-Identifier: Apache-2.0
"""The delivering service: seals batches, sends them to the hub, and frees them when the hub has committed
them.

It never talks to a meter, and it goes on sealing while the hub is away. One thread does everything but the
opening of a connection; it sleeps until the socket has something or until something is due.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import signal
import socket
import sqlite3
import time
from typing import Any

from energy_collector import __version__
from energy_collector.config import Config
from energy_collector.delivery import acknowledgement
from energy_collector.delivery.backoff import ReconnectBackoff
from energy_collector.delivery.certificates import LOOK_INTERVAL, CertificateFiles, Look
from energy_collector.delivery.identity import IdentityError, key_statement, signing_key
from energy_collector.delivery.link import Acked, Committed, Down, Event, Link, Ready, Up, Witnessed
from energy_collector.delivery.telemetry import TelemetryLog, line
from energy_collector.delivery.window import Delivery
from energy_collector.delivery.witness import RefusedError, Witnesses
from energy_collector.journal import Faults, log
from energy_collector.notify import notify, watchdog_interval
from energy_collector.storage.buffer import Buffer, BufferReplacedError, Keep, Stored
from energy_collector.times import iso

# New readings are looked for so many times in the interval of a batch, but not more often than once in
# SHORTEST_LOOK s and at least once in LONGEST_LOOK s.
LOOKS = 10
SHORTEST_LOOK, LONGEST_LOOK = 0.2, 1.0
STATUS_INTERVAL = 600.0
# Batches sealed in one round after the service was away, so that the connection is not neglected meanwhile.
SEALS_PER_ROUND = 8
GOODBYE_PATIENCE = 2.0
# Freed batches are written down with the next one that is sealed; while a backlog goes, by so many.
SETTLE = 256
# The broker checks our certificate after we have checked its own (RFC 8446, section 4.4): a new certificate is
# good when this long after the handshake, plus the time that took, nothing was said against it. In s.
PROOF = 1.0
# New certificates that the hub did not take are tried again so often, in s: the fault may have been the hub's. Where
# the files change again, it was theirs, and they are tried at once.
SWAP_RETRY = 600.0
# A hub that acknowledges nothing for so long, though batches are under way, is told of, in s.
SILENCE = 300.0


def _now() -> int:
    return int(time.time() * 1000)


class Persistence:
    """The service. Raises BufferUnusableError or IdentityError when it cannot start."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._key = signing_key(config.signing_key)
        self._faults = Faults()
        self._buffer = self._open_buffer()
        # Batches that were freed, which is still to be written down.
        self._freed = 0
        self._delivery = Delivery(config.delivery, config.batch.interval, config.batch.resend)
        self._telemetry = TelemetryLog(config.telemetry_log)
        self._witnesses = Witnesses(config.buffer.path.with_name("witness.jsonl"), config.site)
        self._backoff = ReconnectBackoff()
        self._files = CertificateFiles(config.hub)
        self._statement: tuple[Look, dict[str, str]] | None = None
        self._link: Link | None = None
        # A connection with renewed certificates that is to take the link's place.
        self._successor: Link | None = None
        self._successor_since = self._swap_at = self._swap_retry_at = 0.0
        self._swap_ready = False
        self._up = False
        self._proven = False
        self._heard = 0.0
        # When what is due next, monotonic s.
        self._try_at = self._give_up_at = self._status_at = self._look_at = self._files_at = 0.0
        self._backlog_at = 0.0
        # A disk that fails is not tried more often than that.
        self._rest_until = 0.0
        self._waiting: Stored | None = None
        self._oldest: tuple[int, float] | None = None
        self._stopping = False
        self._bell, self._button = socket.socketpair()
        for end in (self._bell, self._button):
            end.setblocking(False)

    def _open_buffer(self) -> Buffer:
        bounds = self.config.buffer
        buffer = Buffer(bounds.path, keep=Keep(bounds.keep_age, bounds.keep_bytes))
        self._stream = buffer.stream.hex()
        self._generation = buffer.generation
        self._newest = buffer.state().sequence
        for why in buffer.put_aside:
            cause = "power was cut and the disk does not keep its word, or it is failing"
            self._faults.report("buffer file", why, cause)
        return buffer

    def _reopen_buffer(self, why: str) -> None:
        """The file was put aside; what follows is another stream."""
        log.warning("buffer: %s; going on with a new one", why)
        self._buffer.close()
        self._buffer = self._open_buffer()
        self._freed = 0
        self._oldest = self._waiting = None
        if self._up:
            now = time.monotonic()
            self._delivery.connected(self._newest, now, 0)
            self._proven = False
            self._publish_status()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # A signal ends the wait as the connecting thread does.
        signal.set_wakeup_fd(self._button.fileno(), warn_on_full_buffer=False)
        log.info("%s: delivering stream %s to %s", self.config.site, self._stream, self.config.hub.host)
        notify("READY=1")
        watch = watchdog_interval()
        watched = 0.0
        while not self._stopping:
            self._round()
            now = time.monotonic()
            if watch and now - watched >= watch:
                notify("WATCHDOG=1")
                watched = now
            self._wait(min(self._next(), watched + watch if watch else now + LOOK_INTERVAL) - now)
        notify("STOPPING=1")
        self._say_goodbye()
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(sqlite3.Error, BufferReplacedError):
            # What stays is sent again by the next run, and the hub knows it.
            self._buffer.settle()
        self._buffer.close()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _wake(self) -> None:
        try:
            self._button.send(b"\0")
        except BlockingIOError:
            # It has been rung so often that nobody can miss it.
            return

    def _wait(self, patience: float) -> None:
        """Sleep until a socket has something, or for `patience` s."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        for link in (self._link, self._successor):
            if link is not None and link.interest is not None:
                poll.register(*link.interest)
        rung = poll.poll(max(patience, 0.0) * 1000)
        if any(handle == self._bell.fileno() for handle, _ in rung):
            self._bell.recv(4096)

    def _next(self) -> float:
        """When something is due."""
        due = [self._look_at]
        if self._link is None:
            due.append(self._try_at)
        else:
            deadline = self._link.deadline()
            due += [] if deadline is None else [deadline]
        if self._up:
            resend = self._delivery.next_due()
            due += [self._status_at, self._files_at]
            # While the link has no room, the socket or a PUBACK wakes us.
            if self._link is not None and self._link.has_room:
                due += [] if resend is None else [resend]
                due += [self._backlog_at] if self._has_backlog() else []
        if self._swap_at:
            due.append(self._swap_at)
        return max(min(due), self._rest_until)

    def _round(self) -> None:
        if self._link is not None:
            for event in self._link.service():
                self._on_event(event)
        if self._successor is not None:
            self._tend_successor(self._successor)
        now = time.monotonic()
        try:
            if now >= self._look_at:
                self._seal(now)
            self._send(now)
        except BufferReplacedError as error:
            self._reopen_buffer(str(error))
        except sqlite3.Error as error:
            cause = "the disk is full, read-only or failing"
            self._faults.report("buffer", f"cannot be read or written: {error}", cause)
            self._rest_until = now + LONGEST_LOOK
        else:
            self._faults.over("buffer")
        self._keep_link(now)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Ready):
            if self._link is not None:
                self._link.begin()
        elif isinstance(event, Up):
            self._on_up()
        elif isinstance(event, Down):
            self._on_down(event)
        elif isinstance(event, Acked):
            self._on_received(event)
        elif isinstance(event, Witnessed):
            self._on_witnessed(event)
        else:
            self._on_committed(event)

    # The connection.

    def _new_link(self) -> Link:
        self._files.use()
        will = json.dumps({"state": "offline", "site": self.config.site}).encode()
        link = Link(self.config.site, self.config.hub, will, self._wake)
        link.connect()
        return link

    def _keep_link(self, now: float) -> None:
        if self._link is not None:
            if not self._up and now >= self._give_up_at:
                self._on_down(
                    Down("no answer from the broker", "the hub is overloaded, or the link loses packets")
                )
            elif self._up and now >= self._files_at:
                self._look_at_files(now)
        elif now >= self._try_at and not self._stopping:
            self._give_up_at = now + 3 * self.config.hub.connect_timeout
            self._link = self._new_link()

    def _on_up(self) -> None:
        now = time.monotonic()
        self._up = True
        self._proven = False
        self._heard = now
        self._faults.over("hub")
        log.info("hub: connected to %s", self.config.hub.host)
        # Spread, not secrecy.
        start = random.uniform(0, self.config.delivery.backlog_start)  # noqa: S311  (spread, not secrecy)
        self._delivery.connected(self._newest, now, start)
        self._waiting = None
        self._backlog_at = now
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
        # The next try takes the new certificates anyway.
        self._drop_successor()
        self._try_at = time.monotonic() + self._backoff.next()

    # New certificates.

    def _look_at_files(self, now: float) -> None:
        self._files_at = now + LOOK_INTERVAL
        changed = self._files.have_changed()
        again = self._swap_retry_at > 0 and now >= self._swap_retry_at
        if self._successor is None and (changed or again):
            what = "the files have changed; trying" if changed else "trying once more"
            log.info("certificates: %s a connection with the new ones", what)
            self._swap_retry_at = 0.0
            self._successor_since = now
            self._swap_at = now + 3 * self.config.hub.connect_timeout
            self._successor = self._new_link()
            self._swap_ready = False

    def _tend_successor(self, successor: Link) -> None:
        """The old connection serves until TLS has taken the new certificates; then the new one logs in. Not
        before: a client's name can be logged in once, and the broker would send our last will."""
        now = time.monotonic()
        for event in successor.service():
            if isinstance(event, Ready):
                self._swap_ready = True
                self._swap_at = now + PROOF + (now - self._successor_since)
            elif isinstance(event, Down):
                self._give_up_successor(event)
                return
        if now < self._swap_at:
            return
        if not self._swap_ready:
            cause = "the hub is overloaded, or the link loses packets"
            self._give_up_successor(Down("no answer from the broker", cause))
            return
        if self._link is not None:
            self._link.close()
        self._link, self._successor = successor, None
        self._swap_at = 0.0
        self._up = False
        self._give_up_at = now + 3 * self.config.hub.connect_timeout
        self._faults.over("certificates")
        log.info("certificates: the hub takes the new ones; going over to the new connection")
        successor.begin()

    def _give_up_successor(self, event: Down) -> None:
        text = f"the new ones do not work, the old connection goes on: {event.reason}"
        self._faults.report("certificates", text, event.cause)
        self._drop_successor()
        # What was refused is tried again now and then; what has changed since, at once.
        self._swap_retry_at = time.monotonic() + SWAP_RETRY

    def _drop_successor(self) -> None:
        if self._successor is not None:
            self._successor.close()
            self._successor = None
        self._swap_at = 0.0

    # Status.

    def _status(self, state: str) -> dict[str, Any]:
        status: dict[str, Any] = {
            "state": state,
            "site": self.config.site,
            "time": iso(_now()),
            "version": __version__,
            "stream": self._stream,
        }
        try:
            with self._buffer.moment():
                first, last = self._buffer.held()
                held = self._buffer.state()
        except sqlite3.Error as error:
            self._faults.report("buffer", f"cannot be read: {error}", "the disk is failing")
        else:
            status["first"] = first if last else held.sequence + 1
            status["sequence"] = held.sequence
            status["buffer"] = {
                "readings": held.readings,
                "batches": held.batches,
                "bytes": held.bytes,
                "dropped": held.dropped,
                "quarantined": held.quarantined,
            }
        status |= self._witnesses.status()
        return status

    def _publish_status(self) -> None:
        """With the key statement, and retained, until the hub has acknowledged a batch: then it knows the key.

        What comes later is not retained, so that an ingest which starts anew still finds the key at the
        broker.
        """
        if self._link is None:
            return
        status = self._status("online")
        if not self._proven:
            self._add_statement(status)
        self._link.publish("status", json.dumps(status).encode(), retain=not self._proven)
        self._status_at = time.monotonic() + STATUS_INTERVAL

    def _add_statement(self, status: dict[str, Any]) -> None:
        hub, look = self.config.hub, self._files.look()
        if self._statement is None or self._statement[0] != look:
            try:
                statement = key_statement(self._key, self.config.site, hub.certificate, hub.key)
            except IdentityError as error:
                self._faults.report("identity", str(error), "the identity role has to be run again")
                return
            self._faults.over("identity")
            self._statement = look, statement
        status["key"] = self._statement[1]

    def _say_goodbye(self) -> None:
        self._drop_successor()
        if self._link is None:
            return
        if self._up:
            message = self._link.publish("status", json.dumps(self._status("offline")).encode(), retain=True)
            deadline = time.monotonic() + GOODBYE_PATIENCE
            while not self._is_said(message):
                patience = deadline - time.monotonic()
                if patience <= 0:
                    break
                self._wait(patience)
        if self._link is not None:
            self._link.close()

    def _is_said(self, message: int) -> bool:
        """Serve the link; whether the broker has a message, or never will."""
        if self._link is None:
            return True
        for event in self._link.service():
            if isinstance(event, Committed):
                self._on_committed(event)
            if isinstance(event, Down) or (isinstance(event, Acked) and event.message == message):
                return True
        return False

    # Batches.

    def _seal(self, now: float) -> None:
        """Seal what is due; a lonely reading is sealed once it has waited for the interval."""
        rules = self.config.batch
        if self._buffer.replaced():
            raise BufferReplacedError("it was put aside by the polling service")
        self._look_at = now + min(max(rules.interval / LOOKS, SHORTEST_LOOK), LONGEST_LOOK)
        for _ in range(SEALS_PER_ROUND):
            if not self._seal_one():
                break
        else:
            # Readings of an outage of this service: there are more than come live.
            self._look_at = now
            self._delivery.move_mark(self._newest)
        oldest = self._buffer.oldest_reading()
        if oldest is None:
            self._oldest = None
        elif self._oldest is None or self._oldest[0] != oldest:
            self._oldest = (oldest, now)
        elif now - self._oldest[1] >= rules.interval:
            self._seal_one(flush=True)

    def _seal_one(self, *, flush: bool = False) -> bool:
        rules = self.config.batch
        sealed = self._buffer.seal(
            self.config.site, self._key, rules.interval, rules.max_readings, flush=flush
        )
        if sealed is not None:
            self._newest = sealed.sequence
            self._freed = 0
        return sealed is not None

    def _send(self, now: float) -> None:
        if not self._up or self._link is None:
            return
        if now >= self._status_at:
            self._publish_status()
        if self._freed >= SETTLE:
            self._buffer.settle()
            self._freed = 0
        if self._delivery.live_cursor < self._newest:
            room = self._delivery.live_room(now)
            for stored in self._buffer.batches(self._delivery.live_cursor, room):
                if not self._link.has_room:
                    return
                self._hand_over(self._link, stored, now)
        for sequence in self._delivery.overdue(now):
            if not self._link.has_room:
                return
            again = self._buffer.batch(sequence)
            if again is None:
                self._delivery.forget(sequence)
            else:
                self._hand_over(self._link, again, now)
        self._send_backlog(self._link, now)
        if now - self._heard >= SILENCE and self._delivery.next_due() is not None:
            cause = "energy-ingest is down, or it does not trust our key: look at its journal"
            self._faults.report("hub", "connected, but it acknowledges nothing", cause)

    def _has_backlog(self) -> bool:
        return self._waiting is not None or self._delivery.has_backlog

    def _send_backlog(self, link: Link, now: float) -> None:
        while link.has_room and self._has_backlog():
            wait = self._delivery.backlog_wait(now)
            if wait is None or wait > 0:
                # An acknowledgement makes room, and wakes us.
                self._backlog_at = now + (LOOK_INTERVAL if wait is None else wait)
                return
            if self._waiting is None:
                found = self._buffer.batches(self._delivery.backlog_cursor, 1)
                if not found or not self._delivery.is_backlog(found[0].sequence):
                    self._delivery.end_backlog()
                    return
                if self._delivery.is_under_way(found[0].sequence):
                    self._delivery.skip(found[0].sequence)
                    continue
                self._waiting = found[0]
            self._hand_over(link, self._waiting, now)
            self._waiting = None

    def _hand_over(self, link: Link, stored: Stored, now: float) -> None:
        message = 0
        if link.fits(stored.data):
            message = link.publish("batch", stored.data)
        else:
            text = f"refuses batches as large as number {stored.sequence}, {len(stored.data)} bytes"
            self._faults.report("broker", text, "its max_packet_size is too small for batch.max_readings")
        self._delivery.sent(stored.sequence, stored.readings, len(stored.data), message, now, _now())

    def _on_witnessed(self, event: Witnessed) -> None:
        try:
            if self._witnesses.take(event.payload, self._generation) and self._witnesses.holds_only_one:
                # The hub proves the next one from what our status names; what it last named is none, or of before.
                self._publish_status()
        except RefusedError as error:
            cause = "the hub's database was changed or set back; compare with energy-audit verify"
            self._faults.report("witness", f"refused: {error}", cause)
        except OSError as error:
            cause = "the disk is full, read-only or failing"
            self._faults.report("witness", f"cannot be kept: {error.strerror}", cause)
        else:
            self._faults.over("witness")

    def _on_received(self, event: Acked) -> None:
        if event.reason:
            cause = "the broker's access list does not fit the common name of our certificate"
            self._faults.report("broker", f"refuses a message: {event.reason}", cause)
        else:
            self._faults.over("broker")
        self._delivery.received(event.message, time.monotonic(), None if event.reason else _now())

    def _on_committed(self, event: Committed) -> None:
        try:
            ack = acknowledgement.parse(event.payload)
        except ValueError as error:
            self._faults.report("acknowledgement", f"is none: {error}", "the hub runs another version")
            return
        if ack.stream != self._stream:
            # Of a buffer that this gateway had before.
            return
        self._faults.over("acknowledgement")
        self._backoff.reset()
        self._heard = time.monotonic()
        self._delivery.heard(self._newest, self._heard)
        try:
            freed = self._buffer.free(ack.watermark, ack.ranges)
            if ack.generation and ack.generation != self._generation:
                self._follow(ack)
        except sqlite3.Error as error:
            self._faults.report(
                "buffer", f"cannot be written: {error}", "the disk is full, read-only or failing"
            )
            return
        self._faults.over("hub")
        self._freed += len(freed)
        now = _now()
        lines = []
        for sequence, readings in freed:
            known = self._delivery.forget(sequence)
            # Of one that was under way the hub has just checked the signature.
            self._proven = self._proven or known is not None
            sent, puback = (known.sent, known.puback) if known else (None, None)
            lines.append(line(now, self._stream, sequence, readings, sent, puback))
        if not lines:
            return  # nothing was written, which says nothing about the log
        try:
            self._telemetry.write(lines)
        except OSError as error:
            cause = "the folder is missing or belongs to someone else, or the disk is full"
            self._faults.report("telemetry log", f"{self.config.telemetry_log}: {error.strerror}", cause)
        else:
            self._faults.over("telemetry log")

    def _follow(self, ack: acknowledgement.Acknowledgement) -> None:
        """Another database answers than before: what it lacks and is kept here goes again."""
        batches, readings = self._buffer.set_back(ack.generation, ack.watermark, ack.ranges)
        self._generation = ack.generation
        if not batches:
            return
        log.warning(
            "hub: its database was set back or replaced: %d batches with %d readings that it had are sent again",
            batches,
            readings,
        )
        now = time.monotonic()
        start = random.uniform(0, self.config.delivery.backlog_start)  # noqa: S311  (spread, not secrecy)
        self._delivery.connected(self._newest, now, start)
        self._waiting = None
        self._backlog_at = now
        self._publish_status()

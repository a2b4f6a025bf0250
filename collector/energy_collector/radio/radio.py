# SPDX-License-Identifier: Apache-2.0
"""A radio: one Zigbee or LoRaWAN server, heard on its MQTT broker.

The broker keeps our session while we are away, so that what a server publishes with QoS 1 waits for us. A message is
confirmed once its readings can no longer be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from energy_collector import mqtt
from energy_collector.batches.varint import FormatError
from energy_collector.clock import SourceClock
from energy_collector.config import RadioConfig
from energy_collector.journal import Faults, log
from energy_collector.radio import servers
from energy_collector.radio.meter import COUNTED, REMEMBERED, Flags, RadioMeter
from energy_collector.reading import Record

CONNECT_TIMEOUT = 10.0
# s without a word after which the broker is asked whether it is there, and how long it may take to answer.
KEEPALIVE = 30
PATIENCE = 10.0
# s between two tries: doubled from the first to the last.
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
# s that the broker keeps our session: a night without the collector.
SESSION = 86400
READ_SIZE = 64 << 10
SUBSCRIPTION = 1
# Devices that are no meters of the site are named so many times; all are counted.
MOST_NAMED = 32


class _RefusedError(OSError):
    """The broker says no. `strerror` is the line, `cause` what it means."""

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(0, text)
        self.cause = cause


class Radio:
    """One radio of the configuration and its meters. `newest` is the time (ms) that a point has reached."""

    def __init__(
        self,
        site: str,
        config: RadioConfig,
        clock: SourceClock,
        floor: int,
        sink: Callable[[list[Record]], None],
        faults: Faults,
    ) -> None:
        self.config = config
        self.connected = False
        self.last_error: str | None = None
        self.counts = dict.fromkeys((*COUNTED, "connects"), 0)
        self._client = f"wattfleet-{site}-{config.name}"
        self._sink = sink
        self._faults = faults
        self._subject = f"radio {config.name}"
        self._server = servers.make(config)
        self.meters = [
            RadioMeter(one, self._server, clock, floor, self.counts, faults) for one in config.meters
        ]
        self._by_device = {self._server.device(one.config.device): one for one in self.meters}
        self._unknown: set[str] = set()
        # Whether the server itself says that it runs; what says nothing does.
        self._server_runs = True
        self._is_subscribed = False
        self._heard = 0.0

    async def run(self) -> None:
        """Listen until cancelled."""
        wait = FIRST_WAIT
        while True:
            try:
                await self._connection()
            except (OSError, FormatError, asyncio.TimeoutError) as error:
                self._tell(error)
            if self.connected:
                wait = FIRST_WAIT
            self.connected = False
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def tick(self) -> None:
        """About once a second: what is silent becomes null."""
        connected = self.connected and self._server_runs
        found = [one for meter in self.meters for one in meter.tick(connected=connected)]
        if found:
            self._sink(found)

    # The connection.

    async def _connection(self) -> None:
        """Connect, and take messages until the connection ends, which raises OSError, TimeoutError or FormatError."""
        opening = asyncio.open_connection(self.config.host, self.config.port, limit=READ_SIZE)
        reader, writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT)
        try:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(KEEPALIVE * 1000))
            writer.write(
                mqtt.connect(
                    self._client, KEEPALIVE, login=self._login(), session=SESSION, in_flight=REMEMBERED
                )
            )
            await self._listen(reader, writer)
        finally:
            with contextlib.suppress(OSError):
                writer.write(mqtt.disconnect())
            writer.close()

    def _login(self) -> tuple[str, str] | None:
        return None if self.config.user is None else (self.config.user, self.config.password or "")

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter = mqtt.Splitter()
        self._is_subscribed = False
        last_ping = time.monotonic()
        waiting = PATIENCE
        while True:
            try:
                data = await asyncio.wait_for(reader.read(READ_SIZE), waiting)
            except asyncio.TimeoutError:
                if waiting == PATIENCE:
                    raise
                data = None
            if data == b"":
                raise ConnectionError("the broker has hung up")
            for packet in splitter.feed(data or b""):
                writer.write(self._take(packet))
            # Also while messages keep coming: the broker waits for a word of ours.
            if self._is_subscribed and (data is None or time.monotonic() - last_ping >= KEEPALIVE):
                writer.write(mqtt.ping())
                last_ping = time.monotonic()
                waiting = PATIENCE
            else:
                waiting = KEEPALIVE if self._is_subscribed else PATIENCE
            await writer.drain()
            # A flood of messages leaves the buses their turns.
            await asyncio.sleep(0)

    def _take(self, packet: mqtt.Packet) -> bytes:
        """What to answer to a packet."""
        if packet.kind == mqtt.PUBLISH:
            message = mqtt.read_publish(packet.flags, packet.body)
            flags = Flags(bool(packet.flags & mqtt.RETAINED), bool(packet.flags & mqtt.REPEATED))
            self._on_message(message.topic, message.payload, flags)
            return b"" if message.number is None else mqtt.puback(message.number)
        if packet.kind == mqtt.CONNACK:
            code = mqtt.read_connack(packet.body).reason
            if code >= mqtt.FAILURE:
                cause = "user or password is wrong, or the broker wants one"
                raise _RefusedError(f"the broker refuses: {mqtt.reason(code)}", cause)
            topics = self._server.topics(self._by_device)
            return mqtt.subscribe(SUBSCRIPTION, *topics, qos=1)
        if packet.kind == mqtt.SUBACK:
            self._on_suback(packet.body)
            return b""
        if packet.kind == mqtt.DISCONNECT:
            code = mqtt.read_disconnect(packet.body)
            cause = "it was stopped, or another client uses our name"
            raise _RefusedError(f"the broker ends the connection: {mqtt.reason(code)}", cause)
        if packet.kind != mqtt.PINGRESP:
            raise FormatError(f"packet type {packet.kind}")
        return b""

    def _on_suback(self, body: bytes) -> None:
        topics = self._server.topics(self._by_device)
        for topic, code in zip(topics, mqtt.read_suback(body, len(topics)), strict=True):
            if code >= mqtt.FAILURE:
                cause = "the broker's access list does not give us the topic"
                raise _RefusedError(f"the broker refuses {topic}: {mqtt.reason(code)}", cause)
        self._is_subscribed = self.connected = True
        self.counts["connects"] += 1
        self._faults.over(self._subject)

    def _tell(self, error: Exception) -> None:
        text, cause = str(error), "the broker is down, or its address is another one"
        if isinstance(error, _RefusedError):
            text, cause = error.strerror or "", error.cause
        elif isinstance(error, FormatError):
            text, cause = f"the broker does not speak MQTT 5: {error}", "the port is that of something else"
        elif isinstance(error, asyncio.TimeoutError):
            text = "the broker does not answer"
        elif isinstance(error, OSError) and error.strerror:
            text = error.strerror
        self.last_error = text
        self._faults.report(self._subject, text, cause)

    # Messages.

    def _on_message(self, topic: str, payload: bytes, flags: Flags) -> None:
        self.counts["messages"] += 1
        heard = self._server.heard(topic)
        if heard is None:
            return
        if heard.kind == servers.SERVER:
            self._server_runs = servers.is_online(payload) is not False
            return
        meter = self._by_device.get(heard.device)
        if meter is None:
            self._on_unknown(heard.device)
        elif heard.kind == servers.AVAILABILITY:
            if servers.is_online(payload) is False:
                meter.gone()
        else:
            records = meter.take(payload, flags)
            if records:
                self._sink(records)

    def _on_unknown(self, device: str) -> None:
        self.counts["unknown"] += 1
        if device not in self._unknown and len(self._unknown) < MOST_NAMED:
            self._unknown.add(device)
            log.info(
                "%s: %r is no meter of this site, its messages are not taken", self._subject, device[:64]
            )

    # What others ask.

    def status(self) -> dict[str, Any]:
        """What the control socket tells of it."""
        return {
            "name": self.config.name,
            "type": self.config.type,
            "connected": self.connected,
            "last_error": self.last_error,
        }

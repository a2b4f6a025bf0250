# SPDX-License-Identifier: Apache-2.0
"""Simulated radio meters: publishes what zigbee2mqtt and ChirpStack v4 would, on a broker that runs already.

    python -m wattfleet_lab.radio --port 1883 --every 5

Formats: docs/guide/usage/mqtt_topics_and_messages.md of Koenkk/zigbee2mqtt.io; src/chirpstack/integrations/events.md
and mqtt.md of chirpstack/chirpstack-docs.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE = 30.0
APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"


class Truth(NamedTuple):
    """What a reading of the collector has to be. `point` is the short name, `time` ms UTC."""

    point: str
    time: int
    value: float


class Message(NamedTuple):
    """A message, and the readings that are in it."""

    topic: str
    payload: bytes
    truth: tuple[Truth, ...]


@dataclass
class Plug:
    """A Zigbee plug behind zigbee2mqtt; profile zigbee2mqtt-plug."""

    name: str
    base: str = "zigbee2mqtt"
    counted: int = 0  # W.h
    last_seen: str = "ISO_8601"

    @property
    def topic(self) -> str:
        """Of its state."""
        return f"{self.base}/{self.name}"

    def message(self, moment: int, power: float) -> Message:
        """Its state at a time in ms."""
        self.counted += 1
        state: dict[str, Any] = {
            "state": "ON",
            "power": power,
            "energy": self.counted / 1000,
            "voltage": 230.5,
            "linkquality": 120,
            "update": {"state": "idle"},
            "last_seen": _written(moment, self.last_seen),
        }
        found = ("active_power", power), ("energy_import", float(self.counted)), ("voltage_l1", 230.5)
        truth = tuple(Truth(name, moment, value) for name, value in (*found, ("link_quality", 120.0)))
        return Message(self.topic, json.dumps(state).encode(), truth)

    def availability(self, *, online: bool) -> Message:
        """What zigbee2mqtt says of it, to be published with `retain`."""
        payload = json.dumps({"state": "online" if online else "offline"}).encode()
        return Message(f"{self.topic}/availability", payload, ())


@dataclass
class Socket:
    """A Milesight WS523 behind ChirpStack; profile milesight-ws523."""

    eui: str
    counted: int = 0  # W.h
    frames: int = 0
    address: str = field(default="00189440")

    @property
    def topic(self) -> str:
        """Of its up-links."""
        return f"application/{APPLICATION}/device/{self.eui}/event/up"

    def message(self, moment: int, power: float) -> Message:
        """An up-link that was received at a time in ms."""
        self.counted += 1
        event: dict[str, Any] = {
            "deduplicationId": str(uuid.uuid4()),
            # Nanoseconds, as ChirpStack writes them; what is below a ms is cut.
            "time": _written(moment, "ISO_8601").replace("Z", "775023+00:00"),
            "deviceInfo": {"applicationId": APPLICATION, "devEui": self.eui, "deviceName": "socket"},
            "devAddr": self.address,
            "adr": True,
            "dr": 5,
            "fPort": 85,
            "data": "AQ==",
            "object": {
                "active_power": int(power),
                "power_consumption": self.counted,
                "voltage": 229.9,
                "current": 74,
                "power_factor": 98,
                "socket_status": "on",
            },
            "rxInfo": [{"gatewayId": "0016c001f153a14c", "uplinkId": 4217106255, "rssi": -36, "snr": 10.5}],
            "txInfo": {"frequency": 867100000},
        }
        if self.frames:
            # JSON made of Protocol Buffers leaves out zero.
            event["fCnt"] = self.frames
        self.frames += 1
        values = {
            "active_power": float(int(power)),
            "energy_import": float(self.counted),
            "voltage_l1": 229.9,
            "current_l1": 0.074,
            "power_factor": 0.98,
            "signal_strength": -36.0,
            "signal_to_noise": 10.5,
        }
        truth = tuple(Truth(name, moment, value) for name, value in values.items())
        return Message(self.topic, json.dumps(event).encode(), truth)


def _written(moment: int, form: str) -> Any:
    if form == "epoch":
        return moment
    found = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment // 1000))
    return f"{found}.{moment % 1000:03d}Z"


GARBAGE = (
    b"",
    b"\x00\xff\xfe",
    b'{"power": ',
    b"[" * 30_000,
    b'{"power": "12.5", "object": 3',
    b"x" * 100_000,
    b"null",
)


class Publisher:
    """A client of the broker, as the servers are."""

    def __init__(self, port: int, host: str = "127.0.0.1", login: tuple[str, str] | None = None) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.on_publish = self._on_publish
        self._client.reconnect_delay_set(1, 1)
        self._confirmed: set[int] = set()
        self._changed = threading.Condition()
        self._client.connect(host, port)
        self._client.loop_start()

    def _on_publish(self, _client: Any, _userdata: Any, number: int, *_: Any) -> None:
        with self._changed:
            self._confirmed.add(number)
            self._changed.notify_all()

    def publish(self, message: Message, *, retain: bool = False) -> None:
        """With QoS 1, and waited for: the broker has it. While the broker is away, the client keeps the message."""
        number = self._client.publish(message.topic, message.payload, qos=1, retain=retain).mid
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._confirmed, PATIENCE):
                raise TimeoutError(f"the broker has not confirmed a message for {PATIENCE:g} s")
            self._confirmed.discard(number)

    def raw(self, topic: str, payload: bytes) -> None:
        """Anything at all."""
        self.publish(Message(topic, payload, ()))

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


def wave(start: float = 100.0) -> Iterator[float]:
    """Powers that differ from each other."""
    power = start
    while True:
        yield round(power, 1)
        power = start + (power - start + 7.3) % 900


def main() -> None:
    """Publish for as long as it runs."""
    parser = argparse.ArgumentParser(description="Publish what a Zigbee plug and a LoRaWAN socket would say.")
    parser.add_argument("--host", default="127.0.0.1", help="the broker's address")
    parser.add_argument("--port", type=int, default=1883, help="the broker's port")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="seconds between messages")
    parser.add_argument("--plug", default="plug-1", help="the plug's friendly name")
    parser.add_argument("--eui", default="24e124148b000001", help="the socket's DevEUI")
    options = parser.parse_args()
    publisher = Publisher(options.port, options.host)
    plug, socket = Plug(options.plug), Socket(options.eui)
    publisher.raw("zigbee2mqtt/bridge/state", b'{"state":"online"}')
    publisher.publish(plug.availability(online=True), retain=True)
    try:
        for power in wave():
            moment = int(time.time() * 1000)
            for message in (plug.message(moment, power), socket.message(moment, power)):
                publisher.publish(message)
                print(f"{message.topic} {message.payload.decode()}", flush=True)
            time.sleep(options.every)
    except KeyboardInterrupt:
        publisher.close()


if __name__ == "__main__":
    main()

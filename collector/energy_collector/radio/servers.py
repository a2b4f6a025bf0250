# SPDX-License-Identifier: Apache-2.0
"""The servers' topics, and what is around a device's own fields in a message.

zigbee2mqtt: docs/guide/usage/mqtt_topics_and_messages.md of Koenkk/zigbee2mqtt.io; lib/controller.ts and
lib/extension/availability.ts of Koenkk/zigbee2mqtt 2.12.1. ChirpStack v4: src/chirpstack/integrations/mqtt.md and
events.md of chirpstack/chirpstack-docs; api/proto/integration/integration.proto of chirpstack/chirpstack.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

from energy_collector.config import RadioConfig

# What a topic is about.
MESSAGE, AVAILABILITY, SERVER = "message", "availability", "server"
# A state is a word, or an object with one.
MAX_STATE = 200


class Heard(NamedTuple):
    """What a topic is about, and which device; the server's own state has none."""

    kind: str
    device: str


class Uplink(NamedTuple):
    """What tells a LoRaWAN frame from any other: `number` is its counter within the session of `address`."""

    identity: str
    address: str
    number: int


class Server(ABC):
    """One kind of server."""

    @abstractmethod
    def topics(self, devices: Iterable[str]) -> list[str]:
        """What to subscribe to."""

    @abstractmethod
    def heard(self, topic: str) -> Heard | None:
        """What a topic is about; None for one that is no business of ours."""

    def device(self, name: str) -> str:
        """A device's name as topics have it."""
        return name

    def uplink(self, document: dict[str, Any]) -> Uplink | None:  # noqa: ARG002  (Zigbee has no such thing)
        """The frame that a message is of, where it says so."""
        return None


class Zigbee2Mqtt(Server):
    """`<base>/<friendly name>`; the availability is retained."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._state = f"{base}/bridge/state"

    def topics(self, devices: Iterable[str]) -> list[str]:
        """All devices, so that those which nobody has named are noticed. A name may have slashes in it."""
        names = ["+", *sorted(name for name in devices if "/" in name)]
        found = [f"{self._base}/{name}{end}" for name in names for end in ("", "/availability")]
        return [*found, self._state]

    def heard(self, topic: str) -> Heard | None:
        """The state of the bridge, of a device, or the availability of one."""
        if not topic.startswith(f"{self._base}/"):
            # Of a subscription that the broker has kept from before: the base topic is another one now.
            return None
        if topic == self._state:
            return Heard(SERVER, "")
        name = topic[len(self._base) + 1 :]
        if name.endswith("/availability"):
            return Heard(AVAILABILITY, name[: -len("/availability")])
        return Heard(MESSAGE, name)


class ChirpStack(Server):
    """`application/<application>/device/<DevEUI>/event/up`."""

    def __init__(self, application: str) -> None:
        self._application = application or "+"

    def topics(self, devices: Iterable[str]) -> list[str]:  # noqa: ARG002  (all of the application)
        """All devices of the application."""
        return [f"application/{self._application}/device/+/event/up"]

    def heard(self, topic: str) -> Heard | None:
        """An up-link of a device."""
        parts = topic.split("/")
        if len(parts) != 6 or parts[5] != "up" or self._application not in ("+", parts[1]):
            return None
        return Heard(MESSAGE, self.device(parts[3]))

    def device(self, name: str) -> str:
        """DevEUIs are written in either case."""
        return name.lower()

    def uplink(self, document: dict[str, Any]) -> Uplink | None:
        """JSON made of Protocol Buffers leaves out what is zero, the counter of the first frame too."""
        counter, address = document.get("fCnt", 0), document.get("devAddr", "")
        if type(counter) is not int:
            counter = 0
            address = ""
        return Uplink(str(document.get("deduplicationId", ""))[:64], str(address)[:16], counter)


def make(config: RadioConfig) -> Server:
    """The server of a radio."""
    return Zigbee2Mqtt(config.topic) if config.type == "zigbee2mqtt" else ChirpStack(config.application)


def is_online(payload: bytes) -> bool | None:
    """A state that zigbee2mqtt tells of itself or a device; None for what is none. Before version 2 it was a word."""
    text = payload[:MAX_STATE].decode("utf-8", "replace").strip()
    if text.startswith("{") and len(payload) <= MAX_STATE:
        try:
            text = str(json.loads(payload).get("state"))
        except (ValueError, RecursionError):
            return None
    return {"online": True, "offline": False}.get(text)

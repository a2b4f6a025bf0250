# SPDX-License-Identifier: Apache-2.0
"""What a payload file says: which fields of a model's messages are which points.

The format is described in docs/reference/payloads.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from energy_collector.meters.profile import point_name

# Who publishes the messages, and with that what is around the device's own fields.
SERVERS = ("zigbee2mqtt", "chirpstack")
FORMATS = ("auto", "iso", "epoch_ms", "epoch_s")

# Keys of mappings and places in lists, from the message's root.
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Moment:
    """The field with the time of the measurement."""

    path: Path
    format: str = "auto"


# zigbee2mqtt: the setting advanced.last_seen. ChirpStack: when the gateway has received the frame.
TIMES = {"zigbee2mqtt": Moment(("last_seen",)), "chirpstack": Moment(("time",), "iso")}


@dataclass(frozen=True)
class PayloadPoint:
    """A quantity in the messages: the value is number x `scale` + `offset`. `flow` marks what changes its sign with the
    direction."""

    name: str
    unit: str
    path: Path
    decimals: int
    scale: float = 1.0
    offset: float = 0.0
    flow: bool = False
    valid: tuple[float, float] | None = None


@dataclass(frozen=True)
class Payload:
    """The messages of a model. `interval` (s) is how often at least a device reports; `view` tells what it counts as
    positive: `load` what it takes (the site's view), `source` what it gives."""

    name: str
    model: str
    source: str
    server: str
    interval: float
    time: Moment
    points: tuple[PayloadPoint, ...]
    view: str = "load"

    def point_names(self, *, reverse: bool) -> list[str]:
        """All points that a meter of this model can deliver, by the names that they get."""
        return [point_name(point.name, reverse=reverse) for point in self.points]

# SPDX-License-Identifier: Apache-2.0
"""The same readings as other tools send them: one message with all that a number of polls brought.

- Influx line protocol: a line a meter and poll, fields by name, time in ns (InfluxData, line protocol
  reference; Telegraf's `data_format = "influx"`).
- JSON as Telegraf's `data_format = "json"` makes it with `layout = "batch"`.
- Sparkplug B (Eclipse Sparkplug 3.0.0, section 6.4): a protobuf Payload. Metrics have an alias in place of their
  name, which the birth certificate gives once, a timestamp as the standard asks, and no data type; values are
  float where that holds them exactly, else double. This is the shortest form that the standard allows.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from energy_collector.reading import Record

Polls = Sequence[list[Record]]
TOPIC = "spBv1.0/plant-a/NDATA/gateway"


def influx(polls: Polls) -> bytes:
    lines = []
    for records in polls:
        for one in records:
            meter = one.layout.points[0].split("/")[0]
            names = (point.split("/")[1] for point in one.layout.points)
            fields = ",".join(f"{name}={value:.10g}" for name, value in zip(names, one.values, strict=True))
            lines.append(f"energy,site=plant-a,meter={meter} {fields} {one.time}000000\n")
    return "".join(lines).encode()


def telegraf_json(polls: Polls) -> bytes:
    metrics = []
    for records in polls:
        for one in records:
            meter = one.layout.points[0].split("/")[0]
            names = (point.split("/")[1] for point in one.layout.points)
            fields = dict(zip(names, one.values, strict=True))
            tags = {"meter": meter, "site": "plant-a"}
            metrics.append({"fields": fields, "name": "energy", "tags": tags, "timestamp": one.time // 1000})
    return json.dumps({"metrics": metrics}, separators=(",", ":")).encode()


class Sparkplug:
    """Keeps the aliases and the sequence number, as the standard asks."""

    def __init__(self) -> None:
        self._aliases: dict[str, int] = {}
        self._sequence = 0

    def __call__(self, polls: Polls) -> bytes:
        out = bytearray(_field(1, polls[-1][-1].time))
        for records in polls:
            for one in records:
                for point, value in zip(one.layout.points, one.values, strict=True):
                    alias = self._aliases.setdefault(point, len(self._aliases))
                    metric = _field(2, alias) + _field(3, one.time) + _number(value)
                    out += _varint(2 << 3 | 2) + _varint(len(metric)) + metric
        self._sequence = (self._sequence + 1) % 256
        return bytes(out + _field(3, self._sequence))


def _number(value: float) -> bytes:
    packed = struct.pack("<f", value)
    if float(f"{struct.unpack('<f', packed)[0]:.7g}") == value:
        return _varint(12 << 3 | 5) + packed
    return _varint(13 << 3 | 1) + struct.pack("<d", value)


def _field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

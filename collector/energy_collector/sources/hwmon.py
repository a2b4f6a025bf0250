# SPDX-License-Identifier: Apache-2.0
"""Temperatures, voltages, currents, powers and fans that the kernel knows of, from /sys/class/hwmon.

Names and units of the files: the kernel's Documentation/hwmon/sysfs-interface.rst.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

from energy_collector import quality
from energy_collector.reading import Layout, Record, record
from energy_collector.sources.source import Source, Stamp

ROOT = Path("/sys/class/hwmon")

INPUT = re.compile(r"(temp|in|curr|power|fan)(\d+)_(?:input|average)")


class _Kind(NamedTuple):
    unit: str
    divisor: int
    decimals: int


KINDS = {
    "temp": _Kind("Cel", 1000, 2),
    "in": _Kind("V", 1000, 3),
    "curr": _Kind("A", 1000, 3),
    "power": _Kind("W", 1_000_000, 3),
    "fan": _Kind("/min", 1, 0),
}


class _Sensor(NamedTuple):
    """A sensor by what stays the same when the kernel numbers its chips anew: device and channel."""

    device: str
    channel: str


class _Found(NamedTuple):
    """A sensor that is there now."""

    chip: str
    label: str
    file: Path


class HwmonSource(Source):
    """All sensors of the host. One that was there and is gone is null."""

    def __init__(self, interval: float, root: Path = ROOT) -> None:
        super().__init__("hwmon", interval)
        self._root = root
        self._names: dict[_Sensor, str] = {}
        self._layout = Layout((), ())

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """One for all sensors, another one when a sensor has come."""
        return (self._layout,) if self._layout.points else ()

    async def read(self, stamp: Stamp) -> list[Record]:
        """Read all sensors."""
        moment = stamp()
        # A sensor behind a slow line (I2C, a disk) takes its time.
        values = await asyncio.get_running_loop().run_in_executor(None, self._read)
        return [record(self._layout, moment, values)] if values else []

    def _read(self) -> list[tuple[float | None, int]]:
        found = self._scan()
        new = sorted(found.keys() - self._names.keys())
        if new:
            self._name(new, found)
            units = [KINDS[_kind(sensor.channel)].unit for sensor in self._names]
            self._layout = Layout(tuple(self._names.values()), tuple(units))
        return [
            _value(found[sensor].file, sensor.channel) if sensor in found else (None, quality.BAD_SENSOR)
            for sensor in self._names
        ]

    def _scan(self) -> dict[_Sensor, _Found]:
        found: dict[_Sensor, _Found] = {}
        try:
            folders = sorted(self._root.iterdir())
        except OSError:
            # A kernel without hwmon has no sensors; that is no fault.
            return found
        for folder in folders:
            try:
                chip = (folder / "name").read_text(encoding="ascii").strip()
                device = folder / "device"
                # A chip without a device, as those of the thermal zones in a container, has its name only.
                identity = device.resolve().name if device.exists() else chip
                names = sorted(file.name for file in folder.iterdir())
            except (OSError, UnicodeDecodeError):
                continue  # it has gone while we looked, or has no name: no sensor of ours either way
            for name in names:
                match = INPUT.fullmatch(name)
                if match is None:
                    continue
                channel = match[1] + match[2]
                label = _text(folder / f"{channel}_label") or channel
                # Of power meters that have both, the input is the newer value and sorts later.
                found[_Sensor(identity, channel)] = _Found(chip, label, folder / name)
        return found

    def _name(self, new: list[_Sensor], found: dict[_Sensor, _Found]) -> None:
        """Names for sensors that are new. One that has a name keeps it, also when another chip of its kind comes."""
        devices: dict[str, set[str]] = {}
        for sensor, one in found.items():
            devices.setdefault(one.chip, set()).add(sensor.device)
        taken = set(self._names.values())
        for sensor in new:
            chip, label, _ = found[sensor]
            several = len(devices[chip]) > 1
            name = f"hwmon/{_sanitized(f'{chip}-{sensor.device}' if several else chip)}-{_sanitized(label)}"
            same = [other for other in found if other.device == sensor.device and found[other].label == label]
            if len(same) > 1 or name in taken:
                name += f"-{sensor.channel}"
            if name in taken:
                name += f"-{_sanitized(sensor.device)}"
            taken.add(name)
            self._names[sensor] = name


def _kind(channel: str) -> str:
    return channel.rstrip("0123456789")


def _sanitized(text: str) -> str:
    """Lower-case letters, digits and single hyphens, as names of meters are."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _value(file: Path, channel: str) -> tuple[float | None, int]:
    """A sensor's value. A faulty one, and one that its driver cannot read, is null."""
    kind = KINDS[_kind(channel)]
    if _text(file.with_name(f"{channel}_fault")) == "1":
        return None, quality.BAD_SENSOR
    try:
        raw = int(_text(file))
    except ValueError:
        return None, quality.BAD_SENSOR
    return round(raw / kind.divisor, kind.decimals) + 0.0, quality.GOOD

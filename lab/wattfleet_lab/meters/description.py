# SPDX-License-Identifier: Apache-2.0
"""The description of what is simulated: sites, their listeners, and the units behind each. See README.md."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

MODELS = (
    "advantech-adam-6017",
    "carlo-gavazzi-em24",
    "eastron-sdm630",
    "sunspec-battery",
    "sunspec-inverter",
)
ROLES = ("main", "consumption", "generation", "storage", "process")
SIGNALS = ("4-20mA", "0-10V")
DEFAULT_EPOCH = "2026-01-01T00:00:00Z"

_OPTIONS: dict[str, tuple[float, float]] = {  # numeric options and their bounds, inclusive
    "peak_power": (100, 1e8),
    "capacity": (100, 1e9),
    "power": (100, 1e8),
    "share": (0.001, 1000),
    "nominal_voltage": (50, 500_000),
}
_TEXT_OPTIONS = ("manufacturer", "product", "serial")


class DescriptionError(ValueError):
    """The description is not usable; the message is one line that says where and what would be right."""


@dataclass(frozen=True)
class Channel:
    """One analogue input: `input` counts from 1; low and high are the values at the ends of the signal."""

    name: str
    input: int
    signal: str
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Unit:
    """One Modbus unit. ct and pt are the transformer ratios the device is NOT programmed with (1.0 for
    none).
    """

    unit: int
    model: str
    name: str
    role: str
    ct: float
    pt: float
    channels: tuple[Channel, ...]
    options: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Listener:
    """One TCP port. `delay` (s) and `baudrate` shape the answer time of the serial line behind it."""

    address: str
    port: int
    framing: str
    delay: float
    baudrate: int | None
    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Site:
    """One site; `source` is its part of the description in canonical JSON, equal when nothing has changed."""

    site: str
    netns: str | None
    seed: int
    timezone: str
    latitude: float
    mean_power: float | None
    listeners: tuple[Listener, ...]
    source: str

    def units(self) -> Iterator[Unit]:
        for listener in self.listeners:
            yield from listener.units


@dataclass(frozen=True)
class Description:
    """All sites, and the UTC instant (unix s) from which energies are counted."""

    sites: tuple[Site, ...]
    epoch: float
    source: str


def load(path: Path) -> Description:
    """Read and check a description file. Raises DescriptionError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DescriptionError(f"{path}: {error.strerror}") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DescriptionError(f"{path}: not JSON: {error}") from error
    try:
        return parse(document)
    except DescriptionError as error:
        raise DescriptionError(f"{path}: {error}") from None


def parse(document: object) -> Description:
    """Check a description that is already in memory. Raises DescriptionError."""
    top = _mapping(document, "description", {"sites"}, {"epoch"})
    epoch = _instant(top.get("epoch", DEFAULT_EPOCH), "epoch")
    sites: list[Site] = []
    for index, entry in enumerate(_list(top["sites"], "sites")):
        site = _site(entry, f"sites[{index}]")
        if any(site.site == other.site for other in sites):
            raise DescriptionError(f"sites[{index}]: site {site.site!r} occurs twice")
        sites.append(site)
    return Description(tuple(sites), epoch, _canonical(document))


def _site(entry: object, where: str) -> Site:
    keys = _mapping(
        entry, where, {"site", "seed", "timezone", "listeners"}, {"netns", "latitude", "mean_power"}
    )
    name = _text(keys["site"], f"{where}.site")
    where = f"site {name}"
    zone = _text(keys["timezone"], f"{where}: timezone")
    try:
        ZoneInfo(zone)
    except (KeyError, OSError, ValueError) as error:
        raise DescriptionError(f"{where}: timezone {zone!r} does not exist, Europe/Paris would") from error
    netns = keys.get("netns")
    if netns is not None:
        netns = _text(netns, f"{where}: netns")
    mean_power = keys.get("mean_power")
    listeners = tuple(
        _listener(item, f"{where}: listeners[{index}]")
        for index, item in enumerate(_list(keys["listeners"], f"{where}: listeners"))
    )
    site = Site(
        site=name,
        netns=netns,
        seed=_whole(keys["seed"], f"{where}: seed", 0, 2**63),
        timezone=zone,
        latitude=_number(keys.get("latitude", 46), f"{where}: latitude", -60, 60),
        mean_power=None if mean_power is None else _number(mean_power, f"{where}: mean_power", 100, 1e8),
        listeners=listeners,
        source=_canonical(entry),
    )
    names = [unit.name for unit in site.units()]
    ports = [listener.name for listener in listeners]
    for what, values in (("meter", names), ("listener", ports)):
        twice = sorted({value for value in values if values.count(value) > 1 and not value.endswith(":0")})
        if twice:
            raise DescriptionError(f"{where}: {what} {twice[0]!r} occurs twice")
    return site


def _listener(entry: object, where: str) -> Listener:
    keys = _mapping(entry, where, {"address", "port", "framing", "units"}, {"delay", "baudrate"})
    address = _text(keys["address"], f"{where}.address")
    try:
        ip_address(address)
    except ValueError as error:
        raise DescriptionError(f"{where}: address {address!r} is not an IP address") from error
    framing = _choice(keys["framing"], f"{where}.framing", ("tcp", "rtu"))
    default_delay = 0.005 if framing == "rtu" else 0.0
    baudrate = keys.get("baudrate")
    units = tuple(
        _unit(item, f"{where}.units[{index}]")
        for index, item in enumerate(_list(keys["units"], f"{where}.units"))
    )
    ids = [unit.unit for unit in units]
    for identifier in ids:
        if ids.count(identifier) > 1:
            raise DescriptionError(f"{where}: unit {identifier} occurs twice")
    return Listener(
        address=address,
        port=_whole(keys["port"], f"{where}.port", 0, 65535),
        framing=framing,
        delay=_number(keys.get("delay", default_delay), f"{where}.delay", 0, 60),
        baudrate=None if baudrate is None else _whole(baudrate, f"{where}.baudrate", 300, 10_000_000),
        units=units,
    )


def _unit(entry: object, where: str) -> Unit:
    keys = _mapping(entry, where, {"unit", "model", "name", "role"}, {"options"})
    model = _choice(keys["model"], f"{where}.model", MODELS)
    role = _choice(keys["role"], f"{where}.role", ROLES)
    allowed = {
        "sunspec-inverter": ("generation",),
        "sunspec-battery": ("storage",),
        "advantech-adam-6017": ("process",),
    }.get(model, ("main", "consumption", "generation", "storage"))
    if role not in allowed:
        raise DescriptionError(
            f"{where}: role {role!r} does not fit model {model}, {' or '.join(allowed)} would"
        )
    where = f"{where} ({keys['name']})"
    known = {*_OPTIONS, *_TEXT_OPTIONS, "ct_ratio", "pt_ratio", "channels", "diagnostics", "identification"}
    options = _mapping(keys.get("options", {}), f"{where}.options", set(), known)
    for name, (low, high) in _OPTIONS.items():
        if name in options:
            _number(options[name], f"{where}.options.{name}", low, high)
    for name in _TEXT_OPTIONS:
        if name in options:
            _text(options[name], f"{where}.options.{name}")
    if "diagnostics" in options:
        _choice(options["diagnostics"], f"{where}.options.diagnostics", ("none", "loopback", "counters"))
    if not isinstance(options.get("identification", False), bool):
        raise DescriptionError(f"{where}.options.identification: true or false is expected")
    if "channels" in options and model != "advantech-adam-6017":
        raise DescriptionError(f"{where}.options.channels: model {model} has no analogue inputs")
    return Unit(
        unit=_whole(keys["unit"], f"{where}.unit", 0, 255),
        model=model,
        name=_text(keys["name"], f"{where}.name"),
        role=role,
        ct=_ratio(options.get("ct_ratio", "1:1"), f"{where}.options.ct_ratio"),
        pt=_ratio(options.get("pt_ratio", "1:1"), f"{where}.options.pt_ratio"),
        channels=_channels(options.get("channels", {}), f"{where}.options.channels"),
        options=options,
    )


def _channels(entry: object, where: str) -> tuple[Channel, ...]:
    if not isinstance(entry, Mapping):
        raise DescriptionError(f"{where}: an object of channels by name is expected")
    channels: list[Channel] = []
    for name, item in entry.items():
        here = f"{where}.{name}"
        keys = _mapping(item, here, {"input", "signal", "low", "high", "unit"}, set())
        channel = Channel(
            name=_text(name, here),
            input=_whole(keys["input"], f"{here}.input", 1, 8),
            signal=_choice(keys["signal"], f"{here}.signal", SIGNALS),
            low=_number(keys["low"], f"{here}.low", -1e12, 1e12),
            high=_number(keys["high"], f"{here}.high", -1e12, 1e12),
            unit=_text(keys["unit"], f"{here}.unit"),
        )
        if channel.low >= channel.high:
            raise DescriptionError(f"{here}: low {channel.low} is not below high {channel.high}")
        if any(channel.input == other.input for other in channels):
            raise DescriptionError(f"{here}: input {channel.input} is used twice")
        channels.append(channel)
    return tuple(channels)


def _ratio(value: object, where: str) -> float:
    """`200:5` is 40.0."""
    try:
        primary, secondary = (float(part) for part in str(value).split(":"))
        if primary > 0 and secondary > 0:
            return primary / secondary
    except ValueError:
        pass
    raise DescriptionError(f"{where}: {value!r} is not a ratio, '200:5' would be")


def _instant(value: object, where: str) -> float:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise DescriptionError(f"{where}: {value!r} is not a time, {DEFAULT_EPOCH!r} would be") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _mapping(value: object, where: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise DescriptionError(f"{where}: an object is expected, found {type(value).__name__}")
    missing = sorted(required - value.keys())
    if missing:
        raise DescriptionError(f"{where}: {missing[0]!r} is missing")
    unknown = sorted(str(key) for key in value.keys() - required - optional)
    if unknown:
        known = ", ".join(sorted(required | optional))
        raise DescriptionError(f"{where}: unknown key {unknown[0]!r}, known are {known}")
    return dict(value)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DescriptionError(f"{where}: a list is expected, found {type(value).__name__}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise DescriptionError(f"{where}: a text is expected, found {value!r}")
    return value


def _choice(value: object, where: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise DescriptionError(f"{where}: {value!r} is unknown, known are {', '.join(choices)}")
    return str(value)


def _number(value: object, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DescriptionError(f"{where}: a number from {low:g} to {high:g} is expected, found {value!r}")
    return float(value)


def _whole(value: object, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DescriptionError(f"{where}: a whole number from {low} to {high} is expected, found {value!r}")
    return value

# SPDX-License-Identifier: Apache-2.0
"""Checks a configuration, and tells every fault.

The services do this in a child process (see aside): what a site does wrong is told once, and not kept in mind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from energy_collector import profiles, radio_file
from energy_collector.config import (
    BROKEN_WIRE_MA,
    ROLES,
    SOURCES,
    BatchConfig,
    BufferConfig,
    BusConfig,
    ChannelConfig,
    ClockConfig,
    Config,
    ConfigError,
    DeliveryConfig,
    HubConfig,
    MeterConfig,
    RadioConfig,
    SourceConfig,
)
from energy_collector.meters.profile import Profile
from energy_collector.section import NAME, Section, near

PROFILES = Path("/etc/energy/profiles")
PAYLOADS = Path("/etc/energy/payloads")
SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")
RATIO = re.compile(r"([1-9]\d*(?:\.\d+)?):([1-9]\d*(?:\.\d+)?)")
SIGNALS = ("4-20mA", "0-10V")
BUS_TYPES = ("modbus-tcp", "rtu-over-tcp", "rtu")
BAUDRATES = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)


def parse(data: Any) -> Config:
    """Check a document. Raises ConfigError with every fault."""
    faults: list[str] = []
    root = Section(data, "", faults)
    site = root.take("site", str)
    if site and not SITE.fullmatch(site):
        root.fault("site", f"{site!r} is not a name of lower-case letters, digits and hyphens, at most 39")
    interval = root.number("interval", float, 0.1, 3600, 10.0)
    buses = [_bus(section) for section in root.sections("buses")]
    own = profiles.own(_path(root, "profiles", PROFILES), faults)
    listed = root.sections("meters")
    meters = [_meter(section, interval, buses, own) for section in listed if "radio" not in section.data]
    radios = _radios(root, [section for section in listed if "radio" in section.data])
    _check_names(listed, faults)
    _check_unique(buses, meters, [one.path for one in listed if "radio" not in one.data], faults)
    radio_file.check_unique(radios, {one.name for one in buses}, faults)
    control_socket = _path(root, "control_socket", Config.control_socket)
    buffer = _buffer(root.section("buffer", required=False), control_socket)
    config = Config(
        site=site,
        interval=interval,
        buses=tuple(buses),
        meters=tuple(meters),
        hub=_hub(root.section("hub")),
        signing_key=_path(root, "signing_key", Config.signing_key),
        buffer=buffer,
        batch=_batch(root.section("batch", required=False), buffer.commit_interval),
        delivery=_delivery(root.section("delivery", required=False)),
        clock=_clock(root.section("clock", required=False)),
        telemetry_log=_path(root, "telemetry_log", Config.telemetry_log),
        control_socket=control_socket,
        device_mapping=_path(root, "device_mapping", Config.device_mapping),
        learned=_path(root, "learned", buffer.path.with_name("learned.json")),
        sources=_sources(root.section("sources", required=False)),
        metrics_port=_metrics_port(root.section("metrics", required=False)),
        radios=radios,
        heard=_path(root, "heard", buffer.path.with_name("heard.json")),
    )
    root.finish()
    if faults:
        raise ConfigError(faults)
    return config


def _radios(root: Section, meters: list[Section]) -> tuple[RadioConfig, ...]:
    folder = _path(root, "payloads", PAYLOADS)
    sections = root.sections("radios") if "radios" in root.data else []
    return radio_file.radios(sections, meters, folder)


def _path(section: Section, key: str, default: Path) -> Path:
    path = Path(section.take(key, str, str(default)))
    if not path.is_absolute():
        section.fault(key, f"{str(path)!r} is not an absolute path")
    return path


def _bus(section: Section) -> BusConfig:
    name = section.name()
    kind = section.choice("type", BUS_TYPES)
    timeout = section.number("timeout", float, 0.05, 30, 1.0)
    request_gap = section.number("request_gap", float, 0, 1, 0.0)
    if kind == "rtu":
        baudrate = section.take("baudrate", int, 9600)
        if baudrate not in BAUDRATES:
            section.fault("baudrate", f"{baudrate} is not one of {', '.join(map(str, BAUDRATES))}")
        bus = BusConfig(
            name,
            kind,
            device=str(_path(section, "device", Path("/dev"))),
            baudrate=baudrate,
            parity=section.choice("parity", ("N", "E", "O"), "N"),
            stopbits=section.number("stopbits", int, 1, 2, 1),
            timeout=timeout,
            request_gap=request_gap,
        )
        if "device" not in section.data:
            section.fault("device", "missing")
    else:
        host = section.take("host", str)
        bus = BusConfig(
            name,
            kind,
            host,
            section.number("port", int, 1, 65535, 502),
            timeout=timeout,
            request_gap=request_gap,
            connect_delay=section.number("connect_delay", float, 0, 10, 0.0),
            keepalive=section.number("keepalive", int, 1, 3600, BusConfig.keepalive),
            user_timeout=section.number("user_timeout", float, 0.5, 300, BusConfig.user_timeout),
            pipeline=section.number("pipeline", int, 1, 16, 1),
        )
        if bus.pipeline > 1 and kind != "modbus-tcp":
            section.fault("pipeline", "only answers on modbus-tcp can be told apart by their transaction")
    section.finish()
    return bus


def _meter(
    section: Section, interval: float, buses: list[BusConfig], own: Mapping[str, Profile]
) -> MeterConfig:
    bus = section.take("bus", str)
    kinds = {one.name: one.type for one in buses}
    if bus and bus not in kinds:
        section.fault("bus", f"{bus!r} is not one of the buses {', '.join(kinds) or '(there is none)'}")
    unit = section.take("unit", int)
    if (
        "unit" in section.data
        and not 1 <= unit <= 247
        and not (kinds.get(bus) == "modbus-tcp" and unit in (0, 255))
    ):
        section.fault("unit", f"{unit} is not a Modbus unit id from 1 to 247 (0 and 255 only on modbus-tcp)")
    profile = section.choice("profile", {*profiles.names(), *own})
    meter = MeterConfig(
        name=section.name(),
        bus=bus,
        unit=unit,
        profile=profile,
        interval=section.number("interval", float, 0.1, 3600, interval),
        role=section.choice("role", ROLES, "consumption"),
        ct_ratio=_ratio(section, "ct_ratio"),
        pt_ratio=_ratio(section, "pt_ratio"),
        reverse=section.take("reverse", bool, default=False),
        channels=_channels(section, profile, own),
        known_profile=_known(profile, own),
        report=_optional(section, "report", 1, 86400),
        raw=_raw(section, profile, own),
        max_power=_optional(section, "max_power", 1, 1e10),
        nominal_voltage=_optional(section, "nominal_voltage", 1, 1e6),
        nominal_frequency=section.number("nominal_frequency", float, 16, 60, 50.0),
    )
    meter = replace(meter, points=_points(section, meter))
    if meter.report and not _is_multiple(meter.report, meter.interval):
        section.fault("report", f"{meter.report:g} s is not a multiple of the interval, {meter.interval:g} s")
    if meter.raw and meter.report is None:
        section.fault("raw", "every sample is stored where report is not set; leave raw out")
    section.finish()
    return meter


def _optional(section: Section, key: str, low: float, high: float) -> float | None:
    return section.number(key, float, low, high) if key in section.data else None


def _known(profile: str, own: Mapping[str, Profile]) -> Profile | None:
    """None for one that does not exist, which has been told already."""
    if profile in own:
        return own[profile]
    return profiles.load(profile) if profile in profiles.names() else None


def _raw(section: Section, profile: str, own: Mapping[str, Profile]) -> tuple[str, ...]:
    names = section.take("raw", list, [])
    known = _known(profile, own)
    if known is None:
        return ()
    points = [*known.points, *(point for model in known.models for point in model.points)]
    allowed = {point.name for point in points} | set(section.data.get("channels") or ())
    # Of a meter that is wired the other way round, imports are exports.
    allowed |= {name.replace("_import", "_export") for name in allowed}
    for index, name in enumerate(names):
        Section({f"raw[{index}]": name}, section.path, section.faults).choice(f"raw[{index}]", allowed)
    return tuple(map(str, names))


def _is_multiple(report: float, interval: float) -> bool:
    count = report / interval if interval else 0.0
    return round(count) >= 1 and abs(count - round(count)) < 1e-6


def _sources(section: Section) -> tuple[SourceConfig, ...]:
    found = []
    for name in SOURCES:
        one = section.section(name, required=False)
        found.append(
            SourceConfig(
                name, one.number("interval", float, 1, 3600, 60.0), one.take("enabled", bool, default=True)
            )
        )
        one.finish()
    section.finish()
    return tuple(found)


def _ratio(section: Section, key: str) -> float:
    text = section.take(key, str, "1:1")
    match = RATIO.fullmatch(text)
    if not match:
        if isinstance(section.data.get(key), str):
            section.fault(key, f'{text!r} is not a ratio like "200:5"')
        return 1.0
    return float(match[1]) / float(match[2])


def _channels(section: Section, profile: str, own: Mapping[str, Profile]) -> tuple[ChannelConfig, ...]:
    known = _known(profile, own)
    inputs = known.inputs if known else None
    channels = section.section("channels", required=False)
    if inputs is None:
        return ()
    if channels.data and not inputs:
        section.fault("channels", f"the profile {profile} has no analogue inputs")
        return ()
    if inputs and not channels.data:
        section.fault("channels", f"the profile {profile} needs at least one channel")
    found: list[ChannelConfig] = []
    for name in channels.data:
        one = channels.section(name)
        channel = ChannelConfig(
            name,
            one.number("input", int, 1, max(len(inputs), 1)),
            one.choice("signal", SIGNALS),
            one.take("low", float),
            one.take("high", float),
            one.take("unit", str),
            one.number("broken_below", float, 0, 4, BROKEN_WIRE_MA),
        )
        if channel.signal != "4-20mA" and "broken_below" in one.data:
            one.fault("broken_below", f"a {channel.signal} signal does not show a broken wire")
        one.finish()
        if not NAME.fullmatch(name):
            channels.fault(name, "is not made of lower-case letters, digits and single hyphens")
        if channel.low == channel.high and {"low", "high"} <= one.data.keys():
            one.fault("high", f"{channel.high:g} is the same as low")
        if any(other.input == channel.input for other in found):
            one.fault("input", f"{channel.input} is used by another channel")
        found.append(channel)
    return tuple(found)


def _points(section: Section, meter: MeterConfig) -> tuple[str, ...]:
    names = section.take("points", list, [])
    if meter.known_profile is None:
        return ()
    known = [channel.name for channel in meter.channels]
    known += meter.register_map.point_names(reverse=meter.reverse)
    for name in names:
        if name not in known:
            section.fault("points", f"{name!r} is not a point of {meter.profile}{near(str(name), known)}")
    if "points" in section.data and not names:
        section.fault("points", "is empty; leave it out to read all points")
    return tuple(dict.fromkeys(map(str, names)))


def _check_names(meters: list[Section], faults: list[str]) -> None:
    paths: dict[str, str] = {}
    for section in meters:
        name = section.data.get("name")
        if not isinstance(name, str):
            continue
        if paths.setdefault(name, section.path) != section.path:
            faults.append(f"{section.path}.name: {name!r} is used twice")
        if name in SOURCES:
            faults.append(f"{section.path}.name: {name!r} is what the gateway's own points are named")


def _check_unique(
    buses: list[BusConfig], meters: list[MeterConfig], paths: list[str], faults: list[str]
) -> None:
    names: dict[str, int] = {}
    endpoints: dict[str, str] = {}
    for index, bus in enumerate(buses):
        if names.setdefault(bus.name, index) != index:
            faults.append(f"buses[{index}].name: {bus.name!r} is used twice")
        other = endpoints.setdefault(bus.endpoint, bus.name)
        if other != bus.name:
            faults.append(f"buses[{index}]: {bus.endpoint} is already the bus {other}; a line has one master")
    units: dict[tuple[str, int], str] = {}
    for path, meter in zip(paths, meters, strict=True):
        first = units.setdefault((meter.bus, meter.unit), meter.name)
        if first != meter.name:
            faults.append(f"{path}.unit: {meter.unit} on bus {meter.bus} is already the meter {first}")


def _hub(section: Section) -> HubConfig:
    hub = HubConfig(
        section.take("host", str),
        section.number("port", int, 1, 65535, 8883),
        _path(section, "ca", HubConfig.ca),
        _path(section, "certificate", HubConfig.certificate),
        _path(section, "key", HubConfig.key),
        section.number("keepalive", int, 5, 3600, HubConfig.keepalive),
        section.number("connect_timeout", float, 1, 120, HubConfig.connect_timeout),
        section.take("tcp_nodelay", bool, HubConfig.tcp_nodelay),
    )
    section.finish()
    return hub


def _metrics_port(section: Section) -> int | None:
    port = section.number("port", int, 1, 65535) if section.data else None
    section.finish()
    return port


def _buffer(section: Section, control_socket: Path) -> BufferConfig:
    buffer = BufferConfig(
        _path(section, "path", BufferConfig.path),
        section.number("max_bytes", int, 1 << 20, 1 << 50, BufferConfig.max_bytes),
        section.number("max_age", float, 60, 3.2e9, BufferConfig.max_age),
        section.number("keep_age", float, 0, 3.2e9, BufferConfig.keep_age),
        section.number("keep_bytes", int, 0, 1 << 50, BufferConfig.keep_bytes),
        section.number("commit_interval", float, 1, 10, BufferConfig.commit_interval),
        _path(section, "pending", control_socket.with_name("pending")),
    )
    section.finish()
    return buffer


def _batch(section: Section, commit_interval: float) -> BatchConfig:
    # Each batch costs a commit of its own: six times as few of those as of the others.
    interval = min(max(BatchConfig.interval, 6 * commit_interval), 60.0)
    batch = BatchConfig(
        section.number("interval", float, 1, 60, interval),
        section.number("max_readings", int, 1, 100_000, BatchConfig.max_readings),
        section.number("resend", float, 1, 3600, BatchConfig.resend),
    )
    section.finish()
    return batch


def _delivery(section: Section) -> DeliveryConfig:
    delivery = DeliveryConfig(
        section.number("backlog_rate", float, 1, 1e9, DeliveryConfig.backlog_rate),
        section.number("backlog_burst", int, 1, 10_000_000, DeliveryConfig.backlog_burst),
        section.number("backlog_start", float, 0, 3600, DeliveryConfig.backlog_start),
    )
    section.finish()
    return delivery


def _clock(section: Section) -> ClockConfig:
    clock = ClockConfig(
        section.take("require_sync", bool, default=ClockConfig.require_sync),
        section.number("hold", float, 120, 86400, ClockConfig.hold),
    )
    section.finish()
    return clock

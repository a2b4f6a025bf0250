# SPDX-License-Identifier: Apache-2.0
"""Checks the radios of a configuration and the meters that report by them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from energy_collector import payloads
from energy_collector.config import ROLES, RadioConfig, RadioMeterConfig
from energy_collector.radio.payload import SERVERS, Payload
from energy_collector.section import Section, near

EUI = re.compile(r"[0-9a-fA-F]{16}")
# A friendly name is a topic: neither wildcards nor control characters. zigbee2mqtt forbids a slash at its ends.
FRIENDLY_NAME = re.compile(r"(?!/)[^+#\x00-\x1f\x7f]{1,200}(?<!/)")
APPLICATION = re.compile(r"[0-9a-fA-F-]{36}")
# Intervals without a message after which a point is null.
SILENCE = 3.0


def radios(sections: list[Section], meters: list[Section], folder: Path) -> tuple[RadioConfig, ...]:
    """The radios, each with its meters. `folder` has the site's own payload files."""
    if not sections and not meters:
        return ()
    found = [_radio(section) for section in sections]
    kinds = {one.name: one.type for one in found}
    faults = (sections or meters)[0].faults
    own = payloads.own(folder, faults)
    read = [_meter(section, kinds, own) for section in meters]
    for one in found:
        _check_devices(one, [(section, meter) for section, meter in zip(meters, read, strict=True) if meter])
    return tuple(
        replace(one, meters=tuple(meter for meter in read if meter and meter.radio == one.name))
        for one in found
    )


def check_unique(found: Collection[RadioConfig], buses: Collection[str], faults: list[str]) -> None:
    """No two radios, and no radio and bus, have one name."""
    names: set[str] = set()
    for index, one in enumerate(found):
        if one.name in names:
            faults.append(f"radios[{index}].name: {one.name!r} is used twice")
        if one.name in buses:
            faults.append(f"radios[{index}].name: {one.name!r} is the name of a bus")
        names.add(one.name)


def _radio(section: Section) -> RadioConfig:
    kind = section.choice("type", SERVERS)
    radio = RadioConfig(
        name=section.name(),
        type=kind,
        host=section.take("host", str),
        port=section.number("port", int, 1, 65535, RadioConfig.port),
    )
    if "user" in section.data:
        radio = replace(radio, user=section.take("user", str), password=_password(section, radio.name))
    elif "password_file" in section.data:
        section.seen("password_file")
        section.fault("password_file", "goes with user, which is missing")
    if kind == "chirpstack":
        radio = replace(radio, application=section.take("application", str, "").lower())
        if radio.application and not APPLICATION.fullmatch(radio.application):
            section.fault("application", f"{radio.application!r} is no application id (UUID) of ChirpStack")
    else:
        radio = replace(radio, topic=section.take("topic", str, RadioConfig.topic))
        if not FRIENDLY_NAME.fullmatch(radio.topic):
            section.fault("topic", f"{radio.topic!r} is no base topic")
    section.finish()
    return radio


def _password(section: Section, name: str) -> str | None:
    path = Path(section.take("password_file", str, f"/etc/energy/radio-{name}.password"))
    if not path.is_absolute():
        section.fault("password_file", f"{str(path)!r} is not an absolute path")
        return None
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        section.fault("password_file", f"{path} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        section.fault("password_file", f"{path} is not UTF-8 text")
    return None


def _meter(section: Section, kinds: Mapping[str, str], own: Mapping[str, Payload]) -> RadioMeterConfig | None:
    """None for one that no meter can be made of; what is wrong with it has been told."""
    radio = section.take("radio", str)
    if radio not in kinds:
        section.fault("radio", f"{radio!r} is not one of the radios {', '.join(kinds) or '(there is none)'}")
    profile = section.choice("profile", {*payloads.names(), *own})
    known = own.get(profile) or (payloads.load(profile) if profile in payloads.names() else None)
    if known is not None and radio in kinds and known.server != kinds[radio]:
        section.fault("profile", f"{profile!r} is of {known.server}, the radio {radio} is {kinds[radio]}")
    name = section.name()
    device = section.take("device", str)
    role = section.choice("role", ROLES, "consumption")
    reverse = section.take("reverse", bool, default=False)
    interval = section.number("interval", float, 1, 604800, known.interval if known else 60.0)
    silence = section.number("silence", float, 1, 1000, SILENCE)
    max_power = section.number("max_power", float, 1, 1e10) if "max_power" in section.data else None
    points = _points(section, known, reverse=reverse)
    section.finish()
    if known is None:
        return None
    return RadioMeterConfig(
        name=name,
        radio=radio,
        device=device,
        profile=profile,
        interval=interval,
        silence=silence * interval,
        mapping=known,
        role=role,
        reverse=reverse,
        points=points,
        max_power=max_power,
    )


def _points(section: Section, known: Payload | None, *, reverse: bool) -> tuple[str, ...]:
    names = section.take("points", list, [])
    if "points" in section.data and not names:
        section.fault("points", "is empty; leave it out to take all points")
    allowed = known.point_names(reverse=reverse) if known is not None else []
    for name in names:
        if known is not None and name not in allowed:
            section.fault("points", f"{name!r} is not a point of {known.name}{near(str(name), allowed)}")
    return tuple(dict.fromkeys(map(str, names)))


def _check_devices(radio: RadioConfig, meters: list[tuple[Section, RadioMeterConfig]]) -> None:
    first: dict[str, str] = {}
    for section, meter in meters:
        if meter.radio != radio.name:
            continue
        is_lora = radio.type == "chirpstack"
        if is_lora and not EUI.fullmatch(meter.device):
            section.fault("device", f"{meter.device!r} is no DevEUI of 16 hexadecimal digits")
        elif not is_lora and not FRIENDLY_NAME.fullmatch(meter.device):
            section.fault("device", f"{meter.device!r} is no friendly name or IEEE address of zigbee2mqtt")
        device = meter.device.lower() if is_lora else meter.device
        if first.setdefault(device, meter.name) != meter.name:
            section.fault("device", f"{meter.device!r} is already the meter {first[device]}")

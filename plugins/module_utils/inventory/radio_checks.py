# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Faults of a site file between its radios, their meters and the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .findings import Finding, text_at
from .kinds import unknown_word
from .profiles import Payloads

LOOPBACK = "127.0.0.1"
_EUI = re.compile(r"[0-9A-Fa-f]{16}")


def findings(site: Mapping[str, Any], payloads: Payloads) -> Iterator[Finding]:
    """Names, devices, and profiles of another server. Where the broker is, the checks of networks look at."""
    radios = _mappings(site.get("radios"))
    buses = {text_at(bus, "name") for _, bus in _mappings(site.get("buses"))}
    types: dict[str, Any] = {}
    for index, radio in radios:
        name = text_at(radio, "name")
        if name is None:
            continue
        if name in types:
            yield Finding(("radios", index, "name"), f'found "{name}" twice, expected a name of its own')
        if name in buses:
            yield Finding(
                ("radios", index, "name"), f'found "{name}", the name of a bus, expected a name of its own'
            )
        types.setdefault(name, radio.get("type"))
    known = all(text_at(radio, "name") for _, radio in radios)
    seen: dict[tuple[str, str], int] = {}
    used = set()
    for index, meter in _mappings(site.get("meters")):
        name = text_at(meter, "radio")
        if name is None:
            continue
        used.add(name)
        if name in types:
            yield from _device(meter, index, name, types[name], seen)
            yield from _server(meter, index, name, types[name], payloads)
        elif known:
            yield Finding(
                ("meters", index, "radio"), unknown_word(name, list(types), "one of the site's radios")
            )
    for index, radio in radios:
        name = text_at(radio, "name")
        if name is not None and name not in used:
            yield Finding(
                ("radios", index), f'found "{name}", which no meter reports by, expected at least one meter'
            )


def _device(
    meter: Mapping[str, Any], index: int, radio: str, kind: Any, seen: dict[tuple[str, str], int]
) -> Iterator[Finding]:
    device = text_at(meter, "device")
    if device is None:
        return
    place = ("meters", index, "device")
    if kind == "chirpstack":
        if not _EUI.fullmatch(device):
            yield Finding(place, f'found "{device}", expected a DevEUI of 16 hexadecimal digits')
        device = device.lower()
    first = seen.setdefault((radio, device), index)
    if first != index:
        yield Finding(
            place, f'found "{device}" on radio "{radio}", as in meters[{first}], expected a device of its own'
        )


def _server(
    meter: Mapping[str, Any], index: int, radio: str, kind: Any, payloads: Payloads
) -> Iterator[Finding]:
    profile = text_at(meter, "profile")
    if profile is None or not isinstance(kind, str):
        return
    server = payloads.server(profile)
    if server != kind:
        yield Finding(
            ("meters", index, "profile"),
            f'found "{profile}", for messages of {server}, expected one for {kind}, as the radio "{radio}" is',
        )


def _mappings(values: Any) -> list[tuple[int, Mapping[str, Any]]]:
    items = values if isinstance(values, list) else []
    return [(index, one) for index, one in enumerate(items) if isinstance(one, dict)]

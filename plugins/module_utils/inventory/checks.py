# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What a schema cannot say: how the values of one site, and of all sites, must fit together.

A value that the schema has refused already is INVALID here; a check that would need it is left out, so that
one mistake is reported once. Every check names the place by its steps from the document's root.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from ..network.site import AUTO
from . import (
    broker_checks,
    collector_checks,
    database_checks,
    firewall_checks,
    firmware_checks,
    network_checks,
    radio_checks,
    rollout_checks,
)
from .findings import Finding, Steps, dig, text_at
from .kinds import suggestion, unknown_word
from .profiles import Payloads, Profiles


class Network(NamedTuple):
    """An IPv4 address in its network, as whole numbers: quicker than ipaddress for thousands of files."""

    address: int
    first: int
    last: int
    prefix: int

    def overlaps(self, other: Network) -> bool:
        return self.first <= other.last and other.first <= self.last

    def holds(self, address: int) -> bool:
        return self.first <= address <= self.last

    def __str__(self) -> str:
        return f"{ipaddress.IPv4Address(self.first)}/{self.prefix}"


def address_number(text: str) -> int:
    a, b, c, d = text.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def network_of(text: str) -> Network:
    """``192.168.10.10/24`` to its parts. The schema has made sure of the form."""
    host, _, bits = text.partition("/")
    prefix = int(bits)
    address = address_number(host)
    mask = (1 << 32 - prefix) - 1
    return Network(address, address & ~mask, address | mask, prefix)


@lru_cache(maxsize=None)
def timezone_fault(name: str) -> str | None:
    """The message for a time zone that this machine's database does not have; None when it has it."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = suggestion(name, sorted(available_timezones()))
        hint = f'; did you mean "{near}"?' if near else ', such as "Europe/Paris"'
        return f'found "{name}", expected a time zone of the IANA database{hint}'
    return None


def fleet_findings(fleet: Mapping[str, Any]) -> Iterator[Finding]:
    """The faults between the values of a fleet file."""
    yield from broker_checks.fleet_findings(fleet)
    yield from database_checks.fleet_findings(fleet)
    yield from firewall_checks.fleet_findings(fleet)
    yield from firmware_checks.fleet_findings(fleet)
    yield from rollout_checks.fleet_findings(fleet)
    rings = fleet.get("rings")
    ring = text_at(fleet, "defaults", "ring")
    if ring is not None and isinstance(rings, list) and ring not in rings:
        yield Finding(("defaults", "ring"), unknown_word(ring, _words(rings), "one of the fleet's rings"))
    zone = text_at(fleet, "defaults", "timezone")
    if zone is not None and (fault := timezone_fault(zone)):
        yield Finding(("defaults", "timezone"), fault)


def _words(values: list[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


class SiteChecks:
    """The checks of one site, for one fleet file and one set of profiles."""

    def __init__(self, fleet: Mapping[str, Any], profiles: Profiles, payloads: Payloads) -> None:
        self._profiles = profiles
        self._payloads = payloads
        rings = fleet.get("rings")
        self._rings: list[str] = _words(rings) if isinstance(rings, list) else []
        self._defaults: Mapping[str, Any] = fleet.get("defaults") or {}
        networks = dig(fleet, "management", "networks")
        self._management = (
            [network_of(n) for n in networks if isinstance(n, str) and ":" not in n]
            if isinstance(networks, list)
            else []
        )
        hub = text_at(fleet, "hub", "address")
        self._hub = address_number(hub) if hub else None
        self._brokers = broker_checks.names(fleet)

    def findings(self, site: Mapping[str, Any], name: str) -> Iterator[Finding]:
        """The faults of ``site``, read from the file ``name``.yml."""
        written = text_at(site, "site")
        if written is not None and written != name:
            yield Finding(
                ("site",), f'found "{written}" in the file {name}.yml, expected "{name}", the file\'s name'
            )
        if name in self._brokers:
            yield Finding(("site",), f'found "{name}", the name of a broker, expected another')
        zone = text_at(site, "timezone")
        if zone is not None and zone != self._defaults.get("timezone") and (fault := timezone_fault(zone)):
            yield Finding(("timezone",), fault)
        yield from self._ring(site)
        if text_at(site, "redundancy_pair") == name:
            yield Finding(("redundancy_pair",), f'found "{name}", the site itself, expected another site')
        yield from self._networks(site)
        yield from self._buses(site)
        yield from self._meters(site)
        yield from self._radios(site)
        yield from collector_checks.findings(site)
        yield from firewall_checks.site_findings(site, self._defaults)
        yield from firmware_checks.site_findings(site)
        yield from rollout_checks.site_findings(site, self._defaults)

    def _ring(self, site: Mapping[str, Any]) -> Iterator[Finding]:
        ring = text_at(site, "ring")
        if ring is None or not self._rings:
            return
        if ring not in self._rings:
            if ring != self._defaults.get("ring"):
                yield Finding(("ring",), unknown_word(ring, self._rings, "one of the fleet's rings"))
        elif ring == self._rings[0] and site.get("critical") is True:
            yield Finding(
                ("ring",),
                f'found "{ring}" with "critical: true", expected a later ring: the first takes no '
                "critical site",
            )

    def _networks(self, site: Mapping[str, Any]) -> Iterator[Finding]:
        wan_text = text_at(site, "network", "wan", "address")
        energy_text = text_at(site, "network", "energy", "address")
        wan = network_of(wan_text) if wan_text and wan_text != AUTO else None
        energy = network_of(energy_text) if energy_text else None
        plain = network_checks.is_plain(site.get("network"))
        if not plain:
            yield from network_checks.findings(site["network"])
        for part, network, text in (("wan", wan, wan_text), ("energy", energy, energy_text)) if plain else ():
            if network and network.prefix < 31 and network.address in (network.first, network.last):
                what = "the network itself" if network.address == network.first else "the broadcast address"
                yield Finding(
                    ("network", part, "address"),
                    f'found "{text}", {what}, expected an address of a host in {network}',
                )
        if wan and plain:
            yield from self._router(site, wan)
        interface = text_at(site, "network", "wan", "interface")
        if plain and interface is not None and interface == text_at(site, "network", "energy", "interface"):
            yield Finding(
                ("network", "energy", "interface"),
                f'found "{interface}", the WAN\'s, expected another interface',
            )
        if energy:
            yield from self._energy_apart(site, energy, wan)

    def _router(self, site: Mapping[str, Any], wan: Network) -> Iterator[Finding]:
        router_text = text_at(site, "network", "wan", "gateway")
        if router_text is None:
            return
        router = address_number(router_text)
        if router == wan.address:
            yield Finding(
                ("network", "wan", "gateway"),
                f"found \"{router_text}\", the site's own address, expected the router's",
            )
        elif wan.prefix < 32 and not wan.holds(
            router
        ):  # a /32 is a point-to-point line: its router is outside
            yield Finding(
                ("network", "wan", "gateway"), f'found "{router_text}", expected an address in {wan}'
            )

    def _energy_apart(
        self, site: Mapping[str, Any], energy: Network, wan: Network | None
    ) -> Iterator[Finding]:
        place = ("network", "energy", "address")
        if wan and energy.overlaps(wan):
            yield Finding(place, f"found {energy}, which overlaps the WAN {wan}, expected networks apart")
        for management in self._management:
            if energy.overlaps(management):
                yield Finding(
                    place,
                    f"found {energy}, which overlaps the management network {management}, expected "
                    "networks apart",
                )
        if self._hub is not None and energy.holds(self._hub):
            yield Finding(place, f"found {energy}, which holds the hub's address, expected networks apart")
        address = text_at(site, "gateway", "address")
        if address is not None and energy.holds(address_number(address)):
            yield Finding(
                ("gateway", "address"),
                f'found "{address}", in the energy network {energy}, expected an address that the '
                "controller reaches",
            )

    def _buses(self, site: Mapping[str, Any]) -> Iterator[Finding]:
        buses = site.get("buses")
        if not isinstance(buses, list):
            return
        energy_text = text_at(site, "network", "energy", "address")
        energy = network_of(energy_text) if energy_text else None
        names: dict[str, int] = {}
        ends: dict[tuple[Any, Any], int] = {}
        for index, bus in enumerate(buses):
            if not isinstance(bus, dict):
                continue
            yield from _once(names, text_at(bus, "name"), index, "buses", "name")
            host = text_at(bus, "host")
            if host is not None:
                yield from _socket(bus, host, index, energy, ends)
            elif (device := text_at(bus, "device")) is not None:
                first = ends.setdefault((device, None), index)
                if first != index:
                    yield Finding(
                        ("buses", index, "device"),
                        f'found "{device}", as in buses[{first}], expected one bus for each serial port',
                    )

    def _meters(self, site: Mapping[str, Any]) -> Iterator[Finding]:
        buses = site.get("buses")
        meters = site.get("meters")
        if not isinstance(meters, list):
            return
        known = isinstance(buses, list) and all(text_at(bus, "name") for bus in buses)
        types = (
            {bus["name"]: bus.get("type") for bus in buses if text_at(bus, "name")}
            if isinstance(buses, list)
            else {}
        )
        names: dict[str, int] = {}
        units: dict[tuple[str, int], int] = {}
        for index, meter in enumerate(meters):
            if not isinstance(meter, dict):
                continue
            yield from _once(names, text_at(meter, "name"), index, "meters", "name")
            bus = text_at(meter, "bus")
            if bus is not None and bus not in types and known:
                yield Finding(
                    ("meters", index, "bus"), unknown_word(bus, list(types), "one of the site's buses")
                )
            unit = meter.get("unit")
            if bus is not None and isinstance(unit, int):
                yield from _unit(unit, bus, types.get(bus), index, units, meters)
            for ratio in ("ct_ratio", "pt_ratio"):
                if (text := text_at(meter, ratio)) is not None:
                    yield from _ratio(text, index, ratio)
            if "radio" not in meter:
                yield from self._channels(meter, index)

    def _radios(self, site: Mapping[str, Any]) -> Iterator[Finding]:
        yield from radio_checks.findings(site, self._payloads)
        energy_text = text_at(site, "network", "energy", "address")
        energy = network_of(energy_text) if energy_text else None
        radios = site.get("radios")
        for index, radio in enumerate(radios if isinstance(radios, list) else ()):
            host = text_at(radio, "host")
            if host is not None and host != radio_checks.LOOPBACK and energy:
                yield from _in_energy_network(host, energy, ("radios", index, "host"))

    def _channels(self, meter: Mapping[str, Any], index: int) -> Iterator[Finding]:
        profile = text_at(meter, "profile")
        channels = meter.get("channels")
        place = ("meters", index, "channels")
        count = self._profiles.inputs(profile) if profile is not None else 0
        if profile is not None and not count and channels is not None:
            yield Finding(place, f'found channels, expected none: "{profile}" has no analogue inputs')
        if count and channels is None:
            yield Finding(
                place, f'missing, expected a channel for each input in use: "{profile}" has analogue inputs'
            )
        inputs: dict[int, str] = {}
        for name, channel in channels.items() if isinstance(channels, dict) else ():
            number = dig(channel, "input")
            if isinstance(number, int):
                first = inputs.setdefault(number, name)
                if first != name:
                    yield Finding(
                        (*place, name, "input"), f'found {number}, as in "{first}", expected each input once'
                    )
                if count and number > count:
                    yield Finding(
                        (*place, name, "input"),
                        f'found {number}, expected 1 to {count}, the inputs of "{profile}"',
                    )
            low, high = dig(channel, "low"), dig(channel, "high")
            if isinstance(low, int | float) and low == high:
                yield Finding((*place, name, "high"), f"found {high}, equal to low, expected another value")


def _once(seen: dict[str, int], name: str | None, index: int, part: str, key: str) -> Iterator[Finding]:
    if name is not None and seen.setdefault(name, index) != index:
        yield Finding(
            (part, index, key), f'found "{name}", as in {part}[{seen[name]}], expected a name of its own'
        )


def _in_energy_network(host: str, energy: Network, place: Steps) -> Iterator[Finding]:
    number = address_number(host)
    if not energy.holds(number):
        yield Finding(place, f'found "{host}", expected an address in the energy network {energy}')
    elif number == energy.address:
        yield Finding(place, f"found \"{host}\", the gateway's own address, expected the device's")
    elif energy.prefix < 31 and number in (energy.first, energy.last):
        yield Finding(place, f'found "{host}", expected an address of a host in {energy}')


def _socket(
    bus: Mapping[str, Any], host: str, index: int, energy: Network | None, ends: dict[tuple[Any, Any], int]
) -> Iterator[Finding]:
    place = ("buses", index, "host")
    if energy:
        yield from _in_energy_network(host, energy, place)
    port = bus.get("port")
    first = ends.setdefault((host, port), index)
    if isinstance(port, int) and first != index:
        yield Finding(
            place,
            f'found "{host}" and port {port}, as in buses[{first}], expected one bus for each: a bus has '
            "one master",
        )


def _unit(
    unit: int, bus: str, bus_type: Any, index: int, units: dict[tuple[str, int], int], meters: list[Any]
) -> Iterator[Finding]:
    place = ("meters", index, "unit")
    if unit in (0, 255) and isinstance(bus_type, str) and bus_type != "modbus-tcp":
        yield Finding(
            place, f"found {unit} on a bus of type {bus_type}, expected a whole number from 1 to 247"
        )
    first = units.setdefault((bus, unit), index)
    if first != index:
        other = text_at(meters[first], "name")
        by = f'"{other}" (meters[{first}])' if other else f"meters[{first}]"
        yield Finding(place, f'found {unit} on bus "{bus}", as {by} has, expected a unit of its own')


def _ratio(text: str, index: int, key: str) -> Iterator[Finding]:
    primary, _, secondary = text.partition(":")
    if float(primary) < float(secondary):
        yield Finding(
            ("meters", index, key),
            f'found "{text}", expected primary before secondary, such as "{secondary}:{primary}"',
        )


def between_sites(sites: Mapping[str, Any], fleet: Mapping[str, Any]) -> Iterator[tuple[str, Finding]]:
    """The faults between sites, each with the name of the site whose file is to be changed.

    ``sites``: site by file name; INVALID or None for a file that could not be read.
    """
    hub = text_at(fleet, "hub", "address")
    addresses: dict[tuple[str, str], str] = {}
    for name, site in sites.items():
        for place in (("network", "wan", "address"), ("gateway", "address")):
            text = text_at(site, *place)
            if text is None or text == AUTO:
                continue
            address = text.partition("/")[0]
            first = addresses.setdefault((place[-2], address), name)
            if first != name:
                yield (
                    name,
                    Finding(place, f'found "{text}", as in {first}.yml, expected an address of its own'),
                )
            if address == hub:
                yield (
                    name,
                    Finding(place, f'found "{text}", the hub\'s address, expected an address of its own'),
                )
        pair = text_at(site, "redundancy_pair")
        if pair is not None and pair != name:
            yield from _pair(name, pair, sites)


def _pair(name: str, pair: str, sites: Mapping[str, Any]) -> Iterator[tuple[str, Finding]]:
    place = ("redundancy_pair",)
    if pair not in sites:
        near = suggestion(pair, [other for other in sites if other != name])
        hint = f'; did you mean "{near}"?' if near else ""
        yield name, Finding(place, f'found "{pair}", expected a site of this fleet{hint}')
        return
    other = sites[pair]
    if not isinstance(other, dict) or not isinstance(back := other.get("redundancy_pair"), str | None):
        return  # that file has a fault of its own there
    if back != name:
        names = f'names "{back}"' if back else "names no pair"
        yield name, Finding(place, f'found "{pair}", but {pair}.yml {names}, expected each to name the other')

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The part of the site file that describes the gateway's networks."""

from __future__ import annotations

from dataclasses import replace

from .kinds import FLEET, OPTIONAL, Choice, Key, Listing, Number, Record, Table, Text

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_PREFIX = r"(?:3[0-2]|[12]?[0-9])"
# As far as a pattern goes; whether it is one, network_checks finds out.
_IPV6 = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
_PREFIX6 = r"[0-9]{1,3}"

PART_NAME = Text(
    'a name of characters a-z and 0-9 with single "-" between, such as "main"',
    r"[a-z0-9]+(?:-[a-z0-9]+)*",
    limit=63,
)
ADDRESS = Text('an IPv4 address such as "192.168.10.20"', _IPV4)
INTERFACE_ADDRESS = Text(
    'an IPv4 address with its prefix length such as "192.168.10.10/24"', rf"{_IPV4}/{_PREFIX}"
)
GIVEN_ADDRESS = Text(
    'an IPv4 address with its prefix length such as "192.168.10.10/24", or "auto"',
    rf"auto|{_IPV4}/{_PREFIX}",
)
NETWORK = Text('an IPv4 network such as "192.168.10.0/24"', rf"{_IPV4}/{_PREFIX}")
INTERFACE = Text(
    'a network interface such as "eth0", of up to 15 characters', r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"
)
_ANY_ADDRESS = Text('an address such as "10.20.0.53" or "fd00:20::53"', rf"{_IPV4}|{_IPV6}")
_ADDRESS6 = Text('an IPv6 address such as "fd00:20::1"', _IPV6)
_ANY_INTERFACE_ADDRESS = Text(
    'an address with its prefix length such as "10.20.5.11/24" or "fd00:20::11/64"',
    rf"{_IPV4}/{_PREFIX}|{_IPV6}/{_PREFIX6}",
)
_ANY_NETWORK = Text(
    'a network such as "10.8.0.0/16" or "fd00:8::/32"', rf"{_IPV4}/{_PREFIX}|{_IPV6}/{_PREFIX6}"
)
_APN = Text('an access point name such as "iot.example"', r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,98}[A-Za-z0-9])?")
_MODEM_USER = Text("a user name without blanks", r"[!-:<-\[\]-~]+", limit=64)
METRIC = Number(1, 4294967295, whole=True)

IPV6 = {
    "auto": "an address and routes by router advertisements",
    "link-local": "a link-local address only",
    "disabled": "none",
}
BONDS = {
    "active-backup": "one port carries everything, another takes over; needs nothing of the switch",
    "802.3ad": "all ports together (LACP); needs a switch that is set up for it",
    "balance-xor": "all ports together without LACP; needs a switch that is set up for it",
}


def network() -> Record:
    """The networks of a site."""
    return Record(
        {
            "wan": Key(
                Record(_wan(), "a mapping with interface and address"),
                "WAN",
                "The network that leads to the hub.",
            ),
            "energy": Key(
                Record(_energy(), "a mapping with interface and address"),
                "Energy network",
                "The network of the meters, apart from every other; the NetworkManager connection "
                "`EnergyInternal`.",
                FLEET,
            ),
            "others": Key(
                Table(
                    replace(
                        PART_NAME,
                        expected=PART_NAME.expected.replace("main", "backup"),
                        reserved=("wan", "energy"),
                        limit=40,
                    ),
                    Record(_other(), "a mapping with interface"),
                    "a mapping of at least one network",
                ),
                "Other networks",
                "Further networks of the gateway by name: a second way out, a control network, a bond that "
                "carries VLANs.",
                OPTIONAL,
                examples=(
                    {"backup": {"interface": "wwan0", "address": "auto", "modem": {"apn": "iot.example"}}},
                ),
            ),
        },
        "a mapping with wan and energy",
    )


def _wan() -> dict[str, Key]:
    return {
        "interface": Key(
            INTERFACE, "Interface", "The network interface towards the hub.", FLEET, examples=("eth0",)
        ),
        "address": Key(
            GIVEN_ADDRESS,
            "Address",
            "The gateway's address in this network, with the prefix length; no other site has it. `auto` where "
            "DHCP or the mobile network gives it: `gateway.address` still has to lead here.",
            examples=("10.20.4.11/24",),
        ),
        "gateway": Key(
            ADDRESS,
            "Router",
            "The default route, an address in this network.",
            OPTIONAL,
            examples=("10.20.4.1",),
        ),
        **_addressing(),
        **_way_out(),
        **_link(),
        "modem": _modem(),
    }


def _energy() -> dict[str, Key]:
    return {
        "interface": Key(
            INTERFACE,
            "Interface",
            "The network interface towards the meters; another one than the WAN's.",
            FLEET,
            examples=("eth1",),
        ),
        "address": Key(
            INTERFACE_ADDRESS,
            "Address",
            "The gateway's address in this network, with the prefix length. Several sites may use the same.",
            FLEET,
            examples=("192.168.10.10/24",),
        ),
        **_addressing(),
        **_link(),
    }


def _other() -> dict[str, Key]:
    return {
        "interface": Key(
            INTERFACE, "Interface", "The network interface; no other network's.", examples=("eth2",)
        ),
        "address": Key(
            GIVEN_ADDRESS,
            "Address",
            "The gateway's address in this network, with the prefix length, or `auto`. A bond that only carries "
            "VLANs has none.",
            OPTIONAL,
            examples=("10.60.0.2/24",),
        ),
        "gateway": Key(
            ADDRESS,
            "Router",
            "A second default route. Where there are two, each has a `metric`.",
            OPTIONAL,
            examples=("10.60.0.1",),
        ),
        **_addressing(),
        **_way_out(),
        **_link(),
        "modem": _modem(),
    }


def _addressing() -> dict[str, Key]:
    return {
        "addresses": Key(
            Listing(_ANY_INTERFACE_ADDRESS, "a list of at least one address", minimum=1, distinct=True),
            "Further addresses",
            "Further addresses of the gateway on this interface, IPv4 or IPv6.",
            OPTIONAL,
            examples=(["10.20.5.11/24", "fd00:20::11/64"],),
        ),
        "ipv6": Key(
            Choice(tuple(IPV6), meanings=tuple(IPV6.values())),
            "IPv6",
            "IPv6 beside the addresses that are written down. "
            + "; ".join(f"`{word}`: {meaning}" for word, meaning in IPV6.items())
            + ". Left out, there is IPv6 where `addresses` has an IPv6 address.",
            OPTIONAL,
            examples=("auto",),
        ),
    }


def _way_out() -> dict[str, Key]:
    route = Record(
        {
            "to": Key(
                _ANY_NETWORK, "Network", "The network that the route leads to.", examples=("10.8.0.0/16",)
            ),
            "via": Key(
                _ANY_ADDRESS,
                "Next hop",
                "An address in a network of this interface.",
                examples=("10.60.0.1",),
            ),
            "metric": Key(
                METRIC, "Metric", "The interface's `metric` when left out.", OPTIONAL, examples=(50,)
            ),
        },
        'a mapping such as "{to: 10.8.0.0/16, via: 10.60.0.1}"',
    )
    return {
        "gateway6": Key(
            _ADDRESS6,
            "IPv6 router",
            "The IPv6 default route, in a network of this interface or link-local.",
            OPTIONAL,
            examples=("fd00:20::1",),
        ),
        "routes": Key(
            Listing(route, "a list of at least one route", minimum=1),
            "Routes",
            "Static routes by this interface.",
            OPTIONAL,
            examples=([{"to": "10.8.0.0/16", "via": "10.60.0.1"}],),
        ),
        "dns": Key(
            Listing(_ANY_ADDRESS, "a list of at least one address", minimum=1, distinct=True),
            "Name servers",
            "Name servers, in the order in which they are asked.",
            OPTIONAL,
            examples=(["10.20.0.53"],),
        ),
        "metric": Key(
            METRIC,
            "Metric",
            "Of two ways out the one with the lower metric is used. NetworkManager's own when left out.",
            OPTIONAL,
            examples=(700,),
        ),
    }


def _link() -> dict[str, Key]:
    bond = Record(
        {
            "interfaces": Key(
                Listing(INTERFACE, "a list of at least two interfaces", minimum=1, distinct=True),
                "Ports",
                "The interfaces that the bond is made of.",
                examples=(["eth1", "eth2"],),
            ),
            "mode": Key(
                Choice(tuple(BONDS), meanings=tuple(BONDS.values())),
                "Mode",
                "; ".join(f"`{word}`: {meaning}" for word, meaning in BONDS.items()) + ".",
                OPTIONAL,
                "active-backup",
                ("active-backup",),
            ),
            "primary": Key(
                INTERFACE,
                "Primary port",
                "The port that is used while it has a link; only with `active-backup`.",
                OPTIONAL,
                examples=("eth1",),
            ),
        },
        'a mapping such as "{interfaces: [eth1, eth2]}"',
    )
    vlan = Record(
        {
            "id": Key(Number(1, 4094, whole=True), "VLAN id", "The VLAN's number.", examples=(20,)),
            "parent": Key(
                INTERFACE, "Parent", "The interface that carries it, which may be a bond.", examples=("eth1",)
            ),
        },
        'a mapping such as "{id: 20, parent: eth1}"',
    )
    return {
        "mtu": Key(
            Number(576, 9216, whole=True),
            "MTU",
            "Largest packet in bytes, where a satellite or mobile link or a tunnel takes less than 1500. The "
            "device's own when left out.",
            OPTIONAL,
            examples=(1430,),
        ),
        "bond": Key(
            bond,
            "Bond",
            "Makes `interface` a bond of several ports, so that one cable or switch may fail.",
            OPTIONAL,
            examples=({"interfaces": ["eth1", "eth2"]},),
        ),
        "vlan": Key(
            vlan,
            "VLAN",
            "Makes `interface` a VLAN on another interface.",
            OPTIONAL,
            examples=({"id": 20, "parent": "eth1"},),
        ),
    }


def _modem() -> Key:
    modem = Record(
        {
            "apn": Key(
                _APN, "Access point", "Access point name of the mobile network.", examples=("iot.example",)
            ),
            "user": Key(
                _MODEM_USER,
                "User",
                "User name, where the provider wants one. Password and PIN are the role's variables "
                "`network_modem_password` and `network_modem_pin`, vaulted; they never stand here.",
                OPTIONAL,
                examples=("site",),
            ),
        },
        'a mapping such as "{apn: iot.example}"',
    )
    return Key(
        modem,
        "Modem",
        "The interface is a mobile modem's; `address` is then `auto`.",
        OPTIONAL,
        examples=({"apn": "iot.example"},),
    )

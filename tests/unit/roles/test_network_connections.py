"""Profiles as text, faults in what is asked for, and the plan that leads from a host's state to the wanted one.

The snapshots are what `ip -json` and `nmcli --terse` print on a host of the lab.
"""

from __future__ import annotations

import configparser
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.network import (
    faults,
    hosts,
    keyfile,
    live,
    plan,
)

PRESENT = ["eth0", "eth1", "eth2", "eth3", "lo"]
NO_SECRETS: dict[str, str | None] = {"password": None, "pin": None}


def connection(**changes: Any) -> dict[str, Any]:
    """A connection as the module's argument spec hands it on."""
    base: dict[str, Any] = {
        "name": "EnergyInternal",
        "interface": "eth1",
        "addresses": ["192.168.10.10/24"],
        "ipv4": None,
        "ipv6": None,
        "gateway": None,
        "gateway6": None,
        "routes": [],
        "dns": [],
        "metric": None,
        "mtu": 0,
        "bond": None,
        "vlan": None,
        "modem": None,
    }
    return {**base, **changes}


def ports(*interfaces: str, mode: str = "active-backup", primary: str | None = None) -> dict[str, Any]:
    return {"interfaces": list(interfaces), "mode": mode, "primary": primary}


def route(to: str, via: str, metric: int | None = None) -> dict[str, Any]:
    return {"to": to, "via": via, "metric": metric}


def bond(**changes: Any) -> dict[str, Any]:
    base = {"name": "trunk", "interface": "bond0", "addresses": [], "bond": ports("eth2", "eth3")}
    return connection(**{**base, **changes})


def vlan(**changes: Any) -> dict[str, Any]:
    base = {"name": "meters", "interface": "bond0.20", "vlan": {"id": 20, "parent": "bond0"}}
    return connection(**{**base, **changes})


def modem(**changes: Any) -> dict[str, Any]:
    base = {"name": "mobile", "interface": "wwan0", "addresses": [], "ipv4": "auto"}
    return connection(**{**base, "modem": {"apn": "iot.example", "user": None}, **changes})


def wan(**changes: Any) -> dict[str, Any]:
    base = {"name": "wan", "interface": "eth0", "addresses": ["10.20.4.11/24"], "gateway": "10.20.4.1"}
    return connection(**{**base, **changes})


def parsed(asked: dict[str, Any], secrets: dict[str, str | None] = NO_SECRETS) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(keyfile.profiles(asked, secrets)[0].text)
    return parser


# profiles


def test_a_connection_without_gateway_never_becomes_the_default_route() -> None:
    profile = parsed(connection())
    assert profile["ipv4"]["never-default"] == "true"
    assert profile["ipv6"]["never-default"] == "true"
    assert "gateway" not in profile["ipv4"]


def test_gateway_dns_and_mtu_are_written() -> None:
    asked = connection(
        gateway="192.168.10.1", dns=["192.168.10.2", "fd00::53", "192.168.10.3"], mtu=1400, ipv6="auto"
    )
    profile = parsed(asked)
    assert profile["ipv4"]["gateway"] == "192.168.10.1"
    assert profile["ipv4"]["dns"] == "192.168.10.2;192.168.10.3;"
    assert profile["ipv6"]["dns"] == "fd00::53;"
    assert profile["ethernet"]["mtu"] == "1400"
    assert "never-default" not in profile["ipv4"]


def test_addresses_and_routes_go_to_their_families() -> None:
    routes = [
        {"to": "10.8.0.0/16", "via": "192.168.10.1", "metric": 50},
        {"to": "fd00:8::/32", "via": "fd00::1", "metric": None},
    ]
    asked = connection(
        addresses=["192.168.10.10/24", "fd00::a/64", "10.1.2.3/8"],
        routes=routes,
        metric=300,
        gateway6="fd00::1",
    )
    profile = parsed(asked)
    assert (profile["ipv4"]["address1"], profile["ipv4"]["address2"]) == ("192.168.10.10/24", "10.1.2.3/8")
    assert profile["ipv4"]["route1"] == "10.8.0.0/16,192.168.10.1,50"
    assert profile["ipv4"]["route-metric"] == "300"
    assert profile["ipv6"]["method"] == "manual"
    assert profile["ipv6"]["address1"] == "fd00::a/64"
    assert profile["ipv6"]["route1"] == "fd00:8::/32,fd00::1"
    assert profile["ipv6"]["gateway"] == "fd00::1"


def test_dhcp_is_asked_for_ever() -> None:
    profile = parsed(connection(addresses=[], ipv4="auto"))
    assert profile["ipv4"]["method"] == "auto"
    assert profile["ipv4"]["dhcp-timeout"] == "2147483647"
    assert "never-default" not in profile["ipv4"]


def test_a_bond_has_a_profile_for_each_port() -> None:
    own, *others = keyfile.profiles(bond(mtu=1500), NO_SECRETS)
    assert [port.file for port in others] == ["trunk-eth2.nmconnection", "trunk-eth3.nmconnection"]
    assert "[bond]\nmode=active-backup\nmiimon=100\n" in own.text
    assert "type=bond\ninterface-name=bond0\n" in own.text
    assert "[ipv4]\nmethod=disabled\n" in own.text
    assert "master=bond0\nslave-type=bond\n" in others[0].text
    assert len({profile.uuid for profile in (own, *others)}) == 3


def test_a_vlan_names_its_parent() -> None:
    profile = parsed(vlan(mtu=1496))
    assert profile["connection"]["type"] == "vlan"
    assert dict(profile["vlan"]) == {"id": "20", "parent": "bond0"}
    assert profile["ethernet"]["mtu"] == "1496"


def test_a_modem_has_apn_metric_and_mtu_and_no_interface() -> None:
    asked = modem(modem={"apn": "iot.example", "user": "site"}, metric=700, mtu=1430)
    profile = parsed(asked, {"password": "hunter2", "pin": "0000"})
    assert dict(profile["gsm"]) == {
        "apn": "iot.example",
        "username": "site",
        "password": "hunter2",
        "pin": "0000",
        "mtu": "1430",
    }
    assert profile["ipv4"]["route-metric"] == "700"
    assert "interface-name" not in profile["connection"]


def test_secrets_are_not_shown() -> None:
    text = keyfile.profiles(modem(), {"password": "hunter2", "pin": "4711"})[0].text
    shown = keyfile.without_secrets(text)
    assert "hunter2" in text
    assert "hunter2" not in shown
    assert "4711" not in shown
    assert "apn=iot.example" in shown


def test_uuid_depends_on_the_name_alone() -> None:
    def uuid(**changes: Any) -> str:
        return parsed(connection(**changes))["connection"]["uuid"]

    assert uuid() == uuid(addresses=["10.0.0.1/8"])
    assert uuid() != uuid(name="EnergyWan")


# faults


AN_ADDRESS = 'expected an address with its prefix length such as "10.0.0.2/24" or "fd00::2/64"'
NO_IPV6 = "a network of this connection, which has no IPv6 address"
FAULTS = [
    (connection(addresses=["10.0.0.1"]), f'addresses[0]: found "10.0.0.1", {AN_ADDRESS}'),
    (connection(addresses=["10.0.0.300/8"]), f'addresses[0]: found "10.0.0.300/8", {AN_ADDRESS}'),
    (
        connection(addresses=["10.0.0.0/8"]),
        'addresses[0]: found "10.0.0.0/8", the network itself, expected an address of a host in 10.0.0.0/8',
    ),
    (
        connection(addresses=["10.0.0.1/8", "10.0.0.1/8"]),
        'addresses[1]: found "10.0.0.1/8" twice, expected each once',
    ),
    (
        connection(gateway="10.0.0.1"),
        'gateway: found "10.0.0.1", expected an address in 192.168.10.0/24',
    ),
    (
        connection(gateway="192.168.10.10"),
        "gateway: found \"192.168.10.10\", the site's own address, expected the router's",
    ),
    (
        connection(gateway="router"),
        'gateway: found "router", expected an IPv4 address such as "10.0.0.1"',
    ),
    (
        connection(gateway6="fd00::1"),
        'gateway6: found "fd00::1", expected an address in ' + NO_IPV6,
    ),
    (
        connection(gateway6="fe80::1", ipv6="auto"),
        'gateway6: found "fe80::1", expected an address in ' + NO_IPV6,
    ),
    (connection(dns=["dns"]), 'dns[0]: found "dns", expected an address such as "10.0.0.53"'),
    (
        connection(name="../evil"),
        'name: found "../evil", expected letters, digits, ".", "_" and "-": it names a file',
    ),
    (
        connection(interface="a/b"),
        'interface: found "a/b", expected a network interface such as "eth0", of up to 15 characters',
    ),
    (
        connection(interface="eth7"),
        'interface: found "eth7", expected one of the host\'s: eth0, eth1, eth2, eth3, lo',
    ),
    (
        connection(ipv4="disabled"),
        "ipv4: found disabled beside the address 192.168.10.10/24, expected one of the two",
    ),
    (
        connection(addresses=[], ipv4="manual"),
        "ipv4: found manual, expected an IPv4 address beside it",
    ),
    (
        connection(ipv4="auto", gateway="192.168.10.1"),
        'gateway: found "192.168.10.1", expected none: the router comes by DHCP',
    ),
    (connection(mtu=100), "mtu: found 100, expected a whole number from 576 to 9216"),
    (connection(mtu=1000, ipv6="auto"), "mtu: found 1000, expected at least 1280, which IPv6 needs"),
    (connection(metric=0), "metric: found 0, expected a whole number from 1 to 4294967295"),
    (
        connection(routes=[route("10.8.0.1/16", "192.168.10.1")]),
        'routes[0].to: found "10.8.0.1/16", expected a network such as "10.8.0.0/16", without host bits',
    ),
    (
        connection(routes=[route("10.8.0.0/16", "fd00::1")]),
        'routes[0].via: found "fd00::1", expected an IPv4 address',
    ),
    (
        connection(routes=[route("10.8.0.0/16", "10.9.0.1")]),
        'routes[0].via: found "10.9.0.1", expected an address in 192.168.10.0/24',
    ),
    (
        connection(routes=[route("10.8.0.0/16", "192.168.10.1")] * 2),
        'routes[1].to: found "10.8.0.0/16", as in routes[0], expected each once',
    ),
    (bond(bond=ports("eth2")), "bond.interfaces: found 1 of them, expected at least two"),
    (
        bond(bond=ports("eth2", "eth9")),
        'bond.interfaces[1]: found "eth9", expected one of the host\'s: eth0, eth1, eth2, eth3, lo',
    ),
    (
        bond(bond=ports("eth2", "eth3", primary="eth1")),
        'bond.primary: found "eth1", expected one of eth2, eth3',
    ),
    (
        bond(bond=ports("eth2", "eth3", primary="eth2", mode="802.3ad")),
        "bond.primary: found with mode 802.3ad, expected none",
    ),
    (
        bond(vlan={"id": 1, "parent": "eth1"}),
        "vlan: found beside bond, expected one of the two; a VLAN on a bond is two connections",
    ),
    (
        vlan(vlan={"id": 5000, "parent": "eth1"}),
        "vlan.id: found 5000, expected a whole number from 1 to 4094",
    ),
    (
        vlan(vlan={"id": 5, "parent": "eth9"}),
        'vlan.parent: found "eth9", expected one of the host\'s: eth0, eth1, eth2, eth3, lo',
    ),
    (
        vlan(vlan={"id": 5, "parent": "bond0.20"}),
        'vlan.parent: found "bond0.20", the interface of the VLAN itself, expected what carries it',
    ),
    (
        modem(modem={"apn": "iot\npin=1", "user": None}),
        "modem.apn: found a blank, ; or \\ or a control character, expected none",
    ),
    (
        modem(addresses=["10.0.0.1/8"], ipv4=None),
        "modem: found with a written address, expected auto: the network gives it",
    ),
]


@pytest.mark.parametrize(("asked", "said"), FAULTS)
def test_a_fault_says_where_and_what(asked: dict[str, Any], said: str) -> None:
    assert faults.lines([asked], NO_SECRETS, PRESENT) == [f"connection {asked['name']}: {said}"]


def test_a_fault_does_not_hide_another() -> None:
    asked = connection(interface="eth7", addresses=["192.168.10.10"])
    assert len(faults.lines([asked], NO_SECRETS, PRESENT)) == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            [connection(), connection(interface="eth2")],
            'EnergyInternal: name: found "EnergyInternal" twice, expected a name of its own',
        ),
        (
            [connection(), connection(name="b")],
            'b: interface: found "eth1", as in EnergyInternal, expected another interface',
        ),
        (
            [bond(), connection(name="b", interface="eth2")],
            'b: interface: found "eth2", as in trunk, expected another interface',
        ),
        (
            [bond(), vlan(vlan={"id": 20, "parent": "eth2"})],
            'meters: vlan.parent: found "eth2", a port of trunk, expected the bond itself',
        ),
        (
            [bond(), vlan(), vlan(name="b", interface="bond0.x")],
            "b: vlan.id: found 20 on bond0, as in meters, expected an id of its own",
        ),
        (
            [modem(metric=1), connection(), modem(name="b", interface="wwan1", metric=2)],
            "b: modem: found a second modem beside mobile, expected one: which would be whose?",
        ),
        (
            [modem(metric=700), wan()],
            "wan: metric: missing, expected a metric: mobile is a way out as well, and the lower metric is used",
        ),
        (
            [modem(metric=700), wan(metric=700)],
            "wan: metric: found 700, as in mobile, expected another one",
        ),
    ],
)
def test_connections_that_do_not_fit_together(asked: list[dict[str, Any]], said: str) -> None:
    assert faults.lines(asked, NO_SECRETS, PRESENT) == [f"connection {said}"]


def test_secrets_without_a_modem_and_secrets_that_break_the_file() -> None:
    assert faults.lines([connection()], {"password": "x", "pin": None}, PRESENT) == [
        "modem_password: found, but no connection has a modem"
    ]
    assert faults.lines([modem()], {"password": "a\nb", "pin": None}, PRESENT) == [
        "modem_password: found a blank, ; or \\ or a control character, expected none"
    ]


def test_good_connections_have_no_fault() -> None:
    asked = [
        connection(
            gateway="192.168.10.1",
            dns=["192.168.10.2"],
            addresses=["192.168.10.10/24", "FD00::A/64"],
            gateway6="fe80::1",
            routes=[{"to": "10.0.0.0/8", "via": "192.168.10.9", "metric": 5}],
            metric=5,
        ),
        connection(name="line", interface="eth0", addresses=["10.9.9.9/32"], gateway="10.0.0.1", metric=6),
        bond(),
        vlan(),
        modem(metric=7),
    ]
    assert faults.lines(asked, NO_SECRETS, PRESENT) == []


# the live state


def snapshot(**changes: Any) -> live.Snapshot:
    """eth0 and eth1 as they are after a run of the network role."""
    links = [
        {"ifname": "lo", "mtu": 65536, "addr_info": []},
        {"ifname": "eth0", "mtu": 1500, "addr_info": [address("inet", "10.20.4.11", 24)]},
        {"ifname": "eth1", "mtu": 1500, "addr_info": [address("inet", "192.168.10.10", 24)]},
        {"ifname": "eth2", "mtu": 1500, "addr_info": []},
        {"ifname": "eth3", "mtu": 1500, "addr_info": []},
    ]
    routes = [
        {"dst": "default", "gateway": "10.20.4.1", "dev": "eth0", "protocol": "static", "metric": 100},
        {"dst": "10.20.4.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link", "metric": 100},
        {"dst": "192.168.10.0/24", "dev": "eth1", "protocol": "kernel", "scope": "link", "metric": 101},
    ]
    names = {"eth0": keyfile.uuid_of("wan"), "eth1": keyfile.uuid_of("EnergyInternal")}
    taken = live.Snapshot(
        links={link["ifname"]: link for link in links},
        routes=[{**route, "version": 4} for route in routes],
        devices={
            name: {
                "GENERAL.DEVICE": name,
                "GENERAL.TYPE": "ethernet",
                "GENERAL.STATE": "100 (connected)" if name in names else "30 (disconnected)",
                "GENERAL.CON-UUID": names.get(name, ""),
                "IP4.DNS": [],
                "IP6.DNS": [],
            }
            for name in ("eth0", "eth1", "eth2", "eth3")
        },
    )
    for key, value in changes.items():
        setattr(taken, key, value)
    return taken


def address(family: str, local: str, prefix: int, **flags: Any) -> dict[str, Any]:
    return {"family": family, "local": local, "prefixlen": prefix, "scope": "global", **flags}


def differing(asked: dict[str, Any], state: live.Snapshot) -> dict[str, tuple[Any, Any]]:
    is_, should = live.read(asked, state), live.wanted(asked)
    return {key: (is_.get(key), should.get(key)) for key in should if is_.get(key) != should.get(key)}


def test_a_device_as_it_should_be_does_not_differ() -> None:
    assert differing(wan(), snapshot()) == {}
    assert differing(wan(metric=100, mtu=1500), snapshot()) == {}
    assert differing(connection(), snapshot()) == {}


@pytest.mark.parametrize(
    ("asked", "key", "is_", "should"),
    [
        (
            wan(metric=700),
            "routes",
            ["default via 10.20.4.1 metric 100"],
            ["default via 10.20.4.1 metric 700"],
        ),
        (wan(mtu=1400), "mtu", 1500, 1400),
        (wan(gateway="10.20.4.254"), "routes", ["default via 10.20.4.1"], ["default via 10.20.4.254"]),
        (wan(dns=["10.20.0.53"]), "dns", [], ["10.20.0.53"]),
        (
            wan(addresses=["10.20.4.11/24", "FD00:0::A/64"]),
            "addresses",
            ["10.20.4.11/24"],
            ["10.20.4.11/24", "fd00::a/64"],
        ),
        (
            wan(routes=[{"to": "10.8.0.7/32", "via": "10.20.4.2", "metric": None}]),
            "routes",
            ["default via 10.20.4.1"],
            ["10.8.0.7 via 10.20.4.2", "default via 10.20.4.1"],
        ),
    ],
)
def test_what_differs_is_named(asked: dict[str, Any], key: str, is_: Any, should: Any) -> None:
    assert differing(asked, snapshot()) == {key: (is_, should)}


def test_what_somebody_added_by_hand_differs() -> None:
    by_hand = snapshot()
    by_hand.links["eth1"]["addr_info"] += [address("inet", "10.1.1.1", 8), address("inet6", "fd00::7", 64)]
    by_hand.routes.append(
        {"dst": "10.9.0.0/16", "gateway": "192.168.10.5", "dev": "eth1", "protocol": "boot", "version": 4}
    )
    by_hand.routes.append(
        {"dst": "10.7.0.0/16", "dev": "eth1", "protocol": "boot", "version": 4, "metric": 3}
    )
    by_hand.devices["eth1"]["IP4.DNS"] = ["9.9.9.9"]
    found = differing(connection(), by_hand)
    assert found["addresses"][0] == ["10.1.1.1/8", "192.168.10.10/24", "fd00::7/64"]
    assert found["routes"][0] == ["10.7.0.0/16 direct metric 3", "10.9.0.0/16 via 192.168.10.5"]
    assert found["dns"] == (["9.9.9.9"], [])


def test_what_dhcp_and_router_advertisements_bring_is_not_compared() -> None:
    given = snapshot()
    given.links["eth0"]["addr_info"] = [
        address("inet", "10.20.4.77", 24, dynamic=True),
        address("inet6", "fd00::77", 64, dynamic=True),
        {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
    ]
    given.routes[0]["protocol"] = "dhcp"
    given.routes.append(
        {"dst": "default", "gateway": "fe80::9", "dev": "eth0", "protocol": "ra", "version": 6}
    )
    given.devices["eth0"]["IP4.DNS"] = ["10.20.0.53"]
    asked = wan(addresses=[], gateway=None, ipv4="auto", ipv6="auto")
    assert differing(asked, given) == {}
    assert differing({**asked, "metric": 700}, given) == {"metric by DHCP": (100, 700)}
    assert differing({**asked, "metric": 100}, given) == {}
    # where the address is written down, one that came by DHCP is one too many
    assert "addresses" in differing(wan(), given)


def test_a_bond_is_compared_by_its_ports() -> None:
    up = snapshot()
    up.links["bond0"] = {"ifname": "bond0", "mtu": 1500, "addr_info": []}
    up.devices["bond0"] = {**up.devices["eth1"], "GENERAL.CON-UUID": keyfile.uuid_of("trunk")}
    up.links["eth2"]["master"] = "bond0"
    assert differing(bond(), up) == {"ports": (["eth2"], ["eth2", "eth3"])}


@pytest.mark.parametrize(
    ("asked", "able", "why"),
    [
        (bond(), False, "this kernel has no module bonding"),
        (bond(), True, None),
        (vlan(), False, "this kernel has no module 8021q"),
        (modem(), True, "no modem is there"),
        (connection(), False, None),
    ],
)
def test_a_device_that_cannot_be_is_absent(asked: dict[str, Any], able: bool, why: str | None) -> None:
    assert live.absence(asked, snapshot(), lambda _kind: able) == why


def test_an_interface_without_a_link_is_absent() -> None:
    state = snapshot()
    state.devices["eth1"]["GENERAL.STATE"] = "20 (unavailable)"
    assert live.absence(connection(), state, lambda _kind: True) == "its link is down: check cable and switch"


def test_output_of_nmcli_is_read() -> None:
    text = (
        "GENERAL.DEVICE:eth0\nGENERAL.TYPE:ethernet\nGENERAL.STATE:100 (connected)\nGENERAL.CON-UUID:abc\n"
        "IP4.DNS[1]:10.0.0.53\nIP4.DNS[2]:10.0.0.54\nIP6.DNS[1]:fd00::53\n\nGENERAL.DEVICE:lo\nIP4.DNS:\n"
    )
    found = live.devices(text)
    assert found["eth0"]["IP4.DNS"] == ["10.0.0.53", "10.0.0.54"]
    assert found["eth0"]["IP6.DNS"] == ["fd00::53"]
    assert found["lo"]["IP4.DNS"] == []
    assert live.files("abc:/etc/x y.nmconnection\n") == {"abc": "/etc/x y.nmconnection"}


def test_a_snapshot_takes_five_programs() -> None:
    asked: list[list[str]] = []

    def run(command: list[str]) -> str:
        asked.append(command)
        return "[]" if command[0] == "ip" else ""

    live.Snapshot.take("ip", "nmcli", run)
    assert len(asked) == 5


def test_live_state_reads_as_lines() -> None:
    text = live.as_text("eth1", {"state": "connected", "addresses": [], "mtu": 1500})
    assert text == "eth1: state connected\neth1: addresses none\neth1: mtu 1500\n"


# the plan


def make(asked: list[dict[str, Any]], state: live.Snapshot, folder: Path, **changes: Any) -> plan.Plan:
    arguments: dict[str, Any] = {"hosts": None, "secrets": NO_SECRETS, "keep": [], "able": False, **changes}
    able = arguments.pop("able")
    return plan.make(
        asked,
        arguments["hosts"],
        arguments["secrets"],
        arguments["keep"],
        state,
        nmcli="/usr/bin/nmcli",
        able=lambda _kind: able,
        directory=folder,
        hosts_file=folder / "hosts",
    )


def provision(asked: list[dict[str, Any]], state: live.Snapshot, folder: Path) -> None:
    """Put the profiles where a run would have put them, as root would own them."""
    for item in asked:
        for profile in keyfile.profiles(item, NO_SECRETS):
            path = folder / profile.file
            path.write_text(profile.text, encoding="utf-8")
            path.chmod(0o600)
            state.files[profile.uuid] = str(path)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of whoever runs the tests count as root's."""
    monkeypatch.setattr(plan, "ACCEPTED", (0o600, os.getuid(), os.getgid()))


@pytest.mark.usefixtures("as_root")
def test_nothing_differs_on_a_host_as_it_should_be(tmp_path: Path) -> None:
    state, asked = snapshot(), [wan(), connection(), bond(), vlan(), modem()]
    provision(asked, state, tmp_path)
    made = make(asked, state, tmp_path)
    assert (made.changed, made.diff) == (False, [])
    assert {item["name"]: item["device"] for item in made.connections} == {
        "wan": "unchanged",
        "EnergyInternal": "unchanged",
        "trunk": "absent",
        "meters": "absent",
        "mobile": "absent",
    }
    assert len(made.warnings) == 3


@pytest.mark.usefixtures("as_root")
def test_a_new_host_gets_profiles_first_and_then_devices(tmp_path: Path) -> None:
    state = snapshot()
    state.devices["eth1"].update({"GENERAL.STATE": "30 (disconnected)", "GENERAL.CON-UUID": ""})
    made = make([wan(), connection()], state, tmp_path)
    paths = [str(tmp_path / name) for name in ("wan.nmconnection", "EnergyInternal.nmconnection")]
    assert [file["path"] for file in made.files] == paths
    # eth0 is right already, by the image's own profile, and is not touched
    uuid = keyfile.uuid_of("EnergyInternal")
    state.devices["eth0"]["GENERAL.CON-UUID"] = "the image's own"
    made = make([wan(), connection()], state, tmp_path)
    assert made.apply == [
        ["/usr/bin/nmcli", "connection", "load", *paths],
        {"bring_up": {"interface": "eth1", "uuid": uuid}},
    ]


@pytest.mark.usefixtures("as_root")
def test_a_setting_that_is_no_longer_asked_for_is_taken_back_from_the_device(tmp_path: Path) -> None:
    state = snapshot()
    state.links["eth0"]["mtu"] = 1400
    provision([wan(mtu=1400)], state, tmp_path)
    made = make([wan()], state, tmp_path)
    assert {"bring_up": {"interface": "eth0", "uuid": keyfile.uuid_of("wan")}} in made.apply


@pytest.mark.usefixtures("as_root")
def test_a_profile_held_from_elsewhere_is_loaded_again(tmp_path: Path) -> None:
    state = snapshot()
    provision([connection()], state, tmp_path)
    held = "/run/NetworkManager/system-connections/EnergyInternal.nmconnection"
    state.files[keyfile.uuid_of("EnergyInternal")] = held
    made = make([connection()], state, tmp_path)
    assert made.files == [{"path": held, "state": "absent"}]
    assert made.apply[0][1:3] == ["connection", "load"]
    assert made.diff[0]["before"] == f"EnergyInternal held from {held}\n"


@pytest.mark.usefixtures("as_root")
def test_a_profile_of_ours_that_nobody_asks_for_goes_and_those_of_others_stay(tmp_path: Path) -> None:
    state = snapshot()
    provision([connection(), wan(name="old")], state, tmp_path)
    (tmp_path / "somebody.nmconnection").write_text("[connection]\nid=somebody\n", encoding="utf-8")
    made = make([connection()], state, tmp_path)
    assert made.files == [{"path": str(tmp_path / "old.nmconnection"), "state": "absent"}]
    assert made.connections[-1] == {"name": "old", "profile": "removed", "device": "unchanged"}


@pytest.mark.usefixtures("as_root")
def test_secrets_are_in_the_file_and_not_in_the_diff(tmp_path: Path) -> None:
    made = make([modem()], snapshot(), tmp_path, secrets={"password": "hunter2", "pin": "4711"})
    assert "password=hunter2" in made.files[0]["content"]
    assert "hunter2" not in json.dumps([made.diff, made.connections, made.apply])
    assert "4711" not in json.dumps([made.diff, made.connections, made.apply])


def test_management_is_not_cut_off(tmp_path: Path) -> None:
    keep = ["10.20.4.11"]
    with pytest.raises(plan.RefusedError, match=r"would replace 10\.20\.4\.11 on eth0.*with 10\.9\.9\.9/24"):
        make([wan(addresses=["10.9.9.9/24"])], snapshot(), tmp_path, keep=keep)
    make([wan(addresses=["10.9.9.9/24"])], snapshot(), tmp_path, keep=[])
    # an address that moves to another connection of the same host is not lost ...
    moved = bond(addresses=["10.20.4.11/24"], bond=ports("eth0", "eth2"))
    make([moved], snapshot(), tmp_path, keep=keep, able=True)
    # ... unless this kernel cannot make it
    with pytest.raises(plan.RefusedError, match=r"a port of bond0 \(this kernel has no module bonding\)"):
        make([moved], snapshot(), tmp_path, keep=keep, able=False)


def test_an_unmanaged_interface_is_refused(tmp_path: Path) -> None:
    state = snapshot()
    state.devices["eth1"]["GENERAL.STATE"] = "10 (unmanaged)"
    with pytest.raises(plan.RefusedError, match="does not manage eth1"):
        make([connection()], state, tmp_path)


def test_parents_are_brought_up_first(tmp_path: Path) -> None:
    made = make([vlan(), connection(), bond()], snapshot(), tmp_path, able=True)
    ups = [step["bring_up"]["interface"] for step in made.apply if isinstance(step, dict)]
    assert ups == ["bond0", "eth1", "bond0.20"]


def test_a_profile_that_others_can_read_is_not_accepted(tmp_path: Path) -> None:
    profile = tmp_path / "x.nmconnection"
    profile.write_text("[connection]\n")
    profile.chmod(0o644)
    assert plan.read_profile(profile) == ("[connection]\n", False)
    assert plan.read_profile(tmp_path / "missing") == ("", False)


# names


HUB = [{"name": "hub.energy.example", "address": "10.1.1.2"}]


def test_our_names_are_first_and_those_of_others_stay() -> None:
    own = "127.0.0.1 localhost\n10.9.9.9 hub.energy.example\n"
    text = hosts.with_names(own, HUB)
    assert text.splitlines()[1] == "10.1.1.2 hub.energy.example"
    assert text.endswith(own)
    assert hosts.with_names(text, HUB) == text
    assert hosts.with_names(text, []) == own


def test_a_block_that_somebody_moved_or_cut_is_put_right() -> None:
    own = "127.0.0.1 localhost\n"
    right = hosts.with_names(own, HUB)
    block = right.removesuffix(own)
    assert hosts.with_names(own + block, HUB) == right
    assert hosts.with_names(own + block.replace("10.1.1.2", "10.1.1.3"), HUB) == right
    assert hosts.with_names("", []) == ""


def test_names_are_checked() -> None:
    found = hosts.faults([{"name": "a b", "address": "10.0.0.1"}, {"name": "hub", "address": "nowhere"}])
    assert found == [
        "hosts: 'a b' is no host name, such as hub.energy.example",
        "hosts: 'nowhere' of hub is no address, such as 10.0.0.2",
    ]


@pytest.mark.usefixtures("as_root")
def test_names_are_part_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
    state = snapshot()
    provision([connection()], state, tmp_path)
    made = make([connection()], state, tmp_path, hosts=HUB)
    assert made.names == "written"
    assert [Path(file["path"]).name for file in made.files] == ["hosts"]
    assert made.apply == []


@pytest.mark.usefixtures("as_root")
def test_names_are_kept_beside_bytes_that_are_no_text(tmp_path: Path) -> None:
    own = b"127.0.0.1 localhost\n# caf\xe9\n"
    (tmp_path / "hosts").write_bytes(own)
    made = make([connection()], snapshot(), tmp_path, hosts=HUB)
    (names,) = [file for file in made.files if file["path"].endswith("hosts")]
    assert names["content"].encode("utf-8", "surrogateescape").endswith(own)
    # What people are shown can be printed anywhere.
    for diff in made.diff:
        assert (diff["before"] + diff["after"]).encode()

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Links, addresses, routes and rules as the kernel has them, and how `ip` makes them that again."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from . import sysctls
from .errors import GuardError, StepError
from .host import Host

TIMEOUT = 5.0
ROUTE_KEYS = (
    "dst",
    "gateway",
    "via",
    "dev",
    "protocol",
    "scope",
    "prefsrc",
    "metric",
    "type",
    "nexthops",
    "metrics",
    "table",
)
# What selects in a rule, and where it leads: key -> the word of `ip rule`.
RULE_WORDS = {
    "priority": "priority",
    "src": "from",
    "dst": "to",
    "tos": "tos",
    "fwmark": "fwmark",
    "iif": "iif",
    "oif": "oif",
    "ipproto": "ipproto",
    "sport": "sport",
    "dport": "dport",
    "table": "table",
    "protocol": "protocol",
}
# Settings of a link that are not its own: one follows the MTU, the other cannot be read.
NOT_KEPT = ("mtu", "stable_secret")
# Routes and addresses of these come and go with what routers announce; nobody can hold on to them.
ANNOUNCED = ("ra", "redirect")
# Modems: what they carry gets its address from the network, whatever the kernel calls it.
MODEMS = ("ww", "ppp")
FOR_EVER = 2**32 - 1


def _ask(host: Host, *arguments: str) -> list[dict[str, Any]]:
    done = host.run(["ip", "-json", *arguments], timeout=TIMEOUT)
    if done.code != 0:
        raise GuardError(f"ip {' '.join(arguments)}: {done.words}")
    return [item for item in json.loads(done.out or "[]") if item]


def _addresses(link: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for info in link.get("addr_info", []):
        scope = info.get("scope")
        if info["family"] == "inet6" and (
            # The kernel makes the first, a router the others.
            scope == "link" or any(info.get(key) for key in ("temporary", "dynamic", "mngtmpaddr"))
        ):
            continue
        address = {"family": info["family"], "local": info["local"], "prefix": info["prefixlen"]}
        if scope not in ("global", None):
            address["scope"] = scope
        for key in ("address", "broadcast", "label"):
            if info.get(key):
                address[key] = info[key]
        address["noprefixroute"] = bool(info.get("noprefixroute"))
        if info.get("dynamic") or link["ifname"].startswith(MODEMS):
            address["leased"] = True
        found.append(address)
    return found


def _leased(link: dict[str, Any]) -> set[str]:
    return {address["local"] for address in link["addresses"] if address.get("leased")}


def _routes(host: Host, family: str) -> list[dict[str, Any]]:
    found = []
    for item in _ask(host, family, "route", "show", "table", "all"):
        if item.get("table") == "local":
            continue  # the kernel makes them for each address
        if item.get("protocol") in ANNOUNCED or "expires" in item:
            continue
        if family == "-6" and item["dst"] in ("fe80::/64", "ff00::/8"):
            continue  # the kernel makes them for each link that is up
        route = {key: item[key] for key in ROUTE_KEYS if item.get(key)}
        route["family"] = family
        route["onlink"] = "onlink" in item.get("flags", [])
        found.append(route)
    return found


def _rules(host: Host, family: str) -> list[dict[str, Any]]:
    """The rules that choose among the tables, those that are always there left out."""
    return [
        {**rule, "family": family}
        for rule in _ask(host, family, "rule", "show")
        if rule.get("table") not in ("local", "main", "default") or rule.get("protocol") != "kernel"
    ]


def _settings(host: Host, name: str) -> dict[str, str | None]:
    """The settings of a link. With an MTU below 1280 the kernel forgets those of IPv6, and then begins with its own."""
    found = []
    for folder in (
        f"net/{family}/{kind}/{name}" for family in ("ipv4", "ipv6") for kind in ("conf", "neigh")
    ):
        place = host.at(f"/proc/sys/{folder}")
        if place.is_dir():
            found += [f"{folder}/{path.name}" for path in sorted(place.iterdir())]
    return sysctls.look(host, [key for key in found if key.rpartition("/")[2] not in NOT_KEPT])


def look(host: Host) -> dict[str, Any]:
    """Links with MTU, state, settings and addresses, and all routes and rules.

    The loopback is a link like any other: `nmcli networking off` changes its settings and its ::1 as well.
    """
    links = {}
    for item in _ask(host, "-details", "address", "show"):
        links[item["ifname"]] = {
            "up": "UP" in item.get("flags", []),
            "mtu": item["mtu"],
            "kind": item.get("linkinfo", {}).get("info_kind", ""),
            "addresses": _addresses(item),
            # How long an address from a DHCP server is ours, in seconds.
            "leases": {
                info["local"]: info["valid_life_time"]
                for info in item.get("addr_info", [])
                if info.get("valid_life_time", FOR_EVER) != FOR_EVER
            },
            "settings": _settings(host, item["ifname"]),
        }
    return {
        "links": links,
        "routes": _routes(host, "-4") + _routes(host, "-6"),
        "rules": _rules(host, "-4") + _rules(host, "-6"),
    }


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _missing(those: list[dict[str, Any]], these: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are not among these."""
    known = {_key(item) for item in these}
    return [item for item in those if _key(item) not in known]


def _name(route: dict[str, Any]) -> str:
    return " ".join(
        f"{key} {route[key]}" for key in ("dst", "gateway", "dev", "metric", "table") if key in route
    )


def _relevant(routes: list[dict[str, Any]], links: dict[str, Any]) -> list[dict[str, Any]]:
    """Routes over links that were there; what a container engine has added since is its own."""
    return [route for route in routes if route.get("dev") is None or route["dev"] in links]


def _without_leases(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A state without the addresses that some links have from elsewhere, and without the routes that go with them."""
    links = dict(state["links"])
    leased: dict[str, set[str]] = {}
    for name in names:
        leased[name] = _leased(links[name])
        own = [address for address in links[name]["addresses"] if not address.get("leased")]
        links[name] = {**links[name], "addresses": own}

    def goes_with(route: dict[str, Any]) -> bool:
        device = route.get("dev", "")
        return device in leased and (
            route.get("protocol") == "dhcp"
            or route.get("prefsrc") in leased[device]
            or device.startswith(MODEMS)
        )

    routes = [route for route in state["routes"] if not goes_with(route)]
    return {**state, "links": links, "routes": routes}


def _comparable(host: Host, was: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state as it was and as it is, without what nobody here can put back.

    A link that had its address from a DHCP server or a mobile network, and has another one from there now, is as it
    was. The old one may be somebody else's by now.
    """
    found = look(host)
    # Whoever has made these takes them away as well: a container that ends, a modem that is reset.
    ended = [
        name
        for name, link in was["links"].items()
        if name not in found["links"] and all(address.get("leased") for address in link["addresses"])
    ]
    was = {
        **was,
        "links": {name: link for name, link in was["links"].items() if name not in ended},
        "routes": [route for route in was["routes"] if route.get("dev") not in ended],
    }
    moved = [
        name
        for name, link in was["links"].items()
        if _leased(link)
        and name in found["links"]
        and _leased(found["links"][name]) not in (set(), _leased(link))
    ]
    return _without_leases(was, moved), _without_leases(found, moved)


def differences(host: Host, was: dict[str, Any]) -> list[str]:
    """Where the kernel's state is not what it was."""
    was, found = _comparable(host, was)
    lines = []
    for name, link in was["links"].items():
        now = found["links"].get(name)
        if now is None:
            lines.append(f"{name} is gone")
            continue
        if now["up"] != link["up"]:
            lines.append(f"{name} is {'up' if now['up'] else 'down'}")
        if now["mtu"] != link["mtu"]:
            lines.append(f"{name} has MTU {now['mtu']} instead of {link['mtu']}")
        for text, those, these in (
            ("lacks", link["addresses"], now["addresses"]),
            ("also has", now["addresses"], link["addresses"]),
        ):
            lines += [f"{name} {text} {item['local']}/{item['prefix']}" for item in _missing(those, these)]
        lines += sysctls.differences(host, link["settings"])
    routes = _relevant(found["routes"], was["links"])
    lines += [f"a route is missing: {_name(route)}" for route in _missing(was["routes"], routes)]
    lines += [f"a route is too much: {_name(route)}" for route in _missing(routes, was["routes"])]
    for text, those, these in (
        ("missing", was["rules"], found["rules"]),
        ("too much", found["rules"], was["rules"]),
    ):
        lines += [f"a rule is {text}: {' '.join(_rule_words(rule))}" for rule in _missing(those, these)]
    return lines


def _rule_words(rule: dict[str, Any]) -> list[str]:
    words = []
    for key, word in RULE_WORDS.items():
        if key in rule:
            length, mask = rule.get(f"{key}len"), rule.get("fwmask") if key == "fwmark" else None
            words += [word, f"{rule[key]}/{length or mask}" if length or mask else str(rule[key])]
    return words


def _address_words(address: dict[str, Any], device: str, valid: int | None) -> list[str]:
    words = [f"{address['local']}/{address['prefix']}"]
    if "address" in address:
        words = [address["local"], "peer", f"{address['address']}/{address['prefix']}"]
    for key in ("broadcast", "label", "scope"):
        if key in address and address["family"] == "inet":
            words += [key, address[key]]
    words += ["dev", device, *(["noprefixroute"] if address["noprefixroute"] else [])]
    # What was lent ends by itself, unless NetworkManager prolongs it.
    return words if valid is None else [*words, "valid_lft", str(valid), "preferred_lft", str(valid)]


def _hop_words(hop: dict[str, Any]) -> list[str]:
    words = []
    if "via" in hop:
        words += ["via", hop["via"]["family"], hop["via"]["host"]]
    if "gateway" in hop:
        words += ["via", hop["gateway"]]
    if "dev" in hop:
        words += ["dev", hop["dev"]]
    return words


def _route_words(route: dict[str, Any]) -> list[str]:
    words = [route["family"], "route", "replace", *([route["type"]] if "type" in route else []), route["dst"]]
    words += _hop_words(route)
    for key, word in (
        ("protocol", "proto"),
        ("scope", "scope"),
        ("prefsrc", "src"),
        ("metric", "metric"),
        ("table", "table"),
    ):
        if key in route:
            words += [word, str(route[key])]
    for metrics in route.get("metrics", []):
        for key, value in metrics.items():
            words += [key, str(value)]
    if route["onlink"]:
        words.append("onlink")
    for hop in route.get("nexthops", []):
        words += ["nexthop", *_hop_words(hop), "weight", str(hop.get("weight", 1))]
    return words


def put_back(host: Host, was: dict[str, Any]) -> None:
    """Set links, addresses and routes as they were, without asking anybody else."""

    def ip(*arguments: str) -> None:
        host.run(["ip", *arguments], timeout=TIMEOUT)

    whole = was
    was, found = _comparable(host, whole)
    for name, link in was["links"].items():
        now = found["links"].get(name)
        if now is None:
            continue
        if now["mtu"] != link["mtu"]:
            ip("link", "set", "dev", name, "mtu", str(link["mtu"]))
        if link["up"] and not now["up"]:
            ip("link", "set", "dev", name, "up")
        _put_settings_back(host, link["settings"])
        for address in _missing(now["addresses"], link["addresses"]):
            ip("address", "del", f"{address['local']}/{address['prefix']}", "dev", name)
        for address in _missing(link["addresses"], look(host)["links"].get(name, link)["addresses"]):
            ip("address", "replace", *_address_words(address, name, link["leases"].get(address["local"])))
        if now["up"] and not link["up"]:
            ip("link", "set", "dev", name, "down")
    # A link that came up has brought routes of its own, so look again.
    was, found = _comparable(host, whole)
    routes = _relevant(found["routes"], was["links"])
    for route in _missing(routes, was["routes"]):
        words = [word for word in _route_words(route) if word != "onlink"]
        ip(words[0], "route", "del", *words[3:])
    # What is reached without a gateway first: gateways have to be reachable themselves.
    for route in sorted(
        _missing(was["routes"], routes), key=lambda item: "gateway" in item or "nexthops" in item
    ):
        ip(*_route_words(route))
    rules = look(host)["rules"]
    for rule in _missing(rules, was["rules"]):
        ip(rule["family"], "rule", "del", *_rule_words(rule))
    for rule in _missing(was["rules"], rules):
        ip(rule["family"], "rule", "add", *_rule_words(rule))


def _put_settings_back(host: Host, values: dict[str, str | None]) -> None:
    """As many as the kernel takes: what it refuses is found by the comparison that follows."""
    found = sysctls.look(host, list(values))
    for name, value in values.items():
        if value is not None and found[name] not in (None, value):
            with suppress(StepError):
                sysctls.write(host, name, value)

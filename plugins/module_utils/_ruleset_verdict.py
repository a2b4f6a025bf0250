# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Whether a ruleset may be loaded on this host: who has to get through it, and who must not."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from ._ruleset_trial import Knock, NoTrialError, try_ruleset
from .guard.peer import Connection, connection


def verdict(
    script: str, probes: Sequence[dict[str, Any]], strangers: Sequence[str]
) -> tuple[list[str], str | None]:
    """What was tried, a line a connection; and why the ruleset in the file `script` is refused, None if it is not."""
    controller = connection()
    knocks = _ours(controller) + _probes(probes) + _strangers(controller, strangers)
    if not knocks:
        raise NoTrialError("there is no SSH connection and no route to anything that could be tried")
    came = try_ruleset(script, knocks)
    lines = [
        f"{_words(knock)}: {'comes through' if yes else 'does not come through'}"
        for knock, yes in zip(knocks, came, strict=True)
    ]
    return lines, refusal(knocks, came)


def refusal(knocks: Sequence[Knock], came: Sequence[bool]) -> str | None:
    """The worst that a trial has found, in one line; None if all is well."""
    for knock, yes in zip(knocks, came, strict=True):
        if not knock.expected or yes:
            continue
        if knock.incoming:
            return (
                f"this controller would be locked out: a new connection from {knock.source} to port {knock.port} does "
                f"not come through; let {knock.source} in, for instance by management.networks of the fleet file"
            )
        return f"the host would be cut off: a connection to {knock.destination} port {knock.port} does not come through"
    strangers = [knock for knock in knocks if not knock.expected]
    if strangers and all(yes for knock, yes in zip(knocks, came, strict=True) if not knock.expected):
        return (
            f"everybody could log in: connections from {', '.join(knock.source for knock in strangers)} to port "
            f"{strangers[0].port} come through; name the networks of those who may"
        )
    return None


def _words(knock: Knock) -> str:
    if knock.incoming:
        return f"from {knock.source} to port {knock.port}"
    return f"to {knock.destination} port {knock.port}"


def _ours(controller: Connection | None) -> list[Knock]:
    """The controller comes again as it has come now. Loopback is always open, and a link-local address is no use
    without its link."""
    if controller is None or controller.controller.startswith(("127.", "::1", "fe80:")):
        return []
    return [_incoming(controller, controller.controller, expected=True)]


def _strangers(controller: Connection | None, addresses: Sequence[str]) -> list[Knock]:
    if controller is None or not _ours(controller):
        return []
    family = ":" in controller.address
    return [_incoming(controller, one, expected=False) for one in addresses if (":" in one) == family]


def _incoming(controller: Connection, source: str, *, expected: bool) -> Knock:
    back = _interface_of(controller.address)
    route = _route(source) or {"dev": back}
    return Knock(source, controller.address, controller.port, True, expected, route["dev"], back)


def _probes(probes: Sequence[dict[str, Any]]) -> list[Knock]:
    """Where the host has no route now, no ruleset can be to blame."""
    found = []
    for probe in probes:
        for address in _addresses_of(probe["host"]):
            route = _route(address)
            if route is not None and route["dev"] != "lo":
                source = route["prefsrc"]
                found.append(
                    Knock(source, address, probe["port"], False, True, route["dev"], _interface_of(source))
                )
    return found


def _addresses_of(host: str) -> list[str]:
    """The address that the host knows for a name, which may be an address already; none if it knows none."""
    try:
        return [str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])]
    except OSError:
        return []


def _route(address: str) -> dict[str, str] | None:
    """The kernel's way to an address: `dev` and `prefsrc`; None if it has none."""
    done = subprocess.run(
        ["ip", "-json", "route", "get", address], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return None
    route = json.loads(done.stdout)[0]
    return route if "dev" in route and "prefsrc" in route else None


def _interface_of(address: str) -> str:
    """The interface that has an address of this host."""
    done = subprocess.run(["ip", "-json", "address", "show"], capture_output=True, text=True, check=False)
    for link in json.loads(done.stdout or "[]"):
        if any(one.get("local") == address for one in link.get("addr_info", [])):
            return str(link["ifname"])
    raise NoTrialError(f"no interface has the address {address}")

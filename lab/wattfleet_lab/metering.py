# SPDX-License-Identifier: Apache-2.0
"""The description that the meter simulator serves, made from the site files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from wattfleet_lab import network
from wattfleet_lab.addresses import Plan
from wattfleet_lab.host import Host

# Where the bus of a site file speaks RTU frames over TCP, so does the listener.
_FRAMING = {"modbus-tcp": "tcp", "rtu-over-tcp": "rtu"}


def describe_meters(plan: Plan, gateways: list[Host], epoch: str) -> dict[str, Any]:
    """``{"epoch", "sites": [{"site", "netns", "seed", "timezone", "listeners": […]}]}``.

    A listener is ``{"address", "port", "framing", "units"}``, a unit ``{"unit", "model", "name", "role",
    "options"}``. The seed depends on the site's name only.
    """
    return {"epoch": epoch, "sites": [_site(plan, host) for host in gateways if host.site_file]}


def _site(plan: Plan, host: Host) -> dict[str, Any]:
    content = yaml.safe_load(Path(str(host.site_file)).read_text())
    listeners: dict[tuple[str, int], dict[str, Any]] = {}
    of_bus: dict[str, dict[str, Any]] = {}
    for bus in content.get("buses", []):
        if bus["type"] not in _FRAMING:
            continue
        address, port = str(bus["host"]), int(bus.get("port", 502))
        listener = {"address": address, "port": port, "framing": _FRAMING[bus["type"]], "units": []}
        of_bus[bus["name"]] = listeners.setdefault((address, port), listener)
    for meter in content.get("meters", []):
        if "radio" in meter:
            # Nobody is asked: see wattfleet_lab.radio.
            continue
        options = {key: meter[key] for key in ("ct_ratio", "pt_ratio", "channels") if key in meter}
        of_bus[meter["bus"]]["units"].append(
            {
                "unit": meter["unit"],
                "model": meter["profile"],
                "name": meter["name"],
                "role": meter.get("role", "consumption"),
                "options": options,
            }
        )
    return {
        "site": host.name,
        "netns": str(network.NETNS / plan.machine(host.name)),
        "seed": int.from_bytes(hashlib.sha256(host.name.encode()).digest()[:4], "big"),
        "timezone": content.get("timezone", "UTC"),
        "listeners": list(listeners.values()),
    }

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The state of network links, from sysfs: `Documentation/ABI/testing/sysfs-class-net` and `-statistics` of
the kernel.
"""

from __future__ import annotations

import pathlib
import typing as t

# Errors of the physical layer and of a full queue; collisions only count where the duplex does not match.
ERROR_COUNTERS = (
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_over_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "collisions",
)
# Dropped packets are left out: a kernel also drops what it has no listener for, on a healthy link.
WATCHED = (
    "rx_errors",
    "tx_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "tx_carrier_errors",
    "collisions",
    "carrier_down",
)
DEFAULT_PATH = "/sys/class/net"
# What carries a link, and so what to look at when there is none.
_NO_CARRIER = {
    "bond": "none of its ports has a link: check their cables, and the switch",
    "vlan": "the interface that carries it has no link: check that one",
    "wwan": "the modem has no connection: check antenna, SIM, and the modem's state (mmcli -m any)",
}


def read(path: str, interfaces: list[str] | None) -> dict[str, dict[str, t.Any]]:
    """State and counters of `interfaces` (all but the loopback when None). A missing interface has `present`
    false.
    """
    root = pathlib.Path(path)
    if interfaces is None:
        try:
            # `bonding_masters` is a file in there, not a link.
            names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name != "lo")
        except OSError:
            names = []
    else:
        names = interfaces
    return {name: _read_one(root / name) for name in names}


def counters_of(links: dict[str, dict[str, t.Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """The counters of a look in the shape that growth() compares."""
    return {"links": {name: dict(link["counters"]) for name, link in links.items() if link["present"]}}


def judge(
    links: dict[str, dict[str, t.Any]], speed_min: int | None, duplex: str | None
) -> list[dict[str, str]]:
    """What is wrong with the links now: {interface, finding, message}."""
    findings = []
    for name, link in sorted(links.items()):
        if not link["present"]:
            message = (
                "there is no such interface: check its name, its driver, and whether a modem is plugged in"
            )
            findings.append(_finding(name, "missing", message))
        elif not link["carrier"]:
            wired = "no link: check cable, plug, and the port of the switch"
            findings.append(_finding(name, "no_carrier", _NO_CARRIER.get(link["kind"], wired)))
        else:
            if speed_min is not None and link["speed"] is not None and link["speed"] < speed_min:
                message = f"{link['speed']} Mb/s in place of {speed_min}: check all pairs of the cable"
                findings.append(_finding(name, "speed", message))
            if duplex is not None and link["duplex"] not in (None, duplex):
                message = f"{link['duplex']} duplex in place of {duplex}: set both ends to negotiate"
                findings.append(_finding(name, "duplex", message))
    return findings


def _finding(interface: str, finding: str, message: str) -> dict[str, str]:
    return {"interface": interface, "finding": finding, "message": message}


def _read_one(folder: pathlib.Path) -> dict[str, t.Any]:
    if not folder.is_dir():
        return {
            "present": False,
            "kind": None,
            "operstate": None,
            "carrier": False,
            "speed": None,
            "duplex": None,
            "mtu": None,
            "counters": {},
        }
    speed = _integer(folder / "speed")
    duplex = _text(folder / "duplex")
    counters = {name: _integer(folder / "statistics" / name) for name in ERROR_COUNTERS}
    counters["carrier_down"] = _integer(folder / "carrier_down_count")
    return {
        "present": True,
        "kind": _kind(folder),
        "operstate": _text(folder / "operstate"),
        "carrier": _integer(folder / "carrier") == 1,
        # Drivers without a notion of speed say -1, or refuse to be read.
        "speed": speed if speed is not None and speed > 0 else None,
        "duplex": duplex if duplex in ("full", "half") else None,
        "mtu": _integer(folder / "mtu"),
        "counters": {name: value for name, value in counters.items() if value is not None},
    }


def _kind(folder: pathlib.Path) -> str:
    """`bond`, `vlan`, `wwan` and so on, as the driver says; Ethernet says nothing."""
    for line in (_text(folder / "uevent") or "").splitlines():
        if line.startswith("DEVTYPE="):
            return line[len("DEVTYPE=") :]
    return "ethernet"


def _text(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        # The kernel answers EINVAL for carrier, speed and duplex of a link that is down.
        return None


def _integer(path: pathlib.Path) -> int | None:
    text = _text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Who listens on which port, from /proc: proc(5), and net/ipv4/tcp_ipv4.c of the kernel for the columns."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import sys
import typing as t

_TABLES = (("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"))
_LISTENING = {"tcp": "0A", "udp": "07"}
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_PROC = "/proc"


def listeners(proc: str = _PROC) -> list[dict[str, t.Any]]:
    """Every listening TCP and every unconnected UDP socket: protocol, address, port, and the name of its process (None
    where only root may know). One that several processes share is told once."""
    found: dict[tuple[str, str, int], set[str]] = {}
    for protocol, table in _TABLES:
        for address, port, inode in _listening(pathlib.Path(proc, "net", table), protocol):
            found.setdefault((protocol, address, port), set()).add(inode)
    holders = _holders(proc, {inode for inodes in found.values() for inode in inodes}) if found else {}
    return [
        {
            "protocol": protocol,
            "address": address,
            "port": port,
            "process": next((holders[inode] for inode in sorted(inodes) if inode in holders), None),
        }
        for (protocol, address, port), inodes in sorted(found.items())
    ]


def _listening(path: pathlib.Path, protocol: str) -> t.Iterator[tuple[str, int, str]]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return  # a kernel without IPv6 has no such table
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTENING[protocol]:
            address, port = fields[1].split(":")
            yield _address(address), int(port, 16), fields[9]


def _address(text: str) -> str:
    """The kernel prints an address as 32-bit words in its own byte order."""
    data = bytes.fromhex(text)
    if sys.byteorder == "little":
        data = b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))
    return str(ipaddress.ip_address(data))


def _holders(proc: str, inodes: set[str]) -> dict[str, str]:
    """inode -> name of the process that has it open. systemd keeps those that it hands to a service: the service
    counts."""
    found: dict[str, str] = {}
    pids = [entry for entry in pathlib.Path(proc).iterdir() if entry.name.isdigit()]
    for pid in sorted(pids, key=lambda entry: int(entry.name), reverse=True):
        try:
            handles = list((pid / "fd").iterdir())
        except OSError:
            continue  # it has ended, or is somebody else's
        for handle in handles:
            try:
                match = _SOCKET.match(os.readlink(handle))  # noqa: PTH115  half the time, thousands of times
            except OSError:
                continue
            if match and match[1] in inodes and (pid.name != "1" or match[1] not in found):
                found[match[1]] = _name(pid)
    return found


def _name(pid: pathlib.Path) -> str:
    try:
        return (pid / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "?"

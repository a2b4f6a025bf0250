# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Who listens on which port, from /proc: proc(5), and net/ipv4/tcp_ipv4.c of the kernel for the columns.

Which unit that is tells the process's control group; of the sockets that systemd holds itself, systemd.
"""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import sys
import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils._services import RunCommand

_TABLES = (("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"))
_LISTENING = {"tcp": "0A", "udp": "07"}
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_UNIT = re.compile(r"/([^/]+\.(?:service|scope))(?:/|$)")
_LISTEN = re.compile(r"Listen=.*:(\d+) \((Stream|Datagram)\)")
_KINDS = {"Stream": "tcp", "Datagram": "udp"}
_PROC = "/proc"


def listeners(run_command: RunCommand, proc: str = _PROC) -> list[dict[str, t.Any]]:
    """Every listening TCP and every unconnected UDP socket: protocol, address, port, the name of its process (None
    where only root may know), and the units that hold it. One that several processes share is told once."""
    found: dict[tuple[str, str, int], set[str]] = {}
    for protocol, table in _TABLES:
        for address, port, inode in _listening(pathlib.Path(proc, "net", table), protocol):
            found.setdefault((protocol, address, port), set()).add(inode)
    holders = _holders(proc, {inode for inodes in found.values() for inode in inodes}) if found else {}
    sockets = _socket_units(run_command) if any("1" in pids for pids in holders.values()) else {}
    told = []
    for (protocol, address, port), inodes in sorted(found.items()):
        pids = [pid for inode in sorted(inodes) for pid in holders.get(inode, [])]
        units = {_unit(proc, pid) for pid in pids if pid != "1"}
        if "1" in pids:
            units.update(sockets.get((protocol, port), ()))
        told.append(
            {
                "protocol": protocol,
                "address": address,
                "port": port,
                "process": _name(proc, pids[0]) if pids else None,
                "units": sorted(unit for unit in units if unit),
            }
        )
    return told


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


def _holders(proc: str, inodes: set[str]) -> dict[str, list[str]]:
    """inode -> the processes that have it open. systemd, which keeps those that it hands to a service, comes last."""
    found: dict[str, list[str]] = {}
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
            if match and match[1] in inodes and pid.name not in found.setdefault(match[1], []):
                found[match[1]].append(pid.name)
    return found


def _name(proc: str, pid: str) -> str:
    try:
        return pathlib.Path(proc, pid, "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "?"


def _unit(proc: str, pid: str) -> str | None:
    """The system's unit that a process belongs to; a session of a person is a scope."""
    try:
        match = _UNIT.search(pathlib.Path(proc, pid, "cgroup").read_text(encoding="utf-8"))
    except OSError:
        return None
    return match[1] if match else None


def _socket_units(run_command: RunCommand) -> dict[tuple[str, int], set[str]]:
    """(protocol, port) -> the units whose sockets systemd has opened."""
    _code, out, _err = run_command(["systemctl", "show", "--property=Id,Listen", "*.socket"])
    found: dict[tuple[str, int], set[str]] = {}
    for block in out.split("\n\n"):
        name = re.search(r"^Id=(.+)$", block, re.MULTILINE)
        for match in _LISTEN.finditer(block):
            if name:
                found.setdefault((_KINDS[match[2]], int(match[1])), set()).add(name[1])
    return found

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Where the controller comes from, found out on the host."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


def _status(process: int, proc: Path) -> tuple[int, float]:
    """Parent of a process, and the seconds from the boot to its start."""
    # The program's name stands in brackets and may hold anything, so what counts comes after the last one.
    fields = (
        (proc / str(process) / "stat")
        .read_text(encoding="utf-8", errors="replace")
        .rpartition(")")[2]
        .split()
    )
    return int(fields[1]), int(fields[19]) / os.sysconf("SC_CLK_TCK")


def ancestors(proc: Path = Path("/proc")) -> Iterator[tuple[int, float]]:
    """This process and those above it, with the seconds from the boot to the start of each."""
    process = os.getpid()
    while process > 0:
        try:
            parent, started = _status(process, proc)
        except (OSError, ValueError, IndexError):
            return
        yield process, started
        process = parent


def _words(process: int, what: str, proc: Path) -> list[str]:
    try:
        text = (proc / str(process) / what).read_bytes()
    except OSError:
        return []
    return [word.decode(errors="replace") for word in text.split(b"\0") if word]


class Connection(NamedTuple):
    """The SSH connection that this process runs in: where it comes from, and where it has been taken."""

    controller: str
    address: str
    port: int


def controller_address(proc: Path = Path("/proc")) -> str | None:
    """The address that the controller's SSH connection comes from; None where there is no such connection."""
    found = connection(proc)
    return found.controller if found else None


def connection(proc: Path = Path("/proc")) -> Connection | None:
    """The controller's SSH connection; None where there is no such connection.

    sudo clears the environment of what it starts, so the processes above it are asked, too.
    """
    for process, _started in ancestors(proc):
        for word in _words(process, "environ", proc):
            name, _equals, value = word.partition("=")
            if name == "SSH_CONNECTION" and value:
                controller, _port, address, port = value.split()
                return Connection(controller, address, int(port))
    return None


def connection_age(proc: Path = Path("/proc")) -> float | None:
    """Seconds since sshd began to serve the connection that this process runs in; None where there is none."""
    begun = None
    for process, started in ancestors(proc):
        words = " ".join(_words(process, "cmdline", proc))
        if words.startswith("sshd") and "[listener]" not in words:
            begun = started
    return None if begun is None else time.clock_gettime(time.CLOCK_BOOTTIME) - begun

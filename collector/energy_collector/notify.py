# SPDX-License-Identifier: Apache-2.0
"""Tells systemd how we are, by the protocol of sd_notify(3): datagrams to the socket named in the
environment."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send a state such as READY=1; nothing happens where systemd does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)
            sock.sendall(state.encode())
        except OSError:
            # Without systemd's ear there is nobody to tell; its own time-out decides.
            return


def watchdog_interval() -> float | None:
    """How often to send WATCHDOG=1, in s: a third of what systemd waits; None when it does not watch."""
    period = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", "")
    if not period.isdigit() or (owner and owner != str(os.getpid())):
        return None
    return int(period) / 3_000_000

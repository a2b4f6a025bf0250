# SPDX-License-Identifier: Apache-2.0
"""Ports for servers that a test starts, or stops and starts again."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_000


def free_port() -> int:
    """A TCP port of loopback that nobody uses just now, below those that the kernel gives to connections: one of these
    might be gone before the server is there, or while it is stopped."""
    lent = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chance = random.SystemRandom()  # tests that run side by side have seeded the other one alike
    while True:
        with socket.socket() as one:
            port = chance.randrange(LOWEST, lent)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

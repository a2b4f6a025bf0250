# SPDX-License-Identifier: Apache-2.0
"""A WAN between two network namespaces: the gateway's in one, the hub's in the other."""

from __future__ import annotations

import itertools
import os
import subprocess

NEAR, FAR = "10.213.0.1", "10.213.0.2"
DEVICE = "wan"
PREFIX = "wf-fault"
_numbers = itertools.count(1)

# Drops what comes in over the WAN; traffic within a namespace is left alone.
_LOSS = """
table inet loss {
    chain input {
        type filter hook input priority 0;
        iifname "wan" numgen random mod 1000 <= %d drop
    }
}
"""


def command(*words: str, text: str = "") -> str:
    """Run a program; its output. Raises AssertionError with what it says."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


def sweep() -> None:
    """Remove namespaces of runs that were killed before they could."""
    for line in command("ip", "netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(f"{PREFIX}-") and not os.path.exists(f"/proc/{name.split('-')[2]}"):  # noqa: PTH110  (a name in /proc, no path of ours)
            command("ip", "netns", "del", name)


class Wan:
    """Two namespaces with a veth pair between them, or with nothing when something else is to join them."""

    def __init__(self, *, joined: bool = True) -> None:
        name = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.near, self.far = f"{name}a", f"{name}b"
        self._joined = joined

    def __enter__(self) -> Wan:
        sweep()
        try:
            for one in (self.near, self.far):
                command("ip", "netns", "add", one)
                command("ip", "-n", one, "link", "set", "lo", "up")
            if self._joined:
                peer = ["peer", "name", DEVICE, "netns", self.far]
                command("ip", "-n", self.near, "link", "add", DEVICE, "type", "veth", *peer)
                self.give_addresses()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", one], capture_output=True, check=False)

    def give_addresses(self) -> None:
        """Address both ends and switch them on."""
        for netns, address, peer in ((self.near, NEAR, FAR), (self.far, FAR, NEAR)):
            command("ip", "-n", netns, "address", "add", address, "peer", peer, "dev", DEVICE)
            command("ip", "-n", netns, "link", "set", DEVICE, "up")

    def lose(self, percent: float, *, to_hub: bool = True, from_hub: bool = True) -> None:
        """Drop so much of what comes in, each way by itself; 0 ends it."""
        for netns, wanted in ((self.far, to_hub), (self.near, from_hub)):
            flush = "add table inet loss\ndelete table inet loss\n"
            rules = _LOSS % (round(percent * 10) - 1) if wanted and percent else ""
            command("ip", "netns", "exec", netns, "nft", "-f", "-", text=flush + rules)

    def switch(self, on: bool) -> None:
        """The gateway's end of the WAN goes away, or comes back."""
        command("ip", "-n", self.near, "link", "set", DEVICE, "up" if on else "down")

# SPDX-License-Identifier: Apache-2.0
"""A long link between two network namespaces: each packet is held for a time, and no flow is reordered.

For kernels without netem. A TUN device in each namespace ends in this one process, which hands the packets over late:

    with Wan(joined=False) as wan, LongLink(wan, delay=0.3, jitter=0.02, rate=16_000):
        …

As a command it does the same for two namespaces that exist:

    python -m tests.fault.rig.delay NEAR FAR --delay 0.3 --jitter 0.02 --rate 16000
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from tests.fault.rig.namespaces import DEVICE, Wan
from tests.fault.rig.process import Process, wait_for

# <linux/if_tun.h>, <linux/sched.h>
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MTU = 1500
# Packets that wait for one direction; beyond that they are dropped, as a modem's queue does.
QUEUE = 2000
READY = "ready"


def _enter(netns: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(netns, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def open_tun(netns: str) -> int:
    """A TUN device named `wan` in a namespace. It lives as long as its descriptor."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    try:
        _enter(there)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    finally:
        _enter(here)
        os.close(here)
        os.close(there)
    return device


class Direction:
    """Packets on their way from one device to the other, in order. Times are monotonic s."""

    def __init__(self, source: int, target: int, delay: float, jitter: float, rate: float | None) -> None:
        self.source = source
        self._target = target
        self._delay = delay
        self._jitter = jitter
        self._rate = rate
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._line_free = 0.0

    @property
    def due(self) -> float | None:
        """When the next packet arrives."""
        return self._waiting[0][0] if self._waiting else None

    def take(self) -> None:
        """All packets that have been sent."""
        while True:
            try:
                packet = os.read(self.source, MTU + 100)
            except BlockingIOError:
                return
            if len(self._waiting) >= QUEUE:
                continue
            sent = time.monotonic()
            if self._rate is not None:
                sent = self._line_free = max(self._line_free, sent) + len(packet) / self._rate
            due = sent + self._delay + random.uniform(0, self._jitter)
            if self._waiting:
                due = max(due, self._waiting[-1][0])
            self._waiting.append((due, packet))

    def give(self, now: float) -> None:
        """All packets whose time has come."""
        while self._waiting and self._waiting[0][0] <= now:
            _, packet = self._waiting.popleft()
            try:
                os.write(self._target, packet)
            except OSError as error:
                # The device at the other end is switched off: what arrives there is lost.
                print(f"a packet of {len(packet)} bytes is lost: {error.strerror}", file=sys.stderr)


def relay(near: int, far: int, delay: float, jitter: float, rate: float | None) -> None:
    """Hand packets over for ever."""
    ways = [Direction(near, far, delay, jitter, rate), Direction(far, near, delay, jitter, rate)]
    while True:
        dues = [way.due for way in ways if way.due is not None]
        wait = max(min(dues) - time.monotonic(), 0) if dues else None
        readable, _, _ = select.select([near, far], [], [], wait)
        for way in ways:
            if way.source in readable:
                way.take()
            way.give(time.monotonic())


class LongLink:
    """Joins the two namespaces of a WAN; a process of its own, so that a busy test does not add to the delay."""

    def __init__(self, wan: Wan, *, delay: float, jitter: float = 0.0, rate: float | None = None) -> None:
        options = ["--delay", str(delay), "--jitter", str(jitter)]
        if rate is not None:
            options += ["--rate", str(rate)]
        self._wan = wan
        log = Path(tempfile.gettempdir()) / f"{wan.near}.log"
        self._log = log
        self._process = Process.module("tests.fault.rig.delay", wan.near, wan.far, *options, log=log)

    def __enter__(self) -> LongLink:
        self._process.start()
        try:
            wait_for(lambda: READY in self._process.journal or not self._process.alive, "the TUN devices")
            assert self._process.alive, self._process.journal
            self._wan.give_addresses()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._log.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Join two network namespaces by a long link.")
    parser.add_argument("near")
    parser.add_argument("far")
    parser.add_argument("--delay", type=float, default=0.3, help="s, each way")
    parser.add_argument("--jitter", type=float, default=0.0, help="s, on top, evenly spread")
    parser.add_argument("--rate", type=float, help="bytes a second, each way")
    options = parser.parse_args()
    near, far = open_tun(options.near), open_tun(options.far)
    print(READY, flush=True)
    relay(near, far, options.delay, options.jitter, options.rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""A link for ssh that dies after so many bytes, or that is far away: `ProxyCommand=python weak_link.py STATE %h %p`.

STATE is a JSON file: `lives` are the bytes that the next connections last, one each, taken from the front; after them
a connection lasts. `delay` is the way in one direction, s; `rate` in bytes/s, 0 = none. What each connection has
carried towards the host is added to STATE.carried, a line each.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

BLOCK = 16 * 1024


def take_life(state: Path) -> tuple[int | None, float, float]:
    """What is told of this connection; it is taken out of the file."""
    with state.open("r+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        told = json.load(stream)
        life = told["lives"].pop(0) if told["lives"] else None
        stream.seek(0)
        stream.truncate()
        json.dump(told, stream)
    return life, float(told.get("delay", 0)), float(told.get("rate", 0))


class Way:
    """One direction: what was read is written when its time has come."""

    def __init__(self, source: int, target: int, delay: float, rate: float) -> None:
        self.source, self.target, self.delay, self.rate = source, target, delay, rate
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.free = 0.0
        self.open = True
        self.carried = 0

    def take(self) -> None:
        block = os.read(self.source, BLOCK)
        if not block:
            self.open = False
            return
        now = time.monotonic()
        self.free = max(self.free, now) + (len(block) / self.rate if self.rate else 0)
        self.waiting.append((self.free + self.delay, block))

    def give(self) -> None:
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            block = self.waiting.popleft()[1]
            self.carried += len(block)
            while block:
                block = block[os.write(self.target, block) :]

    @property
    def wants(self) -> bool:
        # No more in the air than a link holds, so that ssh feels how fast it is.
        return self.open and len(self.waiting) < 64


def main() -> None:
    state, host, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    peer = socket.create_connection((host, port), timeout=15)
    peer.settimeout(None)
    # Not before: a host that is off takes no life.
    life, delay, rate = take_life(state)
    ways = [Way(0, peer.fileno(), delay, rate), Way(peer.fileno(), 1, delay, rate)]
    try:
        carry(ways, life)
    finally:
        with Path(f"{state}.carried").open("a", encoding="utf-8") as stream:
            stream.write(f"{ways[0].carried}\n")


def carry(ways: list[Way], life: int | None) -> None:
    """Until one end has closed, or the connection has lived its life."""
    while any(way.open or way.waiting for way in ways):
        due = [way.waiting[0][0] for way in ways if way.waiting]
        wait = max(min(due) - time.monotonic(), 0) if due else None
        ready = select.select([way.source for way in ways if way.wants], [], [], wait)[0]
        for way in ways:
            if way.source in ready:
                way.take()
            way.give()
        if life is not None and ways[0].carried >= life:
            return
        if not ways[1].open and not ways[1].waiting:
            return


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print(f"weak_link: {error}", file=sys.stderr)
        sys.exit(1)

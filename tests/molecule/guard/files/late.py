#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A ProxyCommand whose link is long: late.py SECONDS HOST PORT

What is sent arrives so many seconds later, either way.
"""

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable

PIECE = 65536


def carry(read: Callable[[], bytes], write: Callable[[bytes], object], delay: float) -> None:
    """Hand on what is read, late and in order, until there is no more."""
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def take() -> None:
        piece = b"the first one"
        while piece:
            piece = read()
            waiting.put((time.monotonic() + delay, piece))

    threading.Thread(target=take, daemon=True).start()
    while True:
        due, piece = waiting.get()
        time.sleep(max(due - time.monotonic(), 0))
        if not piece:
            return
        write(piece)


def main() -> None:
    delay, host, port = float(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with socket.create_connection((host, port)) as far:

        def up() -> None:
            carry(lambda: os.read(0, PIECE), far.sendall, delay)
            far.shutdown(socket.SHUT_WR)

        def down(piece: bytes) -> None:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()

        threading.Thread(target=up, daemon=True).start()
        carry(lambda: far.recv(PIECE), down, delay)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Opens connections to sshd, says nothing and holds them: hold.py ADDRESS COUNT SECONDS

Prints how many of them sshd still serves after half of the time: those that it refuses it closes at once.
"""

import socket
import sys
import time


def main() -> None:
    address, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    held = []
    for _ in range(count):
        one = socket.create_connection((address, 22), timeout=5)
        one.setblocking(False)
        held.append(one)
    time.sleep(seconds / 2)
    served = 0
    for one in held:
        said = b""
        try:
            while part := one.recv(4096):
                said += part
            # Ended: whatever it has said, it was sent away.
        except BlockingIOError:
            served += said.startswith(b"SSH-")
        except OSError:
            pass
    print(served, flush=True)
    time.sleep(seconds / 2)


if __name__ == "__main__":
    main()

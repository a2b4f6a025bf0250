#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the ports that answer as a JSON list: try_ports.py tcp|udp ADDRESS PORT,PORT,FIRST-LAST"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

WAIT = 1.0  # s; the lab's hosts are a fraction of a millisecond apart


def tcp_answers(address: str, port: int) -> bool:
    """Whether a connection is taken. Refused and dropped are both no."""
    try:
        with socket.create_connection((address, port), timeout=WAIT):
            return True
    except OSError:
        return False


def udp_answers(address: str, port: int) -> bool:
    """Whether a datagram is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(WAIT)
        try:
            probe.connect((address, port))
            probe.send(b"?")
            return bool(probe.recv(64))
        except OSError:
            return False


def ports_of(text: str) -> list[int]:
    """`22,80-82` as [22, 80, 81, 82]."""
    ports: list[int] = []
    for part in text.split(","):
        first, _dash, last = part.partition("-")
        ports += range(int(first), int(last or first) + 1)
    return ports


def main() -> None:
    protocol, address, text = sys.argv[1:]
    ports = ports_of(text)
    answers = tcp_answers if protocol == "tcp" else udp_answers
    with ThreadPoolExecutor(max_workers=400) as pool:
        answered = pool.map(lambda port: answers(address, port), ports)
        print(json.dumps(sorted(port for port, yes in zip(ports, answered, strict=True) if yes)))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends packets as somebody might who means harm.

packets.py ask COUNT ADDRESS PORT SOURCE_PORT     sends as many datagrams from that port; prints how many were answered
packets.py connect COUNT ADDRESS PORT [SOURCE]    opens as many TCP connections at once; prints how many were taken
packets.py flood COUNT ADDRESS PORT [SOURCE]      sends as many datagrams, one close on the other
packets.py advertise INTERFACE PREFIX             announces itself as a router for a /64, three times
packets.py nonsense COUNT ADDRESS PORT SOURCE     sends TCP segments that belong to no connection and begin none
"""

import ipaddress
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

WAIT = 1.5  # s; the lab's hosts are a fraction of a millisecond apart
ALL_NODES = "ff02::1"


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def taken(address: str, port: int, source: str) -> bool:
    with socket.socket(family_of(address), socket.SOCK_STREAM) as attempt:
        attempt.settimeout(WAIT)
        try:
            attempt.bind((source, 0))
            attempt.connect((address, port))
        except OSError:
            return False
    return True


def connect(count: int, address: str, port: int, source: str = "") -> int:
    with ThreadPoolExecutor(max_workers=count) as pool:
        return sum(pool.map(lambda _: taken(address, port, source), range(count)))


def flood(count: int, address: str, port: int, source: str = "") -> None:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for _ in range(count):
            sender.sendto(b"?", (address, port))
            time.sleep(0.001)


def ask(count: int, address: str, port: int, source_port: str) -> int:
    far = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0][
        4
    ]  # with the link behind a percent sign
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as asker:
        asker.bind(("", int(source_port)))
        asker.settimeout(WAIT)
        answers = 0
        try:
            for _ in range(count):
                asker.sendto(b"?", far)
            while answers < count:
                asker.recv(64)
                answers += 1
        except TimeoutError:
            pass
    return answers


def advertise(interface: str, prefix: str) -> None:
    network = ipaddress.IPv6Network(prefix)
    # RFC 4861: type 134, hop limit 64, router for 1800 s; option 3 is the prefix, on link and to make addresses from.
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    message += (
        struct.pack("!BBBBIII", 3, 4, network.prefixlen, 0xC0, 3600, 1800, 0) + network.network_address.packed
    )
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        index = socket.if_nametoindex(interface)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        for _ in range(3):
            sender.sendto(message, (ALL_NODES, 0, 0, index))
            time.sleep(0.3)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def nonsense(count: int, address: str, port: int, source: str) -> None:
    both = socket.inet_aton(source) + socket.inet_aton(address)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sender:
        sender.bind((source, 0))
        for number in range(count):
            # Begins and resets at once.
            header = struct.pack("!HHIIBBHHH", 40000 + number, port, 1, 0, 5 << 4, 0x06, 1024, 0, 0)
            total = checksum(both + struct.pack("!HH", socket.IPPROTO_TCP, len(header)) + header)
            sender.sendto(header[:16] + struct.pack("!H", total) + header[18:], (address, 0))


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "advertise":
        advertise(*arguments)
        return
    count, address, port, *source = arguments
    found = {"ask": ask, "connect": connect, "flood": flood, "nonsense": nonsense}[what](
        int(count), address, int(port), *source
    )
    if found is not None:
        print(found)


if __name__ == "__main__":
    main()

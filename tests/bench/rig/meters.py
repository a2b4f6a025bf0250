# SPDX-License-Identifier: Apache-2.0
"""Simulated meters that cost little and hold nobody up: one process, one selector, answers that are slices of register
images made beforehand. Contents walk at random, at the meter's resolution, `--change` seconds apart.

    python -m tests.bench.rig.meters --ports 5020 5021 … --units 32 --change 1

Every request is stamped when it arrives. A line "counts" on standard input is answered with {"requests", "registers"},
"arrivals" with the instants (monotonic s) by port and unit since the last such line. `--latency LOW HIGH` answers after
a random time in s, `--dead UNIT` never answers for it, `--framing rtu` speaks RTU over TCP.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import random
import selectors
import socket
import sys
import time
from array import array
from collections import defaultdict

from tests.bench.rig.register_map import COUNT, registers

MBAP_REQUEST = 12
RTU_REQUEST = 8
MIN_FUNCTION, MAX_FUNCTION = 3, 4


def crc16(data: bytes) -> bytes:
    """The checksum of Modbus over Serial Line V1.02, 6.2.2, low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


class Unit:
    """100 registers that walk."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._map = registers()
        # Every unit begins elsewhere: equal neighbours would flatter a compressor.
        self._values = [one.quantity.start + source.randint(-20, 20) * one.quantity.step for one in self._map]
        self.image = b""
        self.change()

    def change(self) -> None:
        """Go on by one step: registers move by up to their largest step, small moves more often than large ones."""
        uniform = self._source.random
        values = self._values
        for index, (_, _, quantity) in enumerate(self._map):
            low, high = quantity.limits
            value = values[index] + round((uniform() + uniform() - 1.0) * quantity.step)
            values[index] = min(max(value, low), high)
        image = array("H", [value & 0xFFFF for value in values])
        if sys.byteorder == "little":
            image.byteswap()
        self.image = image.tobytes()


class Connection:
    """One client; what is left of a request that has not come whole."""

    def __init__(self, sock: socket.socket, port: int) -> None:
        self.sock = sock
        self.port = port
        self.rest = b""


class Meters:
    """All endpoints."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._selector = selectors.DefaultSelector()
        self._rtu = options.framing == "rtu"
        self._latency = options.latency
        self._dead = set(options.dead)
        self._source = random.Random(options.seed)
        self._units = {
            (port, unit): Unit(random.Random(options.seed * 65537 + port * 256 + unit))
            for port in options.ports
            for unit in range(1, options.units + 1)
        }
        self._change = options.change
        self._record = options.record
        self.requests = self.registers = 0
        self.arrivals: dict[str, list[float]] = defaultdict(list)
        self._late: list[tuple[float, int, Connection, bytes]] = []
        self._order = 0
        for port in options.ports:
            listener = socket.create_server(("127.0.0.1", port), backlog=256)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, port)
        self._selector.register(sys.stdin, selectors.EVENT_READ, "orders")

    def serve(self) -> None:
        """Until standard input ends."""
        print("ready", flush=True)
        following = time.monotonic() + self._change
        while True:
            now = time.monotonic()
            if now >= following:
                for unit in self._units.values():
                    unit.change()
                following = max(following + self._change, now)
            while self._late and self._late[0][0] <= now:
                _, _, connection, answer = heapq.heappop(self._late)
                self._send(connection, answer)
            until = min(following, self._late[0][0] if self._late else following)
            for key, _ in self._selector.select(max(until - time.monotonic(), 0)):
                if isinstance(key.data, Connection):
                    self._read(key.data)
                elif key.data == "orders":
                    order = sys.stdin.readline()
                    if not order:
                        return
                    self._report(order.strip())
                else:
                    self._accept(key.fileobj, key.data)  # type: ignore[arg-type]  # the listener that was registered

    def _report(self, order: str) -> None:
        if order == "counts":
            print(json.dumps({"requests": self.requests, "registers": self.registers}), flush=True)
        else:
            print(json.dumps(self.arrivals), flush=True)
            self.arrivals = defaultdict(list)

    def _accept(self, listener: socket.socket, port: int) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, Connection(sock, port))

    def _hang_up(self, connection: Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.rest + connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if len(data) == len(connection.rest):
            self._hang_up(connection)
            return
        now = time.monotonic()
        size = RTU_REQUEST if self._rtu else MBAP_REQUEST
        answers = []
        start = 0
        while len(data) - start >= size:
            answer = self._answer(data[start : start + size], connection, now)
            if answer:
                answers.append(answer)
            start += size
        connection.rest = data[start:]
        if not answers:
            return
        if self._latency:
            due = now + self._source.uniform(*self._latency)
            self._order += 1
            heapq.heappush(self._late, (due, self._order, connection, b"".join(answers)))
        else:
            self._send(connection, b"".join(answers))

    def _answer(self, request: bytes, connection: Connection, now: float) -> bytes:
        head = 0 if self._rtu else 6
        unit, function = request[head], request[head + 1]
        address, count = int.from_bytes(request[head + 2 : head + 4], "big"), request[head + 5]
        self.requests += 1
        if self._record:
            self.arrivals[f"{connection.port}/{unit}"].append(now)
        found = self._units.get((connection.port, unit))
        if found is None or unit in self._dead:
            return b""
        if not MIN_FUNCTION <= function <= MAX_FUNCTION or address + count > COUNT:
            body = bytes([unit, function | 0x80, 2])
        else:
            self.registers += count
            body = bytes([unit, function, 2 * count]) + found.image[2 * address : 2 * (address + count)]
        if self._rtu:
            return body + crc16(body)
        return request[:4] + len(body).to_bytes(2, "big") + body

    def _send(self, connection: Connection, answer: bytes) -> None:
        try:
            connection.sock.send(answer)
        except OSError:
            self._hang_up(connection)


def main() -> None:
    """Serve the meters that the command line describes."""
    parser = argparse.ArgumentParser(description="Simulated Modbus meters.")
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    parser.add_argument("--units", type=int, default=1)
    parser.add_argument("--change", type=float, default=1.0, metavar="S")
    parser.add_argument("--latency", type=float, nargs=2, default=None, metavar=("LOW", "HIGH"))
    parser.add_argument("--dead", type=int, nargs="*", default=[], metavar="UNIT")
    parser.add_argument("--framing", choices=["tcp", "rtu"], default="tcp")
    parser.add_argument("--record", action="store_true", help="keep the instant of every request")
    parser.add_argument("--seed", type=int, default=1)
    Meters(parser.parse_args()).serve()


if __name__ == "__main__":
    main()

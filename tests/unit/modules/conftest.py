"""Real peers on loopback: small Modbus devices with chosen faults, and a collector's control socket."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT / ".collections") not in sys.path:
    sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.wattfleet.energy.plugins.module_utils import _modbus

# A device: unit and PDU of the question in, PDU of the answer out; None stays silent.
Device = Callable[[int, bytes], "bytes | None"]


class Peer:
    """A Modbus TCP or RTU-over-TCP server. `mangle` turns a right frame into what is sent in its place."""

    def __init__(
        self, device: Device, framing: str, mangle: Callable[[bytes], list[bytes]] | None = None
    ) -> None:
        self.device = device
        self.framing = framing
        self.mangle = mangle or (lambda frame: [frame])
        self.connections = 0
        self.questions: list[tuple[int, bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def hang_up(self) -> None:
        for connection in self._open:
            connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while question := connection.recv(512):
                self._answer(connection, question)
        except OSError:
            return

    def _answer(self, connection: socket.socket, question: bytes) -> None:
        if self.framing == _modbus.TCP:
            transaction, _protocol, _length, unit = struct.unpack(">HHHB", question[:7])
            pdu = question[7:]
        else:
            assert _modbus.crc16(question[:-2]) == struct.unpack("<H", question[-2:])[0]
            unit, pdu = question[0], question[1:-2]
        self.questions.append((unit, pdu))
        answer = self.device(unit, pdu)
        if answer is None:
            return
        if self.framing == _modbus.TCP:
            frame = struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer
        else:
            frame = bytes([unit]) + answer
            frame += struct.pack("<H", _modbus.crc16(frame))
        for part in self.mangle(frame):
            connection.sendall(part)


def registers_device(registers: dict[int, int], units: tuple[int, ...] = (1,)) -> Device:
    """A meter with holding and input registers; other units are silent, other addresses exceptions."""

    def device(unit: int, pdu: bytes) -> bytes | None:
        if unit not in units:
            return None
        function = pdu[0]
        if function not in (3, 4):
            return bytes([function | 0x80, 0x01])
        _function, address, count = struct.unpack(">BHH", pdu)
        wanted = range(address, address + count)
        if any(register not in registers for register in wanted):
            return bytes([function | 0x80, 0x02])
        return struct.pack(f">BB{count}H", function, 2 * count, *(registers[register] for register in wanted))

    return device


@pytest.fixture
def make_peer() -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def make(
        device: Device, framing: str = _modbus.TCP, mangle: Callable[[bytes], list[bytes]] | None = None
    ) -> Peer:
        peer = Peer(device, framing, mangle)
        peers.append(peer)
        return peer

    yield make
    for peer in peers:
        peer.close()


class FakeCollector:
    """A control socket as docs/reference/gateway-configuration.md describes it; `answers` are by `op`."""

    def __init__(self, path: Path, answers: dict[str, Any]) -> None:
        self.path = str(path)
        self.answers = answers
        self.requests: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                request = json.loads(line)
                self.requests.append(request)
                answer = self.answers.get(request["op"])
                if callable(answer):
                    answer = answer(request)
                if answer is None:
                    answer = {
                        "ok": False,
                        "error": f"unknown op {request['op']}",
                        "cause": "see the documentation",
                    }
                stream.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
                stream.flush()


@pytest.fixture
def make_collector(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], FakeCollector]]:
    made: list[FakeCollector] = []

    def make(answers: dict[str, Any]) -> FakeCollector:
        made.append(FakeCollector(tmp_path / "control.sock", answers))
        return made[-1]

    yield make
    for collector in made:
        collector.close()

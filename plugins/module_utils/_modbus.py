# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A small Modbus master for the standard library alone: Modbus TCP, and RTU frames over TCP or a serial line.

It asks one question at a time and accepts an answer only when every field of the frame is right. Sources:
MODBUS Application Protocol Specification V1.1b3; MODBUS Messaging on TCP/IP Implementation Guide V1.0b (MBAP
header); MODBUS over Serial Line V1.02 (RTU frame, CRC-16).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils import _faults, _serial_line

TCP = "modbus-tcp"
RTU_OVER_TCP = "rtu-over-tcp"

READ_COILS = 1
READ_DISCRETE_INPUTS = 2
READ_HOLDING_REGISTERS = 3
READ_INPUT_REGISTERS = 4
DIAGNOSTICS = 8
ENCAPSULATED_INTERFACE = 43
_READ_DEVICE_IDENTIFICATION = 14

# The kernel asks three times, a second apart, who has an address (ARP) before it says EHOSTUNREACH.
_CONNECT_TIMEOUT = 4.0

# Basic objects of "Read Device Identification", section 6.21 of the application protocol.
_IDENTIFICATION_OBJECTS = {
    0: "VendorName",
    1: "ProductCode",
    2: "MajorMinorRevision",
    3: "VendorUrl",
    4: "ProductName",
    5: "ModelName",
    6: "UserApplicationName",
}


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS: polynomial 0xA001 (reflected 0x8005), start 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _bit in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc


# Both have what is used here of a socket.
Connection = t.Union[socket.socket, _serial_line.Line]


class Client:
    """A connection to one bus. Every request either returns a checked answer or raises `_faults.FaultError`.

    `timeout` is in seconds and holds for each answer; connecting may take 4 s at least.
    """

    def __init__(self, host: str, port: int, framing: str, timeout: float) -> None:
        self.peer = f"{host}:{port}"
        self._address = (host, port)
        self._framing = framing
        self._timeout = timeout
        self._socket: Connection | None = None
        self._transaction = 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        """Registers (functions 3 and 4) or bits as 0 and 1 (functions 1 and 2), from `address`, which counts
        from 0.
        """
        what = f"unit {unit}, function {function}, address {address}, count {count}"
        answer = self._request(unit, struct.pack(">BHH", function, address, count), what)
        if function in (READ_COILS, READ_DISCRETE_INPUTS):
            data = _counted(answer, (count + 7) // 8, what)
            return [data[index // 8] >> (index % 8) & 1 for index in range(count)]
        return list(struct.unpack(f">{count}H", _counted(answer, 2 * count, what)))

    def diagnostics(self, unit: int, subfunction: int, data: int = 0) -> int:
        """Function 08: the 16-bit data field of the answer."""
        what = f"unit {unit}, function 8, sub-function {subfunction:#04x}"
        answer = self._request(unit, struct.pack(">BHH", DIAGNOSTICS, subfunction, data), what)
        if len(answer) != 5:
            raise _faults.FaultError(
                "FRAME_ERROR", f"REGISTER_READ_FAILURE: {len(answer)} bytes in place of 5: {what}"
            )
        _function, echoed, value = struct.unpack(">BHH", answer)
        if echoed != subfunction:
            raise _faults.FaultError(
                "FRAME_ERROR", f"REGISTER_READ_FAILURE: answer to sub-function {echoed:#04x}: {what}"
            )
        return int(value)

    def identify(self, unit: int) -> dict[str, str]:
        """Function 43/14: the basic identification objects by name."""
        what = f"unit {unit}, function 43/14"
        objects: dict[str, str] = {}
        first = 0
        for _page in range(16):
            question = struct.pack(">BBBB", ENCAPSULATED_INTERFACE, _READ_DEVICE_IDENTIFICATION, 1, first)
            answer = self._request(unit, question, what)
            more, following = _parse_identification(answer, objects, what)
            if not more or following <= first:
                break
            first = following
        return objects

    def _request(self, unit: int, pdu: bytes, what: str) -> bytes:
        try:
            connection = self._connect()
            answer = self._exchange(connection, unit, pdu, what)
        except _faults.FaultError:
            # Whatever else is under way on this connection could be taken for the answer to the next
            # question.
            self.close()
            raise
        except TimeoutError:
            self.close()
            raise _faults.FaultError(
                "NO_ANSWER",
                f"REGISTER_READ_FAILURE: no answer within {self._timeout * 1000:.0f} ms: {self.peer}, {what}",
            ) from None
        except OSError as error:
            self.close()
            raise _faults.from_os_error(error, self.peer) from None
        if answer[0] == pdu[0] | 0x80 and len(answer) == 2:
            raise _faults.from_exception_code(answer[1], what)
        if answer[0] != pdu[0]:
            self.close()
            raise _faults.FaultError(
                "FRAME_ERROR", f"REGISTER_READ_FAILURE: answer to function {answer[0] & 0x7F}: {what}"
            )
        return answer

    def _connect(self) -> Connection:
        if self._socket is None:
            self._socket = self._open()
        return self._socket

    def _open(self) -> Connection:
        try:
            connection = socket.create_connection(self._address, max(self._timeout, _CONNECT_TIMEOUT))
        except socket.gaierror:
            raise _faults.FaultError("NAME_UNKNOWN", f"NAME_UNKNOWN: {self._address[0]}") from None
        except OSError as error:
            raise _faults.from_os_error(error, self.peer) from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _exchange(self, connection: Connection, unit: int, pdu: bytes, what: str) -> bytes:
        if self._framing == RTU_OVER_TCP:
            return self._exchange_rtu(connection, unit, pdu, what)
        return self._exchange_tcp(connection, unit, pdu, what)

    def _exchange_tcp(self, connection: Connection, unit: int, pdu: bytes, what: str) -> bytes:
        self._transaction = self._transaction % 0xFFFF + 1
        deadline = time.monotonic() + self._timeout
        connection.sendall(struct.pack(">HHHB", self._transaction, 0, len(pdu) + 1, unit) + pdu)
        while True:
            transaction, protocol, length, answering = struct.unpack(
                ">HHHB", _receive(connection, 7, deadline)
            )
            if protocol != 0 or not 3 <= length <= 254:
                raise _faults.FaultError(
                    "FRAME_ERROR", f"REGISTER_READ_FAILURE: not a Modbus TCP header: {self.peer}, {what}"
                )
            answer = _receive(connection, length - 1, deadline)
            # A late answer to an earlier question is dropped; the one asked for may still come.
            if transaction == self._transaction:
                break
        if answering != unit:
            raise _faults.FaultError(
                "FRAME_ERROR", f"REGISTER_READ_FAILURE: unit {answering} answered: {self.peer}, {what}"
            )
        return answer

    def _exchange_rtu(self, connection: Connection, unit: int, pdu: bytes, what: str) -> bytes:
        # RTU frames carry no transaction number: what is still in the line before the question is asked is
        # not its answer.
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while connection.recv(4096):
                pass
        deadline = time.monotonic() + self._timeout
        connection.settimeout(self._timeout)
        question = bytes([unit]) + pdu
        connection.sendall(question + struct.pack("<H", crc16(question)))
        head = _receive(connection, 3, deadline)
        try:
            frame = _receive_rtu_rest(head, connection, deadline, what)
        except TimeoutError:
            # Noise in the byte count makes a frame look longer than it is; silence in its middle is noise
            # too.
            raise _faults.FaultError(
                "CRC_ERROR", f"CRC Error: frame cut short: {self.peer}, {what}"
            ) from None
        if crc16(frame[:-2]) != struct.unpack("<H", frame[-2:])[0]:
            raise _faults.FaultError("CRC_ERROR", f"CRC Error: {self.peer}, {what}")
        if frame[0] != unit:
            raise _faults.FaultError(
                "FRAME_ERROR", f"REGISTER_READ_FAILURE: unit {frame[0]} answered: {self.peer}, {what}"
            )
        return frame[1:-2]


class SerialClient(Client):
    """The same on a serial line of this host, for which nobody else may be master at the time."""

    def __init__(self, device: str, baudrate: int, parity: str, stopbits: int, timeout: float) -> None:
        super().__init__(device, 0, RTU_OVER_TCP, timeout)
        self.peer = f"{device} ({baudrate} baud, 8{parity}{stopbits})"
        self._settings = (device, baudrate, parity, stopbits)

    def _open(self) -> Connection:
        try:
            return _serial_line.Line(*self._settings)
        except OSError as error:
            text = f"CONNECTION_FAILED: {self._settings[0]}: {error.strerror or error}"
            raise _faults.FaultError("CONNECTION_FAILED", text) from None


def _receive_rtu_rest(head: bytes, connection: Connection, deadline: float, what: str) -> bytes:
    """The whole RTU answer whose first three bytes are `head`; an RTU frame does not tell its length in one
    place.
    """
    function = head[1]
    if function & 0x80:
        return head + _receive(connection, 2, deadline)
    if function in (READ_COILS, READ_DISCRETE_INPUTS, READ_HOLDING_REGISTERS, READ_INPUT_REGISTERS):
        return head + _receive(connection, head[2] + 2, deadline)
    if function == DIAGNOSTICS:
        return head + _receive(connection, 5, deadline)
    if function == ENCAPSULATED_INTERFACE:
        frame = head + _receive(connection, 5, deadline)
        for _object in range(frame[7]):
            entry = _receive(connection, 2, deadline)
            frame += entry + _receive(connection, entry[1], deadline)
        return frame + _receive(connection, 2, deadline)
    # The length of any other answer is unknown; a flipped bit on the line is the usual reason.
    _drain(connection, deadline)
    raise _faults.FaultError("CRC_ERROR", f"CRC Error: answer with function {function}: {what}")


def _drain(connection: Connection, deadline: float) -> None:
    connection.settimeout(min(0.05, max(0.001, deadline - time.monotonic())))
    with contextlib.suppress(OSError):
        while connection.recv(4096) and time.monotonic() < deadline:
            pass


def _receive(connection: Connection, count: int, deadline: float) -> bytes:
    """Exactly `count` bytes before `deadline` (monotonic), else TimeoutError, or ConnectionResetError at the
    end.
    """
    data = b""
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise _faults.FaultError(
                "CONNECTION_CLOSED", "CONNECTION_CLOSED: the device hung up before it answered"
            )
        data += chunk
    return data


def _counted(answer: bytes, expected: int, what: str) -> bytes:
    """The data of an answer of the form function, byte count, data."""
    if len(answer) < 2 or answer[1] != expected or len(answer) != expected + 2:
        found = answer[1] if len(answer) > 1 else 0
        raise _faults.FaultError(
            "FRAME_ERROR", f"REGISTER_READ_FAILURE: {found} bytes of data in place of {expected}: {what}"
        )
    return answer[2:]


def _parse_identification(answer: bytes, objects: dict[str, str], what: str) -> tuple[bool, int]:
    """Adds the objects of `answer`; returns whether more follow, and from which object."""
    broken = _faults.FaultError("FRAME_ERROR", f"REGISTER_READ_FAILURE: malformed identification: {what}")
    if len(answer) < 7 or answer[1] != _READ_DEVICE_IDENTIFICATION:
        raise broken
    more, following, number = answer[4], answer[5], answer[6]
    position = 7
    for _object in range(number):
        if position + 2 > len(answer):
            raise broken
        identifier, length = answer[position], answer[position + 1]
        text = answer[position + 2 : position + 2 + length]
        if len(text) != length:
            raise broken
        name = _IDENTIFICATION_OBJECTS.get(identifier, f"Object{identifier:#04x}")
        objects[name] = text.decode("utf-8", "replace").strip("\x00 ")
        position += 2 + length
    return more == 0xFF, following

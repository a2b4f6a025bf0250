# SPDX-License-Identifier: Apache-2.0
"""Modbus frames: MBAP over TCP, and RTU frames with CRC-16 (also carried over TCP, as serial gateways do).

Sources: Modbus Messaging on TCP/IP Implementation Guide V1.0b (MBAP header, section 3.1.3) and Modbus over
Serial Line V1.02 (RTU framing and CRC, sections 2.5.1 and 6.2.2).
"""

from dataclasses import dataclass
from struct import pack, unpack_from

_MAX_RTU = 256


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC = _table()


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS: polynomial 0xA001 (reflected), initial value 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


@dataclass(frozen=True)
class Request:
    """A request as it came: the transaction (0 on RTU), the unit id, the PDU, and its length on the wire."""

    transaction: int
    unit: int
    pdu: bytes
    size: int


class BadFrameError(Exception):
    """The bytes are no frame. On RTU the CRC is wrong; on TCP the stream cannot be followed any further."""


def take_tcp(buffer: bytearray) -> Request | None:
    """Remove the first MBAP frame from the buffer; None when it is not complete. Raises BadFrameError."""
    if len(buffer) < 8:
        return None
    transaction, protocol, length, unit = unpack_from(">HHHB", buffer)
    if protocol != 0 or not 2 <= length <= 254:
        raise BadFrameError
    if len(buffer) < 6 + length:
        return None
    pdu = bytes(buffer[7 : 6 + length])
    del buffer[: 6 + length]
    return Request(transaction, unit, pdu, 6 + length)


def take_rtu(buffer: bytearray) -> Request | None:
    """Remove the first RTU request from the buffer; None when it is not complete. Raises BadFrameError.

    After a wrong CRC everything is dropped: a serial device waits for the next silence.
    """
    if len(buffer) < 4:
        return None
    length = _rtu_length(buffer)
    if length is None or len(buffer) < length:
        return None
    frame = bytes(buffer[:length])
    if crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
        buffer.clear()
        raise BadFrameError
    del buffer[:length]
    return Request(0, frame[0], frame[1:-2], length)


def _rtu_length(buffer: bytearray) -> int | None:
    function = buffer[1]
    if function in (1, 2, 3, 4, 5, 6, 8):
        return 8
    if function in (15, 16):
        return 9 + buffer[6] if len(buffer) > 6 else None
    if function == 0x2B:
        return 7
    # The length of an unknown function is not known; a frame ends where the bytes end.
    return min(len(buffer), _MAX_RTU)


def tcp_frame(request: Request, pdu: bytes, unit: int | None = None) -> bytes:
    answering = request.unit if unit is None else unit
    return pack(">HHHB", request.transaction, 0, len(pdu) + 1, answering) + pdu


def rtu_frame(request: Request, pdu: bytes, unit: int | None = None) -> bytes:
    body = bytes([request.unit if unit is None else unit]) + pdu
    return body + crc16(body).to_bytes(2, "little")

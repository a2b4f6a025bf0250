from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils import _faults, _modbus

from .conftest import Peer, registers_device

BOTH = pytest.mark.parametrize("framing", [_modbus.TCP, _modbus.RTU_OVER_TCP])
MakePeer = Callable[..., Peer]


def client(peer: Peer, timeout: float = 0.3) -> _modbus.Client:
    return _modbus.Client("127.0.0.1", peer.port, peer.framing, timeout)


def failure(action: Callable[[], Any]) -> _faults.FaultError:
    with pytest.raises(_faults.FaultError) as caught:
        action()
    return caught.value


def with_crc(frame: bytes) -> bytes:
    return frame + struct.pack("<H", _modbus.crc16(frame))


def test_crc_of_the_standards_check_value() -> None:
    # CRC-16/MODBUS of "123456789" is 0x4B37 in Greg Cook's catalogue of parametrised CRC algorithms.
    assert _modbus.crc16(b"123456789") == 0x4B37


@BOTH
def test_registers_are_read(make_peer: MakePeer, framing: str) -> None:
    peer = make_peer(registers_device({10: 0x4366, 11: 0x8000}), framing)
    assert client(peer).read(1, 4, 10, 2) == [0x4366, 0x8000]
    assert peer.questions == [(1, struct.pack(">BHH", 4, 10, 2))]


@BOTH
def test_one_connection_serves_many_questions(make_peer: MakePeer, framing: str) -> None:
    peer = make_peer(registers_device({0: 7}), framing)
    asking = client(peer)
    assert [asking.read(1, 3, 0, 1) for _question in range(5)] == [[7]] * 5
    assert peer.connections == 1


def test_bits_are_unpacked_from_the_low_end(make_peer: MakePeer) -> None:
    peer = make_peer(lambda _unit, pdu: bytes([pdu[0], 2, 0b00000101, 0b1]))
    assert client(peer).read(1, 1, 0, 9) == [1, 0, 1, 0, 0, 0, 0, 0, 1]


@BOTH
@pytest.mark.parametrize(
    ("exception", "code", "there"),
    [
        (0x01, "MODBUS_EXCEPTION", True),
        (0x02, "MODBUS_EXCEPTION", True),
        (0x06, "MODBUS_EXCEPTION", True),
        (0x0A, "MODBUS_EXCEPTION", False),
        (0x0B, "MODBUS_EXCEPTION", False),
        (0x77, "MODBUS_EXCEPTION", True),
    ],
)
def test_exceptions_are_named(
    make_peer: MakePeer, framing: str, exception: int, code: str, there: bool
) -> None:
    peer = make_peer(lambda _unit, pdu: bytes([pdu[0] | 0x80, exception]), framing)
    fault = failure(lambda: client(peer).read(1, 3, 0, 1))
    assert fault.code == code
    assert f"Modbus Error 0x{exception:02X}" in fault.error
    assert fault.cause
    assert fault.device_answered is there


def test_error_0x0b_advises_the_longer_time_out(make_peer: MakePeer) -> None:
    peer = make_peer(lambda _unit, pdu: bytes([pdu[0] | 0x80, 0x0B]))
    assert "1000 ms towards 3000 ms" in failure(lambda: client(peer).read(1, 3, 0, 1)).cause


@BOTH
def test_silence_is_no_answer(make_peer: MakePeer, framing: str) -> None:
    peer = make_peer(lambda _unit, _pdu: None, framing)
    fault = failure(lambda: client(peer, 0.05).read(9, 3, 0, 1))
    assert fault.code == "NO_ANSWER"
    assert "unit 9" in fault.error
    assert not fault.device_answered


def test_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    fault = failure(lambda: _modbus.Client("127.0.0.1", port, _modbus.TCP, 0.3).read(1, 3, 0, 1))
    assert fault.code == "CONNECTION_REFUSED"
    assert fault.error == f"CONNECTION_REFUSED: 127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("number", "code"),
    [(113, "EHOSTUNREACH"), (101, "ENETUNREACH"), (110, "CONNECTION_TIMEOUT"), (104, "CONNECTION_CLOSED")],
)
def test_operating_system_errors_have_the_runbooks_names(number: int, code: str) -> None:
    fault = _faults.from_os_error(OSError(number, "text"), "192.168.10.20:502")
    assert (fault.code, fault.error) == (code, f"{code}: 192.168.10.20:502")
    assert fault.cause


def test_unknown_name() -> None:
    fault = failure(lambda: _modbus.Client("meter.invalid", 502, _modbus.TCP, 0.3).read(1, 3, 0, 1))
    assert fault.code == "NAME_UNKNOWN"


@BOTH
def test_closed_connection(make_peer: MakePeer, framing: str) -> None:
    def hang_up(_unit: int, _pdu: bytes) -> None:
        peer.hang_up()

    peer = make_peer(hang_up, framing)
    assert failure(lambda: client(peer).read(1, 3, 0, 1)).code == "CONNECTION_CLOSED"


def test_wrong_crc_is_a_crc_error(make_peer: MakePeer) -> None:
    peer = make_peer(
        registers_device({0: 1}), _modbus.RTU_OVER_TCP, lambda frame: [frame[:-1] + bytes([frame[-1] ^ 1])]
    )
    fault = failure(lambda: client(peer).read(1, 3, 0, 1))
    assert fault.code == "CRC_ERROR"
    assert fault.error.startswith("CRC Error")
    assert "shielded twisted pair" in fault.cause


@pytest.mark.parametrize("position", range(7))
@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_ever_passes(make_peer: MakePeer, position: int, bit: int) -> None:
    def flip(frame: bytes) -> list[bytes]:
        return [frame[:position] + bytes([frame[position] ^ 1 << bit]) + frame[position + 1 :]]

    peer = make_peer(registers_device({0: 0x1234}), _modbus.RTU_OVER_TCP, flip)
    fault = failure(lambda: client(peer, 0.05).read(1, 3, 0, 1))
    assert fault.code in ("CRC_ERROR", "FRAME_ERROR")


@pytest.mark.parametrize("length", range(1, 7))
def test_a_frame_cut_short_never_passes(make_peer: MakePeer, length: int) -> None:
    peer = make_peer(registers_device({0: 0x1234}), _modbus.RTU_OVER_TCP, lambda frame: [frame[:length]])
    assert failure(lambda: client(peer, 0.05).read(1, 3, 0, 1)).code in ("CRC_ERROR", "NO_ANSWER")


def test_another_unit_on_the_line(make_peer: MakePeer) -> None:
    peer = make_peer(
        registers_device({0: 1}), _modbus.RTU_OVER_TCP, lambda frame: [with_crc(b"\x02" + frame[1:-2])]
    )
    fault = failure(lambda: client(peer).read(1, 3, 0, 1))
    assert fault.code == "FRAME_ERROR"
    assert "unit 2 answered" in fault.error


def test_another_unit_over_tcp(make_peer: MakePeer) -> None:
    peer = make_peer(registers_device({0: 1}), mangle=lambda frame: [frame[:6] + b"\x02" + frame[7:]])
    assert failure(lambda: client(peer).read(1, 3, 0, 1)).code == "FRAME_ERROR"


@BOTH
def test_another_function_in_the_answer(make_peer: MakePeer, framing: str) -> None:
    peer = make_peer(lambda _unit, _pdu: bytes([4, 2, 0, 1]), framing)
    assert failure(lambda: client(peer).read(1, 3, 0, 1)).code == "FRAME_ERROR"


@BOTH
def test_too_few_registers_in_the_answer(make_peer: MakePeer, framing: str) -> None:
    peer = make_peer(lambda _unit, _pdu: bytes([3, 2, 0, 1]), framing)
    fault = failure(lambda: client(peer).read(1, 3, 0, 2))
    assert fault.code == "FRAME_ERROR"
    assert "2 bytes of data in place of 4" in fault.error


def test_not_modbus_at_all(make_peer: MakePeer) -> None:
    peer = make_peer(registers_device({0: 1}), mangle=lambda _frame: [b"HTTP/1.1 400 Bad Request\r\n"])
    assert failure(lambda: client(peer).read(1, 3, 0, 1)).code == "FRAME_ERROR"


def test_a_late_answer_is_dropped_and_the_right_one_taken(make_peer: MakePeer) -> None:
    def late_then_right(frame: bytes) -> list[bytes]:
        late = struct.pack(">H", 0xFFFF) + frame[2:-2] + b"\xde\xad"
        return [late, frame]

    peer = make_peer(registers_device({0: 0x0102}), mangle=late_then_right)
    assert client(peer).read(1, 3, 0, 1) == [0x0102]


def test_only_a_late_answer_is_no_answer(make_peer: MakePeer) -> None:
    peer = make_peer(registers_device({0: 1}), mangle=lambda frame: [b"\xff\xff" + frame[2:]])
    assert failure(lambda: client(peer, 0.05).read(1, 3, 0, 1)).code == "NO_ANSWER"


def test_after_a_failure_the_next_question_has_a_new_connection(make_peer: MakePeer) -> None:
    device = registers_device({0: 5})
    peer = make_peer(lambda _unit, _pdu: None, _modbus.RTU_OVER_TCP)
    asking = client(peer, 0.05)
    failure(lambda: asking.read(1, 3, 0, 1))
    peer.device = device
    assert asking.read(1, 3, 0, 1) == [5]
    assert peer.connections == 2


@BOTH
def test_diagnostics(make_peer: MakePeer, framing: str) -> None:
    peer = make_peer(lambda _unit, pdu: pdu[:3] + struct.pack(">H", 4711), framing)
    assert client(peer).diagnostics(1, 0x0B) == 4711


@BOTH
def test_diagnostics_of_another_subfunction(make_peer: MakePeer, framing: str) -> None:
    peer = make_peer(lambda _unit, _pdu: struct.pack(">BHH", 8, 0x0C, 1), framing)
    assert failure(lambda: client(peer).diagnostics(1, 0x0B)).code == "FRAME_ERROR"


@BOTH
def test_identification_over_two_pages(make_peer: MakePeer, framing: str) -> None:
    def device(_unit: int, pdu: bytes) -> bytes:
        if pdu[3] == 0:
            return bytes([43, 14, 1, 1, 0xFF, 2, 2, 0, 3]) + b"ABB" + bytes([1, 3]) + b"B23"
        return bytes([43, 14, 1, 1, 0, 0, 1, 2, 3]) + b"1.0"

    peer = make_peer(device, framing)
    expected = {"VendorName": "ABB", "ProductCode": "B23", "MajorMinorRevision": "1.0"}
    assert client(peer).identify(1) == expected


def test_malformed_identification(make_peer: MakePeer) -> None:
    peer = make_peer(lambda _unit, _pdu: bytes([43, 14, 1, 1, 0, 0, 1, 0, 99]) + b"ABB")
    assert failure(lambda: client(peer).identify(1)).code == "FRAME_ERROR"


def test_a_server_of_pymodbus_agrees() -> None:
    """The frames are those of an independent implementation, not only of the peers above."""
    import asyncio
    import threading

    from pymodbus import ModbusDeviceIdentification
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    started = threading.Event()
    state: dict[str, Any] = {}

    async def serve() -> None:
        block = [SimData(0, values=[11, 22, 33], datatype=DataType.REGISTERS)]
        identity = ModbusDeviceIdentification(info_name={"VendorName": "Example", "ProductCode": "M1"})
        server = ModbusTcpServer(SimDevice(1, simdata=block), identity=identity, address=("127.0.0.1", 0))
        state["loop"], state["server"] = asyncio.get_running_loop(), server
        await server.serve_forever(background=True)
        assert server.transport is not None
        state["port"] = server.transport.sockets[0].getsockname()[1]
        state["stop"] = asyncio.Event()
        started.set()
        await state["stop"].wait()
        await server.shutdown()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    asking = _modbus.Client("127.0.0.1", state["port"], _modbus.TCP, 2.0)
    try:
        assert asking.read(1, 3, 0, 3) == [11, 22, 33]
        assert failure(lambda: asking.read(1, 3, 100, 1)).exception == 0x02
        assert asking.identify(1)["VendorName"] == "Example"
    finally:
        asking.close()
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(10)

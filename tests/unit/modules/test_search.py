# SPDX-License-Identifier: Apache-2.0
"""Wrong unit ids and wrong parities, found by asking; and a real serial line, as far as a pseudo-terminal is one."""

from __future__ import annotations

import os
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils import _modbus, _probe, _serial_line

from .conftest import FakeCollector, Peer, registers_device

MakePeer = Callable[..., Peer]
# What termios(3) calls the parities: odd without "enabled" would be none at all.
PARITY_FLAGS = {0: "N", termios.PARENB: "E", termios.PARENB | termios.PARODD: "O"}


def ask(nowhere: Path, **options: Any) -> dict[str, Any]:
    meter = _probe.with_defaults({"timeout": 0.15, "unit": 1, "address": 0, "search": True, **options})
    (result,) = _probe.probe_all([meter], str(nowhere / "no.sock"))
    return result


def at(peer: Peer) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": peer.port, "framing": peer.framing}


def findings(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["finding"], one["message"]) for one in result["findings"]]


def test_the_unit_that_answers_in_place_of_the_silent_one(make_peer: MakePeer, tmp_path: Path) -> None:
    result = ask(tmp_path, **at(make_peer(registers_device({0: 5}, units=(3, 7)))), search_units=[1, 2, 3, 7])
    assert result["failure"]["code"] == "NO_ANSWER"
    ((finding, message),) = findings(result)
    assert finding == "unit"
    assert message.startswith("unit 1 does not answer, and on the same bus unit 3 and 7 does")


def test_the_unit_that_holds_the_reference(make_peer: MakePeer, tmp_path: Path) -> None:
    def device(unit: int, pdu: bytes) -> bytes | None:
        return (
            registers_device({0: {1: 777, 2: 778, 4: 2314}[unit]}, units=(1, 2, 4))(unit, pdu)
            if unit in (1, 2, 4)
            else None
        )

    peer = make_peer(device)
    result = ask(tmp_path, **at(peer), scale=0.1, expected=231.4, tolerance=0.01, search_units=[2, 3, 4, 5])
    assert result["matches"] is False
    assert findings(result) == [
        ("unit", "unit 1 answers with another value, and unit 4 with the expected one: set the unit id to 4")
    ]
    # It is not looked further than needed, and not at all without being told to.
    assert [unit for unit, _pdu in peer.questions] == [1, 2, 3, 4]
    assert ask(tmp_path, **at(peer), scale=0.1, expected=231.4, search=False)["findings"] == []


def test_nothing_is_made_up(make_peer: MakePeer, tmp_path: Path) -> None:
    peer = make_peer(registers_device({0: 777}, units=(1, 2)))
    assert ask(tmp_path, **at(peer), expected=1.3, search_units=[2, 3])["findings"] == []
    assert ask(tmp_path, **at(make_peer(lambda _unit, _pdu: None)), search_units=[2])["findings"] == []


def test_other_units_are_asked_through_the_collector(make_collector: Callable[..., FakeCollector]) -> None:
    def read(request: dict[str, Any]) -> dict[str, Any]:
        if request["unit"] == 5:
            return {"ok": True, "registers": [2314]}
        return {"ok": False, "error": f"no answer within 300 ms: unit {request['unit']}", "cause": ""}

    collector = make_collector({"read": read})
    meter = _probe.with_defaults({"bus": "hall", "unit": 1, "address": 0, "expected": 2314, "search": True})
    (result,) = _probe.probe_all([meter], collector.path)
    assert result["transport"] == "collector"
    assert [one["finding"] for one in result["findings"]] == ["unit"]
    assert "set the unit id to 5" in result["findings"][0]["message"]


class Serial:
    """A meter at the other end of a line. A pseudo-terminal has no parity, so what the kernel is asked for is noted,
    and the meter answers to the right one alone."""

    def __init__(self, parity: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parity = parity
        self.set_up: list[str] = []
        self.flags = 0
        self.master, self.slave = os.openpty()
        self.path = os.ttyname(self.slave)
        real = termios.tcsetattr

        def watched(handle: int, when: int, settings: list[Any]) -> None:
            self.flags = settings[2]
            self.set_up.append(PARITY_FLAGS[self.flags & (termios.PARENB | termios.PARODD)])
            # A pseudo-terminal refuses what it cannot do.
            settings[2] = self.flags & ~(termios.PARENB | termios.PARODD)
            real(handle, when, settings)

        monkeypatch.setattr(termios, "tcsetattr", watched)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        answer = registers_device({0: 2314})
        while True:
            try:
                question = os.read(self.master, 256)
            except OSError:
                return
            pdu = answer(question[0], question[1:-2])
            if pdu is not None and self.set_up[-1] == self.parity:
                frame = question[:1] + pdu
                os.write(self.master, frame + struct.pack("<H", _modbus.crc16(frame)))

    def close(self) -> None:
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def serial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serial]:
    one = Serial("E", monkeypatch)
    yield one
    one.close()


def test_a_serial_line_is_asked_directly_while_no_collector_runs(serial: Serial, tmp_path: Path) -> None:
    result = ask(tmp_path, device=serial.path, parity="E", timeout=2.0, scale=0.1, expected=231.4)
    assert result["matches"], result
    assert serial.set_up == ["E"]


def test_a_wrong_parity_is_found(serial: Serial, tmp_path: Path) -> None:
    result = ask(tmp_path, device=serial.path, parity="N", timeout=1.0)
    assert result["failure"]["code"] == "NO_ANSWER"
    assert findings(result) == [
        ("parity", "unit 1 answers with parity E, and not with N: set the parity of the bus")
    ]
    assert serial.set_up == ["N", "E", "O"]


@pytest.mark.parametrize("parity", _serial_line.PARITIES)
@pytest.mark.parametrize("stopbits", [1, 2])
def test_a_line_is_set_up_as_asked(serial: Serial, parity: str, stopbits: int) -> None:
    _serial_line.Line(serial.path, 19200, parity, stopbits).close()
    assert serial.set_up == [parity]
    assert bool(serial.flags & termios.CSTOPB) == (stopbits == 2)
    assert serial.flags & termios.CSIZE == termios.CS8


def test_a_serial_line_has_one_master(
    serial: Serial, make_collector: Callable[..., FakeCollector], tmp_path: Path
) -> None:
    collector = make_collector({})
    meter = _probe.with_defaults({"device": serial.path, "unit": 1})
    for transport in ("direct", "auto"):
        with pytest.raises(_probe.OptionError, match="one master"):
            _probe.probe_all([meter], collector.path, transport)
    # Nor while another program has it open, whatever it is.
    line = _serial_line.Line(serial.path, 9600, "N", 1)
    try:
        assert "another program holds" in ask(tmp_path, device=serial.path)["failure"]["error"]
    finally:
        line.close()


def test_what_is_no_serial_line_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "no serial device" in ask(tmp_path, device=str(tmp_path / "file"))["failure"]["error"]
    assert "No such file" in ask(tmp_path, device=str(tmp_path / "none"))["failure"]["error"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "a", "device": "/dev/ttyS0"}, "not both"),
        ({"host": "a", "search_units": [0]}, "unit 0 is outside of 1 to 247"),
        ({"meter": "main", "unit": None}, "give the `unit` that is expected"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(_probe.OptionError, match=said):
        _probe.with_defaults({"unit": 1, "search": True, **options})

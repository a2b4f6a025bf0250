# SPDX-License-Identifier: Apache-2.0
"""Our bus against a server that shares no code with it (libmodbus), and the lab's meters against a client that
shares none with them (mbpoll)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from energy_collector.bus import Bus, ReadBits, ReadRegisters
from energy_collector.bus.errors import ExceptionAnswerError
from energy_collector.config import BusConfig

from tests.ports import free_port

SERVER = Path(__file__).with_name("libmodbus_server.py")
ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def libmodbus(*arguments: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, str(SERVER), *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "libmodbus5 is missing, or the server cannot listen"
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serial_cable() -> Iterator[tuple[str, str]]:
    """Two terminals whose masters are joined: what one end writes, the other end reads."""
    ends = [os.openpty(), os.openpty()]
    for master, _ in ends:
        tty.setraw(master)

    def carry(source: int, target: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(source, 512):
                os.write(target, data)

    masters = [master for master, _ in ends]
    threads = [
        threading.Thread(target=carry, args=pair, daemon=True)
        for pair in (tuple(masters), tuple(reversed(masters)))
    ]
    for thread in threads:
        thread.start()
    try:
        yield os.ttyname(ends[0][1]), os.ttyname(ends[1][1])
    finally:
        # The last slave's end wakes the reader of its master.
        for _, slave in ends:
            os.close(slave)
        for thread in threads:
            thread.join(5)
        for master in masters:
            os.close(master)


async def everything(bus: Bus, unit: int) -> None:
    holding, inputs = ReadRegisters(3, 10, 125), ReadRegisters(4, 0, 2)
    bits, discrete = ReadBits(1, 0, 17), ReadBits(2, 3, 1)
    for _ in range(3):
        assert holding.decode((await bus.call(unit, holding)).data) == list(range(1010, 1135))
        assert inputs.decode((await bus.call(unit, inputs)).data) == [2000, 2001]
        assert bits.decode((await bus.call(unit, bits)).data) == [index % 3 == 0 for index in range(17)]
        assert discrete.decode((await bus.call(unit, discrete)).data) == [True]
        with pytest.raises(ExceptionAnswerError, match="0x02"):
            await bus.call(unit, ReadRegisters(3, 199, 2))
    assert bus.counters["requests"] == 15
    assert bus.counters["answers"] == 12
    assert bus.counters["exceptions"] == 3
    assert bus.counters["connects"] == 1


def test_a_libmodbus_server_over_tcp() -> None:
    async def test(port: int) -> None:
        bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", port))
        await everything(bus, 1)
        bus.close()

    port = free_port()
    with libmodbus("tcp", str(port)):
        asyncio.run(test(port))


def test_a_libmodbus_server_on_a_serial_line() -> None:
    async def test(device: str) -> None:
        bus = Bus(BusConfig("line", "rtu", device=device, baudrate=19200, parity="E"))
        await everything(bus, 17)
        bus.close()

    with serial_cable() as (ours, theirs), libmodbus("rtu", theirs, "17"):
        asyncio.run(test(ours))


def mbpoll(*arguments: str) -> tuple[int, str]:
    found = subprocess.run(
        ["mbpoll", "-1", "-q", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    return found.returncode, found.stdout + found.stderr


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the lab's meters need Python 3.11; the collector itself 3.10"
)
def test_mbpoll_reads_the_labs_meters(tmp_path: Path) -> None:
    port, control = free_port(), tmp_path / "control.sock"
    description = tmp_path / "meters.json"
    unit = {"unit": 5, "model": "eastron-sdm630", "name": "main", "role": "main"}
    listener = {"address": "127.0.0.1", "port": port, "framing": "tcp", "units": [unit]}
    site = {"site": "a", "netns": None, "seed": 7, "timezone": "UTC", "listeners": [listener]}
    description.write_text(json.dumps({"epoch": "2026-11-01T00:00:00Z", "sites": [site]}))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "wattfleet_lab.meters"),
            *("--description", str(description), "--control", str(control)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "lab")},
    )
    try:
        for _ in range(600):
            if control.exists():
                break
            assert process.poll() is None, "the meters have ended"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        code, text = mbpoll(
            "-a", "5", "-t", "3:float", "-B", "-r", "1", "-c", "3", "-p", str(port), "127.0.0.1"
        )
        assert code == 0, text
        volts = [float(one) for one in re.findall(r"\[\d+\]:\s+([0-9.]+)", text)]
        assert len(volts) == 3
        assert all(200 < one < 260 for one in volts)
        # A unit that is not there.
        code, text = mbpoll("-a", "6", "-o", "0.3", "-t", "3", "-r", "1", "-p", str(port), "127.0.0.1")
        assert code != 0, text
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)

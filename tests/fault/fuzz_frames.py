# SPDX-License-Identifier: Apache-2.0
"""Malformed answers by the million: none may bring a value, none may bring us down.

    .venv/bin/python -m tests.fault.fuzz_frames [--rounds 1000000] [--seed 1]

Each round asks a meter of a real profile. Its answer is made right, spoilt, cut into random pieces, and handed to
the framing as a line would; what comes out is compared with the right answer and goes through the decoding of the
profile. An answer that is byte for byte the right one is good, however it came about; any other one is a bad value.

What is spoilt on RTU framing is what its CRC-16 is sure to find: one to three bits, or a burst of up to 16 bits
(wider damage slips through any 16-bit checksum once in 65536), and everything that a right CRC can hide: another
unit, function or length, frames too many, too late, too short. Modbus TCP has no checksum of its own, so there it
is the header and the shape that are spoilt, not the values.

The negative control is a run with the CRC check switched off: it has to find bad values
(`tests/unit/collector/test_fuzz_frames.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "collector")]

from energy_collector import profiles
from energy_collector.bus import Bus, BusError
from energy_collector.bus.bus import Answer
from energy_collector.bus.errors import BadFrameError, ExceptionAnswerError, TimedOutError
from energy_collector.bus.framing import Exchange, Framing, RtuFraming, TcpFraming
from energy_collector.bus.requests import ReadRegisters, Request
from energy_collector.bus.unit import Unit
from energy_collector.config import BusConfig, MeterConfig
from energy_collector.meters.making import make
from pymodbus.framer import FramerRTU

UNIT, NEIGHBOUR = 17, 18
Mutation = Callable[[random.Random, bytes], bytes]


def flip(chance: random.Random, frame: bytes) -> bytes:
    """One to three bits."""
    number = int.from_bytes(frame, "big")
    for bit in chance.sample(range(8 * len(frame)), chance.randint(1, 3)):
        number ^= 1 << bit
    return number.to_bytes(len(frame), "big")


def burst(chance: random.Random, frame: bytes) -> bytes:
    """Up to 16 bits that lie together on the wire, where each byte goes lowest bit first. The same bits counted
    from the highest one lie further apart there, and the CRC does not find them all: 1 of 1,000,000 answers."""
    number = int.from_bytes(frame, "little")
    number ^= chance.randint(1, 0xFFFF) << chance.randrange(8 * len(frame) - 15)
    return number.to_bytes(len(frame), "little")


def cut(chance: random.Random, frame: bytes) -> bytes:
    """The end is missing."""
    return frame[: chance.randrange(len(frame))]


def behead(chance: random.Random, frame: bytes) -> bytes:
    """The beginning is missing."""
    return frame[chance.randint(1, len(frame) - 1) :]


def lose(chance: random.Random, frame: bytes) -> bytes:
    """A byte in the middle is missing."""
    place = chance.randrange(len(frame))
    return frame[:place] + frame[place + 1 :]


def garbage(chance: random.Random, _frame: bytes) -> bytes:
    """Anything."""
    return chance.randbytes(chance.randint(1, 300))


def double(_chance: random.Random, frame: bytes) -> bytes:
    """It comes twice."""
    return frame + frame


def append(chance: random.Random, frame: bytes) -> bytes:
    """Something follows."""
    return frame + chance.randbytes(chance.randint(1, 20))


def prepend(chance: random.Random, frame: bytes) -> bytes:
    """Noise comes first."""
    return chance.randbytes(chance.randint(1, 20)) + frame


SPOILING: tuple[Mutation, ...] = (flip, burst, cut, behead, lose, garbage, double, append, prepend)


def body_of(chance: random.Random, function: int, count: int) -> bytes:
    """A right answer without unit: random registers, now and then those that mean something to a profile."""
    filling = chance.choice((None, None, b"\x7f\xc0\x00\x00", b"\x80\x00", b"\xff\xff", b"\x00\x00"))
    values = chance.randbytes(2 * count) if filling is None else (filling * count)[: 2 * count]
    return bytes([function, 2 * count]) + values


def misfit(chance: random.Random, unit: int, request: ReadRegisters) -> tuple[int, bytes]:
    """An answer that is right in itself and none to this request."""
    function, count = request.function, request.count
    while True:
        sender = chance.choice((unit, NEIGHBOUR, chance.randrange(256)))
        answers = chance.choice((function, 3, 4, 1, chance.randrange(256)))
        came = chance.choice((count, count + 1, max(count - 1, 1), chance.randint(1, 125)))
        if (sender, answers, came) != (unit, function, count):
            return sender, body_of(chance, answers, came)


class FuzzedBus(Bus):
    """A bus whose line is made up. `tally` counts what came of the answers."""

    def __init__(self, kind: str, chance: random.Random) -> None:
        super().__init__(BusConfig("line", kind, "127.0.0.1", 1))
        self.tally: Counter[str] = Counter()
        self.chance = chance
        self.is_true = False
        self._kind = kind
        self._exchange: asyncio.Future[bytes] = asyncio.get_event_loop().create_future()

    async def call(self, unit: int, request: Request, stamp: Callable[[], int] = lambda: 0) -> Answer:
        """Ask, and hear what chance makes of the answer."""
        assert isinstance(request, ReadRegisters)
        chance = self.chance
        owing = Unit("line", NEIGHBOUR, 1.0)
        owed = ReadRegisters(3, 0, chance.choice((1, 2, request.count)))
        framing: Framing
        if self._kind == "modbus-tcp":
            framing = TcpFraming(lambda _transaction, _answer: None)
        else:
            # Now and then a neighbour owes us an answer.
            if chance.random() < 0.3:
                owing.expect_late(owed, 1e12)

            def settle(unit: Unit) -> None:
                unit.late = None
                self.tally["stale"] += 1

            framing = RtuFraming(lambda number: owing if number == NEIGHBOUR and owing.late else None, settle)
        transaction = framing.transaction()
        exchange = Exchange(Unit("line", unit, 1.0), request, transaction, self._exchange)
        right = body_of(chance, request.function, request.count)
        stream = self._spoil(unit, request, transaction, right, owed if owing.late else None)
        self.tally["answers"] += 1
        buffer = bytearray()
        flight = {transaction: exchange}
        while stream:
            size = len(stream) if chance.random() < 0.3 else chance.randint(1, len(stream))
            buffer += stream[:size]
            stream = stream[size:]
            try:
                taken = framing.take(buffer, flight)
            except BadFrameError:
                self.tally["refused"] += 1
                raise
            if taken is not None:
                return self._judge(taken[1], right)
        self.tally["unfinished"] += 1
        raise TimedOutError(1.0)

    def _judge(self, answer: bytes, right: bytes) -> Answer:
        if answer[0] & 0x80:
            self.tally["exceptions"] += 1
            raise ExceptionAnswerError(answer[1])
        self.tally["good" if answer == right else "bad values"] += 1
        return Answer(answer, 1000)

    def _spoil(
        self, unit: int, request: ReadRegisters, transaction: int, right: bytes, owed: ReadRegisters | None
    ) -> bytes:
        chance = self.chance
        wrap = self._wrap
        whole = wrap(unit, right, transaction)
        kind = chance.random()
        if kind < 0.05:
            return whole
        if kind < 0.25:
            return wrap(*misfit(chance, unit, request), transaction)
        if kind < 0.35:
            code = chance.choice((1, 2, 3, 4, 5, 6, 8, 10, 11, chance.randrange(256)))
            return wrap(unit, bytes([chance.choice((request.function, 3, 4, 6)) | 0x80, code]), transaction)
        if kind < 0.5:
            # A late answer: of the neighbour, or with an older transaction.
            late = wrap(NEIGHBOUR, body_of(chance, 3, (owed or request).count), transaction - 1)
            if chance.random() < 0.3:
                late = chance.choice(SPOILING)(chance, late)
            return chance.choice((late + whole, whole + late, late))
        if self._kind == "modbus-tcp":
            head = chance.choice((flip, burst, cut))(chance, whole[:9])
            return chance.choice((head + whole[9:], cut(chance, whole), double(chance, whole), whole[9:]))
        return chance.choice(SPOILING)(chance, whole)

    def _wrap(self, unit: int, body: bytes, transaction: int) -> bytes:
        if self._kind == "modbus-tcp":
            return struct.pack(">HHHB", transaction & 0xFFFF, 0, len(body) + 1, unit) + body
        frame = bytes([unit]) + body
        return frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big")


def fuzz(rounds: int, seed: int) -> Counter[str]:
    """So many answers, half of them in each framing. Any exception but those of a bus gets through."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return _fuzz(rounds, random.Random(seed))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _fuzz(rounds: int, chance: random.Random) -> Counter[str]:
    names = [name for name in profiles.names() if profiles.load(name).kind == "registers"]
    meters = [make(MeterConfig(name, "line", UNIT, name, 1.0)) for name in names]
    buses = [FuzzedBus(kind, chance) for kind in ("rtu-over-tcp", "modbus-tcp")]
    while sum(bus.tally["answers"] for bus in buses) < rounds:
        bus = min(buses, key=lambda one: one.tally["answers"])
        meter = chance.choice(meters)
        poll = finish(meter.poll(bus, lambda: 1000))
        for record in poll.records:
            # What was refused is null, every point of it; nothing is left out.
            assert len(record.values) == len(record.layout.points)
            assert poll.error is None or isinstance(poll.error, BusError)
    return sum((bus.tally for bus in buses), Counter())


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the meter waits for something")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    tally = fuzz(options.rounds, options.seed)
    print(f"seed {options.seed}, {time.monotonic() - started:.0f} s: {dict(tally)}")
    return 1 if tally["bad values"] else 0


if __name__ == "__main__":
    sys.exit(main())

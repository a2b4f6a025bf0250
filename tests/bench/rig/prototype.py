# SPDX-License-Identifier: Apache-2.0
"""The floor of a prototype: pymodbus's asyncio client reads every unit once an interval and scales the registers.
Nothing is stored, nothing is sent.

    python -m tests.bench.rig.prototype INTERVAL UNITS PORT…
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from pymodbus.client import AsyncModbusTcpClient

from tests.bench.rig.register_map import COUNT, registers


def decode(words: Sequence[int]) -> list[float]:
    """Values in the points' units."""
    return [
        round(client_value(word, one.quantity.type) * one.quantity.scale, one.quantity.decimals)
        for word, one in zip(words, MAP, strict=True)
    ]


def client_value(word: int, kind: str) -> int:
    """A 16-bit register as a number."""
    return word - 0x10000 if kind == "int16" and word > 0x7FFF else word


MAP = registers()


async def poll(port: int, units: int, interval: float) -> None:
    """One endpoint, for ever, on an absolute schedule."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    due = time.monotonic()
    while True:
        for unit in range(1, units + 1):
            answer = await client.read_input_registers(0, count=COUNT, device_id=unit)
            if not answer.isError():
                decode(answer.registers)
        due += interval
        await asyncio.sleep(max(due - time.monotonic(), 0))


async def main() -> None:
    """All endpoints."""
    interval, units, *ports = sys.argv[1:]
    await asyncio.gather(*(poll(int(port), int(units), float(interval)) for port in ports))


if __name__ == "__main__":
    asyncio.run(main())

# SPDX-License-Identifier: Apache-2.0
"""How others schedule, with pymodbus's client as it comes (3 s, three retries): one endpoint, its units in turn.

    python -m tests.bench.rig.peers KIND INTERVAL UNITS PORT FRAMING

sleep     reads, then sleeps the interval
rearm     the next poll is due at "now + interval", now being when the poll began
absolute  as good as it gets: a fixed grid, what has passed meanwhile is left out
"""

from __future__ import annotations

import asyncio
import sys
import time

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusTcpClient

from tests.bench.rig.register_map import COUNT


async def read_all(client: AsyncModbusTcpClient, units: int) -> None:
    """All units once; one that does not answer has had its retries."""
    for unit in range(1, units + 1):
        try:
            if not client.connected:
                await client.connect()
            await client.read_input_registers(0, count=COUNT, device_id=unit)
        except ModbusException:
            continue


async def main() -> None:
    """Poll for ever."""
    kind, interval, units, port, framing = (
        sys.argv[1],
        float(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        sys.argv[5],
    )
    client = AsyncModbusTcpClient(
        "127.0.0.1", port=port, framer=FramerType.RTU if framing == "rtu" else FramerType.SOCKET
    )
    await client.connect()
    start = time.monotonic()
    while True:
        begun = time.monotonic()
        await read_all(client, units)
        now = time.monotonic()
        if kind == "sleep":
            due = now + interval
        elif kind == "rearm":
            due = begun + interval
        else:
            due = start + ((now - start) // interval + 1) * interval
        await asyncio.sleep(max(due - now, 0))


if __name__ == "__main__":
    asyncio.run(main())

# SPDX-License-Identifier: Apache-2.0
"""A poller whose gateway vanishes and comes back; run by test_bus_tcp.py in a network namespace of its own.

Twice the packets of the connection are dropped for some seconds, by nftables. The second time the gateway forgets
its connections meanwhile, as one does that has lost its power. Each time polls have to be good again within one
interval after the packets flow.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "collector")]

from energy_collector.bus import Bus
from energy_collector.clock import SourceClock
from energy_collector.config import BusConfig, MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.making import make
from energy_collector.polling.poller import PolledMeter, Poller
from energy_collector.reading import Record

from tests.unit.collector.modbus_peers import SerialGateway

INTERVAL = 1.0
OUTAGE = 3.5
# Polls are asked for within a few ms of their due times; this is for a machine that is busy with other tests.
SLACK = 0.5
TABLE = "table inet g {{ chain c {{ type filter hook input priority 0; tcp dport {0} drop; tcp sport {0} drop; }}; }}"


def nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


async def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    good: list[float] = []
    null: list[float] = []

    def sink(records: list[Record]) -> None:
        for one in records:
            (null if one.qualities and min(one.qualities) >= 128 else good).append(time.monotonic())

    async with SerialGateway(is_tcp=True) as gateway:
        bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", gateway.port, user_timeout=2.0))
        clock = SourceClock()
        meters = [
            PolledMeter(make(MeterConfig(f"m{unit}", "hall", unit, "eastron-sdm630", INTERVAL)), clock, 0)
            for unit in (1, 2, 3)
        ]
        task = asyncio.create_task(Poller(bus, meters, sink, Faults()).run())
        await asyncio.sleep(1.5)
        assert good, "no poll was good before the outage"
        for forgets in (False, True):
            nft(TABLE.format(gateway.port))
            if forgets:
                # Its sockets are gone without a goodbye reaching us.
                gateway.forget()
            await asyncio.sleep(OUTAGE)
            during = len(null)
            assert during, "polls went on being good without a gateway"
            nft("flush ruleset")
            back = time.monotonic()
            await asyncio.sleep(2 * INTERVAL)
            first = min((one for one in good if one > back), default=float("inf"))
            print(
                f"good again {first - back:.3f} s after the packets flow, {bus.counters['connects']} connects"
            )
            assert first - back < INTERVAL + SLACK
            late = [one for one in null if one > back + INTERVAL + SLACK]
            assert not late, f"{len(late)} polls were null after the gateway was back"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    print("back within one poll")


if __name__ == "__main__":
    asyncio.run(main())

# SPDX-License-Identifier: Apache-2.0
"""What polling 32 units costs, how late polls are, and what one dead unit among them does to the others.

    .venv/bin/python tests/bench/bench_bus.py [--seconds 20] [--units 32]

The peers run in a process of their own on loopback: a device that speaks Modbus TCP and answers at once, and a
gateway with a serial line behind it that serves one request after the other, 10 ms each, in both framings. Values
are not decoded and not stored here: the figures are those of poller and bus. Each poll asks for 100 registers.

The CPU of a request is that of this process over all requests; `against` is the same with pymodbus's own client,
one request after the other, in the same run. Writes build/bench/bus.json, a list of {name, value, unit, against,
ratio}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import struct
import sys
import time
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "collector")]

from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.clock import SourceClock
from energy_collector.config import BusConfig, MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.meter import Meter, Poll, Stamp
from energy_collector.polling.poller import PolledMeter, Poller
from energy_collector.profiles import load
from energy_collector.reading import Layout, Record, nulls

from tests.unit.collector.modbus_peers import SerialGateway, mbap

REGISTERS = 100
DEAD = 7


class RawMeter(Meter):
    """A meter whose poll is one request, and whose values are its registers as they are."""

    def __init__(self, config: MeterConfig) -> None:
        super().__init__(config, load("eastron-sdm630"))
        self.points = {f"{config.name}/r{index}": "1" for index in range(REGISTERS)}
        self._layout = Layout(tuple(self.points), tuple(self.points.values()))
        self._request = ReadRegisters(3, 0, REGISTERS)

    async def read(self, bus: Bus, stamp: Stamp) -> Poll:
        """One request."""
        try:
            answer = await bus.call(self.config.unit, self._request, stamp)
        except BusError as error:
            return Poll([nulls(self._layout, stamp(), error.quality)], error)
        numbers = struct.unpack_from(f">{REGISTERS}H", answer.data, 2)
        return Poll([Record(self._layout, answer.stamp, numbers)], None)


class Device(asyncio.Protocol):
    """Modbus TCP, answered at once and from a template: the peer's CPU must not be the limit."""

    body = b"".join(index.to_bytes(2, "big") for index in range(REGISTERS))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while len(data) >= 12:
            head = bytes([data[6], 3, 2 * REGISTERS])
            self._transport.write(mbap(int.from_bytes(data[:2], "big"), head + self.body))
            data = data[12:]
        self._rest = data


def serve(ports: Connection) -> None:
    """The peers, until the process is ended."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Device, "127.0.0.1", 0)
        rtu = SerialGateway(is_tcp=False, delay=0.009)
        tcp = SerialGateway(is_tcp=True, delay=0.009)
        rtu.dead, tcp.dead = {DEAD}, {DEAD}
        async with rtu, tcp:
            ports.send((server.sockets[0].getsockname()[1], rtu.port, tcp.port))
            await asyncio.sleep(1e6)

    asyncio.run(run())


async def poll(bus_config: BusConfig, units: int, interval: float, seconds: float) -> dict[str, Any]:
    """Poll for so long, and tell how it went."""
    bus = Bus(bus_config)
    clock = SourceClock()
    meters = [
        PolledMeter(RawMeter(MeterConfig(f"m{unit}", "b", unit, "eastron-sdm630", interval)), clock, 0)
        for unit in range(1, units + 1)
    ]
    times: dict[str, list[int]] = {}

    def sink(records: list[Record]) -> None:
        for one in records:
            if not one.qualities:
                times.setdefault(one.layout.points[0].split("/")[0], []).append(one.time)

    task = asyncio.create_task(Poller(bus, meters, sink, Faults()).run())
    await asyncio.sleep(interval)
    busy, started = time.process_time(), time.monotonic()
    requests = bus.counters["requests"]
    await asyncio.sleep(seconds)
    cpu, lasted = time.process_time() - busy, time.monotonic() - started
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    healthy = [one for one in meters if one.meter.config.unit != DEAD]
    gaps = [
        (later - earlier) / 1000
        for name, one in times.items()
        if name != f"m{DEAD}"
        for earlier, later in pairwise(one)
    ]
    return {
        "missed": sum(one.schedule.missed for one in healthy),
        "fewest": min((len(one) for name, one in times.items() if name != f"m{DEAD}"), default=0),
        "longest_gap": max(gaps, default=0.0),
        "p50": statistics.median(one.lateness(0.5) or 0.0 for one in healthy),
        "p99": max(one.lateness(0.99) or 0.0 for one in healthy),
        "first_p99": meters[0].lateness(0.99),
        "first_p50": meters[0].lateness(0.5),
        "worst": max(one.lateness(1.0) or 0.0 for one in healthy),
        "cpu": cpu / max(bus.counters["requests"] - requests, 1) * 1e6,
        "per_second": (bus.counters["requests"] - requests) / lasted,
        "counters": dict(bus.counters),
    }


async def pymodbus_cpu(port: int, requests: int) -> float:
    """CPU of one request of pymodbus's client, in µs."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    busy = time.process_time()
    for _ in range(requests):
        await client.read_holding_registers(0, count=REGISTERS, device_id=1)
    used = time.process_time() - busy
    client.close()
    return used / requests * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--units", type=int, default=32)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    peers = multiprocessing.get_context("fork").Process(target=serve, args=(there,), daemon=True)
    peers.start()
    device, rtu, tcp = here.recv()
    rows = []
    try:
        for name, config, interval in (
            ("10 Hz, modbus-tcp", BusConfig("b", "modbus-tcp", "127.0.0.1", device), 0.1),
            (
                "10 Hz, modbus-tcp, pipeline 4",
                BusConfig("b", "modbus-tcp", "127.0.0.1", device, pipeline=4),
                0.1,
            ),
            ("1 Hz, rtu-over-tcp, 1 dead", BusConfig("b", "rtu-over-tcp", "127.0.0.1", rtu), 1.0),
            ("1 Hz, modbus-tcp gateway, 1 dead", BusConfig("b", "modbus-tcp", "127.0.0.1", tcp), 1.0),
        ):
            found = asyncio.run(poll(config, options.units, interval, options.seconds))
            rows.append((name, found))
            print(
                f"{name:34} missed {found['missed']}, fewest polls {found['fewest']}, longest gap "
                f"{found['longest_gap']:.3f} s, late p50 {found['p50']:.2f} p99 {found['p99']:.2f} worst "
                f"{found['worst']:.1f} ms (first unit p50 {found['first_p50']:.2f} p99 {found['first_p99']:.2f}), "
                f"{found['cpu']:.0f} µs CPU a request at {found['per_second']:.0f}/s"
            )
            print(f"{'':34} {found['counters']}")
        theirs = asyncio.run(pymodbus_cpu(device, 2000))
        print(f"pymodbus's client: {theirs:.0f} µs CPU a request")
    finally:
        peers.terminate()
    results = []
    for name, found in rows:
        for key, unit in (("missed", "polls"), ("p50", "ms"), ("p99", "ms"), ("cpu", "us/request")):
            against = theirs if key == "cpu" else None
            results.append(
                {
                    "name": f"{name}: {key}",
                    "value": found[key],
                    "unit": unit,
                    "against": against,
                    "ratio": found[key] / against if against else None,
                }
            )
    path = ROOT / "build" / "bench" / "bus.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

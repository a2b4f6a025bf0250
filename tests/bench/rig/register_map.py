# SPDX-License-Identifier: Apache-2.0
"""The meter that the benchmarks poll: 100 input registers, each a point of its own, as three-phase meters with
integer maps have them. One table makes the profile, collectd's configuration and the simulated values."""

from __future__ import annotations

from typing import NamedTuple

PROFILE = "bench-meter"
COUNT = 100


class Quantity(NamedTuple):
    """A kind of register. `start` and `limits` are raw; `step` is the largest change from one second to the next, raw:
    what the mains and the loads of a plant do at the meter's resolution."""

    name: str
    unit: str
    type: str
    decimals: int
    scale: float
    start: int
    step: int
    limits: tuple[int, int]
    collectd: str


QUANTITIES = (
    Quantity("voltage", "V", "uint16", 1, 0.1, 2305, 4, (2180, 2420), "voltage"),
    Quantity("current", "A", "uint16", 2, 0.01, 4200, 60, (200, 20000), "current"),
    Quantity("active_power", "W", "int16", 0, 1.0, 9400, 140, (-2000, 30000), "power"),
    Quantity("reactive_power", "var", "int16", 0, 1.0, 2100, 60, (-6000, 12000), "power"),
    Quantity("apparent_power", "V.A", "uint16", 0, 1.0, 9700, 140, (300, 60000), "power"),
    Quantity("power_factor", "1", "int16", 3, 0.001, 952, 3, (-1000, 1000), "gauge"),
    Quantity("frequency", "Hz", "uint16", 2, 0.01, 5001, 1, (4980, 5020), "frequency"),
    Quantity("voltage_thd", "%", "uint16", 1, 0.1, 21, 1, (5, 80), "percent"),
    Quantity("current_thd", "%", "uint16", 1, 0.1, 84, 3, (20, 400), "percent"),
    Quantity("temperature", "Cel", "int16", 1, 0.1, 412, 1, (-200, 900), "temperature"),
)


class Register(NamedTuple):
    """One point at one address."""

    address: int
    point: str
    quantity: Quantity


def registers() -> list[Register]:
    """Ten circuits of ten quantities."""
    found = []
    for address in range(COUNT):
        circuit, index = divmod(address, len(QUANTITIES))
        quantity = QUANTITIES[index]
        found.append(Register(address, f"{quantity.name}_c{circuit + 1}", quantity))
    return found


def profile() -> dict[str, object]:
    """The same as a profile of the site's own."""
    points = {
        one.point: {
            "unit": one.quantity.unit,
            "address": one.address,
            "type": one.quantity.type,
            "decimals": one.quantity.decimals,
            "scale": one.quantity.scale,
        }
        for one in registers()
    }
    return {
        "model": "Meter of the benchmarks",
        "source": "tests/bench/rig/register_map.py",
        "function": 4,
    } | {"points": points}

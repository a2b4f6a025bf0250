# SPDX-License-Identifier: Apache-2.0
"""How the buses fare: what is counted of them, so that the hub sees a line that gets worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from energy_collector import quality
from energy_collector.reading import Layout, Record, record
from energy_collector.sources.source import Source, Stamp

# Of all that is counted, what tells a sound line from a bad one. Connects: how often the connection was made.
TOLD = ("requests", "timeouts", "exceptions", "crc_errors", "frame_errors", "connects")
MISSED = "missed_polls"

# The answer to `counters` of the control socket.
Counters = Callable[[], Mapping[str, Any]]
# The bus of each meter by the meter's name.
Places = Callable[[], Mapping[str, str]]


class BusSource(Source):
    """Counters of every bus since the service started; a bus that was changed begins again at 0."""

    def __init__(self, interval: float, counters: Counters, places: Places) -> None:
        super().__init__("buses", interval)
        self._counters = counters
        self._places = places
        self._layout = Layout((), ())

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """One for all buses, another one when a bus has come or gone."""
        return (self._layout,) if self._layout.points else ()

    async def read(self, stamp: Stamp) -> list[Record]:
        """What is counted now."""
        moment = stamp()
        counted, places = self._counters(), self._places()
        values: dict[str, float] = {}
        for bus, one in counted["buses"].items():
            values |= {f"buses/{bus}-{what}": float(one[what]) for what in TOLD}
            values[f"buses/{bus}-{MISSED}"] = 0.0
        for meter, one in counted["meters"].items():
            values[f"buses/{places[meter]}-{MISSED}"] += float(one[MISSED])
        points = tuple(values)
        if points != self._layout.points:
            self._layout = Layout(points, ("1",) * len(points))
        if not points:
            return []
        return [record(self._layout, moment, [(value, quality.GOOD) for value in values.values()])]

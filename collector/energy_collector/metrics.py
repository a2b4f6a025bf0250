# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus, on loopback only, where the configuration asks for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

ADDRESS = "127.0.0.1"
# A scrape waits so long for the service; s.
PATIENCE = 10.0
PREFIX = "energy_collector"

# What the service says of itself: the answers to `status` and `counters` of the control socket.
Snapshot = Callable[[], Awaitable[dict[str, Any]]]


class Metrics:
    """Serves http://127.0.0.1:PORT/metrics from a thread of its own. Raises OSError for a port in use."""

    def __init__(self, port: int, status: Snapshot, counters: Callable[[], dict[str, Any]]) -> None:
        registry = CollectorRegistry()
        registry.register(_Collector(asyncio.get_running_loop(), status, counters))
        self._server: WSGIServer
        self._thread: threading.Thread
        self._server, self._thread = start_http_server(port, ADDRESS, registry)

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector(Collector):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        status: Snapshot,
        counters: Callable[[], dict[str, Any]],
    ) -> None:
        self._loop = loop
        self._status = status
        self._counters = counters

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: which metrics there are depends on the configuration."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All metrics; the service's own thread is asked, since its figures belong to it."""
        asked = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        status, counters = asked.result(PATIENCE)
        yield from _about(status)
        yield from _counted("bus", ("bus",), {(name,): one for name, one in counters["buses"].items()})
        places = {one["name"]: (one["name"], one["bus"], str(one["unit"])) for one in status["meters"]}
        by_meter: dict[tuple[str, ...], dict[str, int]] = {
            places[name]: one for name, one in counters["meters"].items() if name in places
        }
        yield from _counted("meter", ("meter", "bus", "unit"), by_meter)
        radios = counters.get("radios", {})
        yield from _counted("radio", ("radio",), {(name,): one for name, one in radios.items()})

    async def _ask(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return await self._status(), self._counters()


def _about(status: dict[str, Any]) -> Iterable[Metric]:
    yield InfoMetricFamily(
        PREFIX, "The running service", value={"site": status["site"], "version": status["version"]}
    )
    connected = GaugeMetricFamily(
        f"{PREFIX}_bus_connected", "1 while the connection of a bus stands", labels=["bus"]
    )
    for bus in status["buses"]:
        connected.add_metric([bus["name"]], float(bus["connected"]))
    yield connected
    if "radios" in status:
        heard = GaugeMetricFamily(
            f"{PREFIX}_radio_connected", "1 while the broker of a radio can be heard", labels=["radio"]
        )
        for radio in status["radios"]:
            heard.add_metric([radio["name"]], float(radio["connected"]))
        yield heard
    last = GaugeMetricFamily(
        f"{PREFIX}_meter_last_success_timestamp_seconds",
        "Time of the newest value of a meter",
        labels=["meter"],
    )
    for meter in status["meters"]:
        if meter["last_success"] is not None:
            when = datetime.fromisoformat(meter["last_success"].replace("Z", "+00:00"))
            last.add_metric([meter["name"]], when.timestamp())
    yield last
    buffer = status["buffer"]
    for what, text in (
        ("readings", "Readings in the buffer"),
        ("batches", "Batches in the buffer that the hub has not acknowledged"),
        ("bytes", "Bytes that the buffer uses"),
    ):
        yield GaugeMetricFamily(f"{PREFIX}_buffer_{what}", text, value=float(buffer[what]))
    yield CounterMetricFamily(
        f"{PREFIX}_buffer_dropped",
        "Readings dropped at the bounds of the buffer",
        value=float(buffer["dropped"]),
    )


def _counted(
    kind: str, labels: tuple[str, ...], counted: dict[tuple[str, ...], dict[str, int]]
) -> Iterable[Metric]:
    for what in next(iter(counted.values()), {}):
        family = CounterMetricFamily(
            f"{PREFIX}_{kind}_{what}", f"{what.replace('_', ' ').capitalize()} since the start", labels=labels
        )
        for values, one in counted.items():
            family.add_metric(values, float(one[what]))
        yield family

# SPDX-License-Identifier: Apache-2.0
"""Metrics of a running gateway, scraped over HTTP."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

from energy_collector import control
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port

from .collector_support import ModbusServer, Service, document, input_device, running, wait_for

FLOATS = list(struct.unpack(">2H", struct.pack(">f", 0.5))) * 120


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def scrape(port: int) -> dict[tuple[str, str], float]:
    """Values by name of the sample, and its meter, bus or site."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (
            sample.name,
            next((sample.labels[one] for one in ("meter", "bus", "site") if one in sample.labels), ""),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_tell_what_the_counters_tell(tmp_path: Path) -> None:
    port = free_port()
    with ModbusServer([input_device(1, 0, FLOATS)]) as server:
        settings = document(tmp_path, interval=0.2, metrics={"port": port})
        settings["buses"][0]["port"] = server.port
        with running(Service("gateway", tmp_path, settings)):
            path = tmp_path / "control.sock"
            wait_for(path.exists, "the gateway listens")
            wait_for(lambda: listens(port), "the metrics are served")
            wait_for(
                lambda: scrape(port)["energy_collector_meter_answers_total", "main"] > 2,
                "the meter is polled",
            )
            before = control.ask(path, {"op": "counters"})["meters"]["main"]["answers"]
            found = scrape(port)
            after = control.ask(path, {"op": "counters"})["meters"]["main"]["answers"]
            assert before <= found["energy_collector_meter_answers_total", "main"] <= after
            assert found["energy_collector_bus_connected", "hall"] == 1
            assert found["energy_collector_meter_last_success_timestamp_seconds", "main"] > 1.7e9
            assert ("energy_collector_info", "plant-a") in found


def test_without_metrics_nothing_of_them_is_loaded(tmp_path: Path) -> None:
    code = "import energy_collector.gateway, sys; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

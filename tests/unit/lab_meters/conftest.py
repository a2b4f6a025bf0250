# SPDX-License-Identifier: Apache-2.0
"""A running simulator on loopback, and a client of its control socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHANNELS = {
    "flow": {"input": 1, "signal": "4-20mA", "low": 0, "high": 50, "unit": "m3/h"},
    "flow-temperature": {"input": 3, "signal": "4-20mA", "low": 0, "high": 150, "unit": "Cel"},
    "pressure": {"input": 8, "signal": "0-10V", "low": 0, "high": 10, "unit": "bar"},
}


def unit(number: int, model: str, name: str, role: str, **options: Any) -> dict[str, Any]:
    return {"unit": number, "model": model, "name": name, "role": role, "options": options}


def listener(framing: str, *units: dict[str, Any], address: str = "127.0.0.1", **more: Any) -> dict[str, Any]:
    return {"address": address, "port": 0, "framing": framing, "units": list(units), **more}


def plant(name: str = "plant-a", seed: int = 7, **more: Any) -> dict[str, Any]:
    """A site with every model: two TCP lines and an RTU line, each on a loopback address of its own."""
    return {
        "site": name,
        "netns": None,
        "seed": seed,
        "timezone": "Europe/Paris",
        "listeners": [
            listener(
                "tcp",
                unit(1, "eastron-sdm630", "main", "main"),
                unit(2, "carlo-gavazzi-em24", "hall", "consumption"),
                unit(3, "sunspec-inverter", "roof", "generation", peak_power=120_000),
                unit(4, "sunspec-battery", "battery", "storage", capacity=200_000, power=60_000),
                address="127.0.1.1",
            ),
            listener(
                "rtu",
                unit(11, "eastron-sdm630", "press", "consumption", diagnostics="counters"),
                unit(12, "eastron-sdm630", "oven", "consumption", ct_ratio="200:5"),
                address="127.0.1.2",
                delay=0.05,
            ),
            listener(
                "tcp", unit(1, "advantech-adam-6017", "io", "process", channels=CHANNELS), address="127.0.1.3"
            ),
        ],
        **more,
    }


def fleet(*sites: dict[str, Any]) -> dict[str, Any]:
    # A recent epoch keeps the sums short.
    return {"epoch": "2026-06-01T00:00:00Z", "sites": list(sites)}


class Simulator:
    """A process of python -m wattfleet_lab.meters."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.path = folder / "meters.json"
        self.control = folder / "control.sock"
        self.log = folder / "meters.log"
        self.write(description)
        lab = Path(__file__).parents[3] / "lab"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "wattfleet_lab.meters"),
                *("--description", str(self.path)),
                *("--control", str(self.control)),
                *("--log", str(self.log)),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(lab)},
        )
        self._wait_for(self._listens)

    def _listens(self) -> bool:
        """The socket is there a moment before anybody listens on it."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.control)) == 0

    def _wait_for(self, condition: Any) -> None:
        while not condition():
            if self.process.poll() is not None:
                raise RuntimeError(f"the simulator ended: {self.process.communicate()[1]}")
            time.sleep(0.02)

    def write(self, description: dict[str, Any]) -> None:
        self.description = description
        self.path.write_text(json.dumps(description), encoding="utf-8")

    def reload(self, description: dict[str, Any], says: str) -> None:
        """SIGHUP with another description, and wait for a word in the log."""
        before = self.log.read_text(encoding="utf-8").count(says)
        self.write(description)
        self.process.send_signal(signal.SIGHUP)
        self._wait_for(lambda: self.log.read_text(encoding="utf-8").count(says) > before)

    def ask(self, **request: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.control))
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as answers:
                answer: dict[str, Any] = json.loads(answers.readline())
        return answer

    def port(self, address: str, site: str = "plant-a") -> int:
        return int(self.ask(op="status")["sites"][site]["ports"][f"{address}:0"])

    def answers(self, site: str = "plant-a", since: int = 0) -> list[list[Any]]:
        rows: list[list[Any]] = self.ask(op="answers", site=site, since=since)["answers"]
        return rows

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)
        if self.process.stderr:
            self.process.stderr.close()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    running = Simulator(tmp_path_factory.mktemp("meters"), fleet(plant()))
    yield running
    running.stop()

# SPDX-License-Identifier: Apache-2.0
"""A changed configuration is taken up by the running service, without a gap where nothing changed."""

from __future__ import annotations

import signal
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from energy_collector import control
from energy_collector.storage.buffer import Buffer

from .collector_support import ModbusServer, Service, document, input_device, running, wait_for

FLOATS = list(struct.unpack(">2H", struct.pack(">f", 0.5))) * 120


class Site:
    """A gateway with two buses, and its file."""

    def __init__(self, folder: Path, first: ModbusServer, second: ModbusServer) -> None:
        self.folder = folder
        buses = [
            {"name": name, "type": "modbus-tcp", "host": "127.0.0.1", "port": server.port}
            for name, server in (("hall", first), ("roof", second))
        ]
        meters = [
            {"name": name, "bus": bus, "unit": 1, "profile": "eastron-sdm630"}
            for name, bus in (("main", "hall"), ("solar", "roof"))
        ]
        self.config = document(folder, buses=buses, meters=meters, interval=0.5)
        self.gateway = Service("gateway", folder, self.config)
        self.file = folder / "gateway.yaml"

    def write(self, config: dict[str, Any] | str) -> None:
        self.file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))

    def ask(self, op: str) -> dict[str, Any]:
        return control.ask(self.folder / "control.sock", {"op": op})

    def answers(self, meter: str) -> int:
        return int(self.ask("counters")["meters"].get(meter, {}).get("answers", 0))

    def wait_for_polls(self, *meters: str) -> None:
        wait_for(lambda: (self.folder / "control.sock").exists(), "the gateway listens")
        for meter in meters:
            wait_for(lambda meter=meter: self.answers(meter) > 3, f"{meter} is polled")

    def times(self, meter: str) -> list[int]:
        buffer = Buffer(self.folder / "buffer.db")
        try:
            return [one.time for _, one in buffer.export() if one.point == f"{meter}/active_power"]
        finally:
            buffer.close()


def test_a_changed_bus_is_taken_up_and_the_other_one_never_pauses(tmp_path: Path) -> None:
    unit = input_device(1, 0, FLOATS)
    with ModbusServer([unit]) as first, ModbusServer([unit]) as second, ModbusServer([unit]) as third:
        site = Site(tmp_path, first, second)
        with running(site.gateway):
            site.wait_for_polls("main", "solar")
            site.config["buses"][1]["port"] = third.port
            site.config["meters"][1]["name"] = "roof"
            site.write(site.config)
            answer = site.ask("reload")
            assert answer == {"ok": True, "changed": ["roof"], "restarts": False}
            site.wait_for_polls("roof")
            counters = site.ask("counters")
            assert counters["meters"].keys() == {"main", "roof"}
            assert counters["buses"]["hall"]["connects"] == 1
            assert counters["meters"]["main"]["missed_polls"] == 0
            assert site.gateway.kill(signal.SIGTERM) == 0
        times = site.times("main")
        gaps = {round((after - before) / 500) for before, after in pairwise(times)}
        assert gaps == {1}, "a poll was left out"


def test_sighup_does_the_same(tmp_path: Path) -> None:
    unit = input_device(1, 0, FLOATS)
    with ModbusServer([unit]) as first, ModbusServer([unit]) as second:
        site = Site(tmp_path, first, second)
        with running(site.gateway):
            site.wait_for_polls("main", "solar")
            site.config["meters"].append(
                {"name": "press", "bus": "hall", "unit": 1, "profile": "eastron-sdm630"}
            )
            del site.config["meters"][0]
            site.write(site.config)
            site.gateway.send(signal.SIGHUP)
            wait_for(lambda: "press" in site.ask("counters")["meters"], "the new meter is there")
            site.wait_for_polls("press")
            assert "main" not in site.ask("counters")["meters"]


def test_a_bad_configuration_is_refused_and_the_old_one_goes_on(tmp_path: Path) -> None:
    unit = input_device(1, 0, FLOATS)
    with ModbusServer([unit]) as first, ModbusServer([unit]) as second:
        site = Site(tmp_path, first, second)
        with running(site.gateway):
            site.wait_for_polls("main", "solar")
            before = site.answers("main")
            site.config["meters"][0]["unit"] = 999
            site.config["meters"][1]["profile"] = "eastron-sdm631"
            site.write(site.config)
            answer = site.ask("reload")
            assert not answer["ok"]
            assert "meters[0].unit: 999" in answer["error"]
            assert "did you mean eastron-sdm630?" in answer["error"]
            site.write("site: [")
            site.gateway.send(signal.SIGHUP)
            wait_for(lambda: "not YAML" in site.gateway.journal, "the journal names the fault")
            wait_for(lambda: site.answers("main") > before + 3, "the old configuration goes on")


def test_what_cannot_change_while_it_runs_makes_it_start_anew(tmp_path: Path) -> None:
    unit = input_device(1, 0, FLOATS)
    with ModbusServer([unit]) as first, ModbusServer([unit]) as second:
        site = Site(tmp_path, first, second)
        with running(site.gateway):
            site.wait_for_polls("main", "solar")
            site.write(site.config | {"site": "plant-b"})
            assert site.ask("reload") == {"ok": True, "changed": ["site"], "restarts": True}
            assert site.gateway.wait() == 0

# SPDX-License-Identifier: Apache-2.0
"""The stages as the running gateway strings them together: from a meter's registers to the buffer."""

from __future__ import annotations

import json
import signal
import struct
from pathlib import Path

from energy_collector import control
from energy_collector.reading import Reading
from energy_collector.storage.buffer import Buffer

from .collector_support import ModbusServer, Service, document, input_device, running, wait_for

FLOATS = list(struct.unpack(">2H", struct.pack(">f", 100.0))) * 120


def held(path: Path) -> list[Reading]:
    buffer = Buffer(path)
    try:
        return [one for _, one in buffer.export()]
    finally:
        buffer.close()


def test_statistics_of_calibrated_values_and_raw_samples_on_request(tmp_path: Path) -> None:
    mapping = tmp_path / "device_mapping.json"
    mapping.write_text(json.dumps({"main/frequency": [{"from": "2026-01-01T00:00:00Z", "multiplier": 2}]}))
    with ModbusServer([input_device(1, 0, FLOATS)]) as server:
        settings = document(tmp_path, interval=0.2, device_mapping=str(mapping), sources={})
        settings["buses"][0]["port"] = server.port
        settings["meters"][0] |= {"report": 1}
        gateway = Service("gateway", tmp_path, settings)
        with running(gateway):
            path, socket = tmp_path / "buffer.db", tmp_path / "control.sock"
            wait_for(lambda: path.exists() and len(held(path)) > 100, "statistics are stored")
            assert "main/active_power" not in {one.point for one in held(path)}
            refused = control.ask(socket, {"op": "raw", "meter": "main", "points": ["power"], "seconds": 5})
            assert "main has no point 'power'" in refused["error"]
            answer = control.ask(
                socket, {"op": "raw", "meter": "main", "points": ["active_power"], "seconds": 60}
            )
            assert answer["points"] == ["main/active_power"]
            wait_for(
                lambda: sum(one.point == "main/active_power" for one in held(path)) > 3, "samples are stored"
            )
            assert gateway.kill(signal.SIGTERM) == 0
        readings = held(path)
    means = [one.value for one in readings if one.point == "main/frequency_mean" and one.value is not None]
    assert means
    assert set(means) == {200.0}, "a mean is that of calibrated values"
    assert {one.value for one in readings if one.point == "main/frequency_multiplier"} == {2.0}
    energy = [one for one in readings if one.point == "main/energy_import"]
    assert energy, "a counter goes on under its own name"

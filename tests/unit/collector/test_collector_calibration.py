# SPDX-License-Identifier: Apache-2.0
"""Multipliers and offsets by date, applied at once, with the raw value kept and every change told."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from pathlib import Path
from typing import Any

import pytest
from energy_collector import control, quality
from energy_collector.journal import Faults
from energy_collector.meters.learned import Learned
from energy_collector.reading import Layout, Record, readings
from energy_collector.stages.calibration import Calibration, MappingError, load
from energy_collector.storage.buffer import Buffer

from .collector_support import ModbusServer, Service, input_device, running, wait_for
from .collector_support import document as service_document

LAYOUT = Layout(("main/active_power", "main/energy_import", "main/frequency"), ("W", "W.h", "Hz"))
POINTS = set(LAYOUT.points)
# 2026-01-01T00:00:00Z
YEAR = 1_767_225_600_000
FROM = "2026-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def _journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("energy"), "propagate", True)


class Site:
    """A calibration with a file, and a clock under the test's hand."""

    def __init__(self, folder: Path, learned: Learned | None = None) -> None:
        self.path = folder / "device_mapping.json"
        self.now = 100.0
        self.calibration = Calibration(
            self.path, learned or Learned(None, Faults()), Faults(), lambda: POINTS, lambda: self.now
        )

    def write(self, document: Any) -> None:
        """Put another file in its place, as an editor does, and let a second go by."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(document if isinstance(document, str) else json.dumps(document))
        fresh.replace(self.path)
        self.now += 1.0

    def take(
        self, time: int, values: tuple[float, ...] = (100.0, 5000.0, 50.0), codes: bytes = b""
    ) -> dict[str, Any]:
        """What becomes of a record, by point; each of them once."""
        records = self.calibration.take([Record(LAYOUT, time, values, codes)])
        found = readings(records)
        assert len({(one.point, one.time) for one in found}) == len(found)
        assert {one.time for one in found} == {time}
        return {one.point.removeprefix("main/"): (one.value, one.quality) for one in found}


def good(value: float) -> tuple[float, int]:
    return value, quality.GOOD


def power(multiplier: float = 1.02, offset: float = -3.5) -> dict[str, Any]:
    return {"main/active_power": [{"from": FROM, "multiplier": multiplier, "offset": offset, "note": "lab"}]}


def test_without_a_file_records_pass_untouched(tmp_path: Path) -> None:
    records = [Record(LAYOUT, YEAR, (1.0, 2.0, 3.0))]
    assert Site(tmp_path).calibration.take(records) is records


def test_a_point_is_calibrated_and_its_raw_value_kept(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(power())
    assert site.take(YEAR) == {
        "active_power_multiplier": good(1.02),
        "active_power_offset": good(-3.5),
        "active_power": good(98.5),
        "active_power_raw": good(100.0),
        "energy_import": good(5000.0),
        "frequency": good(50.0),
    }
    # The calibration is told once.
    assert set(site.take(YEAR + 1)) == {"active_power", "active_power_raw", "energy_import", "frequency"}


def test_units_go_with_the_points(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(power())
    found = {
        one.point: one.unit
        for one in readings(site.calibration.take([Record(LAYOUT, YEAR, (1.0, 2.0, 3.0))]))
    }
    assert found["main/active_power_raw"] == "W"
    assert found["main/active_power_multiplier"] == "1"
    assert found["main/active_power_offset"] == "W"


def test_an_entry_holds_from_its_date_on(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(
        {
            "main/active_power": [
                {"from": FROM, "multiplier": 2},
                {"from": "2026-01-01T03:00:00+01:00", "offset": 7},
            ]
        }
    )
    assert site.take(YEAR - 1)["active_power"] == good(100.0)
    assert site.take(YEAR)["active_power"] == good(200.0)
    assert "active_power_multiplier" not in site.take(YEAR + 7_199_999)
    later = site.take(YEAR + 7_200_000)
    assert later["active_power"] == good(107.0)
    assert (later["active_power_multiplier"], later["active_power_offset"]) == (good(1.0), good(7.0))


def test_a_change_is_applied_within_a_second_without_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(power())
    site.take(YEAR)
    site.write(power(1.1, 0))
    assert site.take(YEAR + 1)["active_power"] == good(110.0)
    assert "active_power_multiplier" not in site.take(YEAR + 2)
    # Not looked at more than once a second.
    site.write(power(1.2, 0))
    site.now -= 0.5
    assert site.take(YEAR + 3)["active_power"] == good(110.0)
    site.now += 0.5
    assert site.take(YEAR + 4)["active_power"] == good(120.0)


def test_a_calibration_that_ends_is_told_too(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(power())
    site.take(YEAR)
    site.path.unlink()
    site.now += 1.0
    found = site.take(YEAR + 1)
    assert found["active_power"] == good(100.0)
    assert (found["active_power_multiplier"], found["active_power_offset"]) == (good(1.0), good(0.0))


def test_a_bad_file_is_refused_once_and_the_one_before_it_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path)
    site.write(power())
    site.take(YEAR)
    caplog.clear()
    site.write({"main/active_power": [{"from": "today", "multiplier": 3}]})
    for tick in range(1, 4):
        assert site.take(YEAR + tick)["active_power"] == good(98.5)
        site.now += 1.0
    assert len(caplog.records) == 1
    assert "main/active_power[0].from: 'today' is not a time in UTC like 2026-01-01T00:00:00Z" in caplog.text
    site.write(power(3, 0))
    assert site.take(YEAR + 9)["active_power"] == good(300.0)


def test_a_misspelt_sensor_is_told_and_the_others_are_applied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path)
    site.write({**power(), "main/activ_power": [{"from": FROM}]})
    assert site.take(YEAR)["active_power"] == good(98.5)
    assert "main/activ_power: is not a point of this site; did you mean main/active_power?" in caplog.text


def test_qualities_stay_and_null_stays_null(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(power())
    codes = bytes([quality.BAD_NO_ANSWER, 0, quality.UNCERTAIN_CLOCK])
    found = site.take(YEAR, (0.0, 5000.0, 50.0), codes)
    assert found["active_power"] == (None, quality.BAD_NO_ANSWER)
    assert found["active_power_raw"] == (None, quality.BAD_NO_ANSWER)
    assert found["frequency"] == (50.0, quality.UNCERTAIN_CLOCK)
    codes = bytes([quality.UNCERTAIN_CLOCK, 0, 0])
    assert site.take(YEAR + 1, codes=codes)["active_power"] == (98.5, quality.UNCERTAIN_CLOCK)


def test_a_counter_that_steps_with_its_calibration_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        learned = Learned(tmp_path / "learned.json", Faults())
        site = Site(tmp_path, learned)
        site.write({"main/energy_import": [{"from": FROM, "multiplier": 1.1}]})
        assert site.take(YEAR)["energy_import"] == (5500.0, quality.UNCERTAIN_COUNTER_RESET)
        assert site.take(YEAR + 1)["energy_import"] == good(5500.0)
        await asyncio.gather(*learned._saving)
        # After a restart the calibration is told again, but nothing has stepped.
        again = Site(tmp_path, Learned(tmp_path / "learned.json", Faults()))
        found = again.take(YEAR + 2)
        assert found["energy_import_multiplier"] == good(1.1)
        assert found["energy_import"] == good(5500.0)

    asyncio.run(run())


def test_a_step_is_told_by_the_first_reading_that_counts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write({"main/energy_import": [{"from": FROM, "multiplier": 1.1}]})
    assert (
        site.take(YEAR, codes=bytes([quality.BAD_NO_ANSWER] * 3))["energy_import"][1] == quality.BAD_NO_ANSWER
    )
    # One that does not count, by what the stage of the counters says.
    assert (
        site.take(YEAR + 1, codes=bytes([0, quality.UNCERTAIN, 0]))["energy_import"][1] == quality.UNCERTAIN
    )
    site.calibration.apply([Record(LAYOUT, YEAR + 2, (1.0, 1.0, 1.0))])
    assert site.take(YEAR + 2)["energy_import"] == (5500.0, quality.UNCERTAIN_COUNTER_RESET)
    assert site.take(YEAR + 3)["energy_import"] == good(5500.0)


def test_who_only_looks_sees_calibrated_values_and_uses_nothing_up(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write(power())
    (seen,) = site.calibration.apply([Record(LAYOUT, YEAR, (100.0, 1.0, 1.0))])
    assert seen.values[0] == 98.5
    assert "active_power_multiplier" in site.take(YEAR)


def test_the_running_service_applies_a_new_file(tmp_path: Path) -> None:
    floats = list(struct.unpack(">2H", struct.pack(">f", 100.0))) * 120
    mapping = tmp_path / "device_mapping.json"
    with ModbusServer([input_device(1, 0, floats)]) as server:
        buses = [{"name": "hall", "type": "modbus-tcp", "host": "127.0.0.1", "port": server.port}]
        config = service_document(tmp_path, buses=buses, interval=0.2, device_mapping=str(mapping))
        with running(Service("gateway", tmp_path, config)):
            wait_for(lambda: series(tmp_path, "active_power"), "the meter is polled")
            mapping.write_text(json.dumps(power()))
            wait_for(lambda: series(tmp_path, "active_power_offset"), "the calibration is told")
            wait_for(lambda: len(series(tmp_path, "active_power_raw")) > 2, "raw values come")
            probe = control.ask(tmp_path / "control.sock", {"op": "read_meter", "meter": "main"})
        values = {one["point"]: one["value"] for one in probe["readings"]}
        assert (values["main/active_power"], values["main/active_power_raw"]) == (98.5, 100.0)
        (told,) = series(tmp_path, "active_power_multiplier")
        found = series(tmp_path, "active_power")
        assert told in found
        assert {value for time, value in found.items() if time < told} == {100.0}
        assert {value for time, value in found.items() if time >= told} == {98.5}
        assert set(series(tmp_path, "active_power_raw").values()) == {100.0}
        assert json.loads((tmp_path / "learned.json").read_text())["calibrations"] == {
            "main/active_power": [1.02, -3.5]
        }


def series(folder: Path, point: str) -> dict[int, float | None]:
    """What the buffer holds of a point, by time."""
    if not (folder / "buffer.db").exists():
        return {}
    buffer = Buffer(folder / "buffer.db")
    try:
        return {one.time: one.value for _, one in buffer.export() if one.point == f"main/{point}"}
    finally:
        buffer.close()


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("{", "is not JSON"),
        ([], r"\[\] is not a mapping"),
        ({"a/b": {}}, r"a/b: \{\} is not a list"),
        ({"a/b": [{"multiplier": 2}]}, r"a/b\[0\].from: missing"),
        ({"a/b": [{"from": FROM[:-1]}]}, r"a/b\[0\].from: '2026-01-01T00:00:00' is not a time in UTC"),
        ({"a/b": [{"from": FROM, "multiplier": "2"}]}, r"a/b\[0\].multiplier: '2' is not a number"),
        (
            {"a/b": [{"from": FROM, "multiplier": 0}]},
            r"a/b\[0\].multiplier: 0 would make every value the same",
        ),
        ('{"a/b": [{"from": "' + FROM + '", "offset": NaN}]}', r"a/b\[0\].offset: nan is not between"),
        ({"a/b": [{"from": FROM, "factor": 2}]}, r"a/b\[0\].factor: unknown key"),
        ({"a/b": [{"from": FROM}, {"from": FROM}]}, "a/b: its entries do not follow one another in time"),
    ],
)
def test_a_fault_of_the_file_is_told_with_its_place(tmp_path: Path, document: Any, fault: str) -> None:
    path = tmp_path / "device_mapping.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(MappingError, match=fault):
        load(path)

# SPDX-License-Identifier: Apache-2.0
"""Sensors of a tree that looks like the kernel's, and the health of this machine."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from energy_collector import quality
from energy_collector.config import ConfigError
from energy_collector.config_file import parse
from energy_collector.reading import Record, readings
from energy_collector.sources import BusSource, HostSource, HwmonSource, Source, from_config, run

from .collector_support import document

NAME = re.compile(r"hwmon/[a-z0-9]+(-[a-z0-9]+)*")


class Tree:
    """A /sys/class/hwmon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "class" / "hwmon"
        self.root.mkdir(parents=True)

    def chip(self, number: int, name: str, device: str | None = None, **files: str) -> Path:
        """A chip with its files; the kernel numbers them as it finds them."""
        chip = self.root / f"hwmon{number}"
        chip.mkdir()
        (chip / "name").write_text(f"{name}\n")
        if device:
            target = self.folder / "devices" / device
            target.mkdir(parents=True, exist_ok=True)
            (chip / "device").symlink_to(target)
        for file, text in files.items():
            (chip / file).write_text(f"{text}\n")
        return chip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def read(source: Source) -> dict[str, tuple[float | None, str, int]]:
    """Value, unit and quality by point."""
    records = asyncio.run(source.read(itertools.count(1000).__next__))
    found = readings(records)
    names = [one.point for one in found]
    assert len(names) == len(set(names))
    assert tuple(one.layout for one in records) == source.layouts
    return {one.point: (one.value, one.unit, one.quality) for one in found}


def test_every_kind_of_sensor_in_its_unit(tree: Tree) -> None:
    tree.chip(
        0,
        "ina226",
        temp1_input="-40250",
        in0_input="11980",
        curr1_input="1250",
        power1_input="14975000",
        fan1_input="1450",
        temp1_max="90000",
        humidity1_input="4000",
    )
    assert read(HwmonSource(60, tree.root)) == {
        "hwmon/ina226-temp1": (-40.25, "Cel", 0),
        "hwmon/ina226-in0": (11.98, "V", 0),
        "hwmon/ina226-curr1": (1.25, "A", 0),
        "hwmon/ina226-power1": (14.975, "W", 0),
        "hwmon/ina226-fan1": (1450, "/min", 0),
    }


def test_labels_become_names(tree: Tree) -> None:
    labels = {"temp1_label": "Package id 0", "temp2_label": "Core 0", "temp3_label": "Tctl (°C) /x"}
    values = {f"temp{number}_input": "50000" for number in (1, 2, 3)}
    tree.chip(0, "coretemp", "coretemp.0", **labels, **values)
    found = read(HwmonSource(60, tree.root))
    assert list(found) == ["hwmon/coretemp-package-id-0", "hwmon/coretemp-core-0", "hwmon/coretemp-tctl-c-x"]
    assert all(NAME.fullmatch(name) for name in found)


def test_chips_of_one_kind_are_named_by_their_device_not_by_their_number(tree: Tree) -> None:
    tree.chip(0, "nvme", "0000:01:00.0", temp1_input="31000", temp1_label="Composite")
    tree.chip(1, "nvme", "0000:02:00.0", temp1_input="42000", temp1_label="Composite")
    first = read(HwmonSource(60, tree.root))
    assert first == {
        "hwmon/nvme-0000-01-00-0-composite": (31, "Cel", 0),
        "hwmon/nvme-0000-02-00-0-composite": (42, "Cel", 0),
    }
    # The next boot finds them the other way round.
    for number, other in ((0, "x"), (1, "hwmon0"), (None, "hwmon1")):
        source = tree.root / (f"hwmon{number}" if number is not None else "x")
        source.rename(tree.root / other)
    assert read(HwmonSource(60, tree.root)) == first


def test_the_same_label_twice_in_a_chip(tree: Tree) -> None:
    tree.chip(0, "board", temp1_input="1000", temp1_label="CPU", temp2_input="2000", temp2_label="CPU")
    assert read(HwmonSource(60, tree.root)) == {
        "hwmon/board-cpu-temp1": (1, "Cel", 0),
        "hwmon/board-cpu-temp2": (2, "Cel", 0),
    }


def test_names_that_become_the_same_stay_apart(tree: Tree) -> None:
    tree.chip(0, "a_b", temp1_input="1000")
    tree.chip(1, "a-b", temp1_input="2000")
    assert sorted(value for value, _, _ in read(HwmonSource(60, tree.root)).values() if value) == [1, 2]


def test_sensors_come_and_go(tree: Tree) -> None:
    tree.chip(0, "cpu", temp1_input="50000")
    usb = tree.chip(1, "usb", "1-1", temp1_input="20000")
    source = HwmonSource(60, tree.root)
    assert read(source) == {"hwmon/cpu-temp1": (50, "Cel", 0), "hwmon/usb-temp1": (20, "Cel", 0)}
    usb.rename(tree.folder / "gone")
    null = (None, "Cel", quality.BAD_SENSOR)
    assert read(source) == {"hwmon/cpu-temp1": (50, "Cel", 0), "hwmon/usb-temp1": null}
    # It comes back under another number, and a second one of its kind with it: neither takes the other's name.
    (tree.folder / "gone").rename(tree.root / "hwmon7")
    tree.chip(8, "usb", "1-2", temp1_input="21000")
    assert read(source) == {
        "hwmon/cpu-temp1": (50, "Cel", 0),
        "hwmon/usb-temp1": (20, "Cel", 0),
        "hwmon/usb-1-2-temp1": (21, "Cel", 0),
    }


def test_faulty_sensors_are_null(tree: Tree) -> None:
    chip = tree.chip(
        0, "x", temp1_input="85000", temp1_fault="1", temp2_input="", temp3_input="hot", temp4_input="1000"
    )
    # What a driver says with EIO or ENODATA: a folder cannot be read as a file either.
    (chip / "temp5_input").mkdir()
    found = read(HwmonSource(60, tree.root))
    null = (None, "Cel", quality.BAD_SENSOR)
    assert found == {f"hwmon/x-temp{number}": null for number in (1, 2, 3, 5)} | {
        "hwmon/x-temp4": (1, "Cel", 0)
    }


def test_a_host_without_sensors_has_no_readings(tree: Tree) -> None:
    assert read(HwmonSource(60, tree.root)) == {}
    assert read(HwmonSource(60, tree.root / "none")) == {}
    (tree.root / "hwmon0").mkdir()
    assert read(HwmonSource(60, tree.root)) == {}


def test_this_machines_own_sensors_have_right_names() -> None:
    assert all(NAME.fullmatch(name) for name in read(HwmonSource(60)))


def test_this_machines_health(tmp_path: Path) -> None:
    found = read(HostSource(60, tmp_path))
    assert set(found) >= {"host/load", "host/memory_available", "host/disk_free", "host/uptime"}
    assert {code for _, _, code in found.values()} == {0}
    for name in ("memory_available", "disk_free"):
        value, unit, _ = found[f"host/{name}"]
        assert value is not None
        assert 0 < value <= 100
        assert unit == "%"
    uptime = found["host/uptime"][0]
    assert uptime == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=60)


def test_a_host_that_does_not_tell_is_null(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "loadavg").write_text("nonsense\n")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 100 kB\n")
    found = read(HostSource(60, tmp_path / "none", tmp_path))
    assert {value[::2] for value in found.values()} == {(None, quality.BAD_SENSOR)}


def test_known_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "loadavg").write_text("3.00 2.00 1.00 1/100 1234\n")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 2000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n")
    (tmp_path / "proc" / "uptime").write_text("123.45 400.00\n")
    timesync = tmp_path / "run" / "systemd" / "timesync"
    timesync.mkdir(parents=True)
    source = HostSource(60, tmp_path, tmp_path)
    found = read(source)
    assert [found[f"host/{name}"][0] for name in ("load", "memory_available", "uptime")] == [0.75, 25, 123.45]
    assert found["host/clock_synchronised"] == (0, "1", 0)
    (timesync / "synchronized").touch()
    assert read(source)["host/clock_synchronised"] == (1, "1", 0)


def test_the_buses_tell_what_they_have_counted() -> None:
    def bus(requests: int, timeouts: int) -> dict[str, int]:
        rest = dict.fromkeys(("answers", "exceptions", "crc_errors", "frame_errors", "connects", "stale"), 1)
        return {"requests": requests, "timeouts": timeouts, **rest}

    buses = {"hall": bus(100, 2), "roof-1": bus(7, 0)}
    meters = {"main": {"missed_polls": 3}, "pv": {"missed_polls": 0}, "oven": {"missed_polls": 4}}
    places = {"main": "hall", "pv": "roof-1", "oven": "hall"}
    source = BusSource(60, lambda: {"buses": buses, "meters": meters}, lambda: places)
    found = read(source)
    assert {name: value for name, (value, _, _) in found.items() if name.startswith("buses/hall-")} == {
        "buses/hall-requests": 100,
        "buses/hall-timeouts": 2,
        "buses/hall-exceptions": 1,
        "buses/hall-crc_errors": 1,
        "buses/hall-frame_errors": 1,
        "buses/hall-connects": 1,
        "buses/hall-missed_polls": 7,
    }
    assert found["buses/roof-1-requests"] == (7, "1", 0)
    first = source.layouts
    read(source)
    assert source.layouts[0] is first[0]
    # A bus that goes with a changed configuration takes its points along.
    del buses["roof-1"], meters["pv"]
    assert all(name.startswith("buses/hall-") for name in read(source))


def test_without_a_bus_there_is_nothing_to_tell() -> None:
    assert read(BusSource(60, lambda: {"buses": {}, "meters": {}}, dict)) == {}


def test_a_source_is_read_on_its_schedule(tree: Tree) -> None:
    tree.chip(0, "cpu", temp1_input="50000")
    found: list[Record] = []

    async def some() -> None:
        enough = asyncio.Event()

        def sink(records: list[Record]) -> None:
            found.extend(records)
            if len(found) == 3:
                enough.set()

        task = asyncio.create_task(run(HwmonSource(0.05, tree.root), itertools.count(1).__next__, sink))
        await asyncio.wait_for(enough.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(some())
    assert [one.time for one in found[:3]] == [1, 2, 3]
    assert found[0].layout is found[1].layout


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (None, [("hwmon", 60.0), ("host", 60.0), ("buses", 60.0)]),
        ({"hwmon": {"interval": 10}}, [("hwmon", 10.0), ("host", 60.0), ("buses", 60.0)]),
        ({"hwmon": {"enabled": False}, "buses": {"enabled": False}}, [("host", 60.0)]),
    ],
)
def test_configuration(tmp_path: Path, sources: object, expected: list[tuple[str, float]]) -> None:
    config = document(tmp_path)
    if sources is not None:
        config["sources"] = sources
    assert [(one.name, one.interval) for one in from_config(parse(config), dict, dict)] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda doc: doc.update(sources={"hwmo": {}}), "sources.hwmo: unknown key; did you mean hwmon?"),
        (
            lambda doc: doc.update(sources={"host": {"interval": 0}}),
            "sources.host.interval: 0.0 is not between 1 and 3600",
        ),
        (
            lambda doc: doc["meters"][0].update(name="host"),
            "meters[0].name: 'host' is what the gateway's own points are named",
        ),
    ],
)
def test_faults_of_the_configuration(
    tmp_path: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    config = document(tmp_path)
    change(config)
    with pytest.raises(ConfigError) as caught:
        parse(config)
    assert caught.value.faults == [message]

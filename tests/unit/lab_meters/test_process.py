# SPDX-License-Identifier: Apache-2.0
"""The process: start, bad descriptions, SIGHUP, the log of answers, and namespaces."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient
from wattfleet_lab.meters.answers import AnswerLog
from wattfleet_lab.meters.description import DescriptionError, load, parse

from .conftest import Simulator, fleet, listener, plant, unit


def small(name: str, address: str, **options: Any) -> dict[str, Any]:
    meter = unit(1, "eastron-sdm630", "main", "main", **options)
    return {**plant(name), "listeners": [listener("tcp", meter, address=address)]}


def test_hangup_keeps_what_has_not_changed(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path, fleet(small("one", "127.0.2.1"), small("two", "127.0.2.2")))
    try:
        port = simulator.port("127.0.2.1", "one")
        with ModbusTcpClient("127.0.2.1", port=port, retries=0) as client:
            first = client.socket
            assert not client.read_input_registers(0, count=2).isError()
            changed = small("two", "127.0.2.2", ct_ratio="100:5")
            simulator.reload(
                fleet(small("one", "127.0.2.1"), changed, small("three", "127.0.2.3")), "read again"
            )
            assert not client.read_input_registers(0, count=2).isError()
            assert client.socket is first
        assert simulator.port("127.0.2.1", "one") == port
        assert len(simulator.answers("one")) == 2
        assert set(simulator.ask(op="status")["sites"]) == {"one", "two", "three"}
        simulator.reload(fleet(small("one", "127.0.2.1")), "read again")
        assert set(simulator.ask(op="status")["sites"]) == {"one"}
        simulator.reload({"sites": [{"site": "one"}]}, "not taken over")
        assert set(simulator.ask(op="status")["sites"]) == {"one"}
    finally:
        simulator.stop()
    assert simulator.process.returncode == 0
    assert not simulator.control.exists()


def test_two_simulators_do_not_share_a_socket(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(fleet(small("other", "127.0.2.9"))))
    ended = run(path, simulator.control)
    assert ended.returncode == 1
    assert "another simulator is listening there" in ended.stderr
    assert simulator.ask(op="status")["ok"]


def run(path: Path, control: Path) -> subprocess.CompletedProcess[str]:
    lab = Path(__file__).parents[3] / "lab"
    return subprocess.run(
        [sys.executable, "-m", "wattfleet_lab.meters", "--description", str(path), "--control", str(control)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(lab)},
    )


def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.2.20", 0)) as taken:
        site = small("one", "127.0.2.20")
        site["listeners"][0]["port"] = taken.getsockname()[1]
        path = tmp_path / "meters.json"
        path.write_text(json.dumps(fleet(site)))
        ended = run(path, tmp_path / "control.sock")
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("wattfleet meters: site one: cannot listen on 127.0.2.20:")
    assert "Traceback" not in ended.stderr


def first_units(site: Any) -> Any:
    return site["listeners"][0]["units"]


def flow(site: Any) -> Any:
    return site["listeners"][2]["units"][0]["options"]["channels"]["flow"]


def extra(number: int, model: str, name: str) -> Any:
    return lambda site: first_units(site).append(unit(number, model, name, "main"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda site: site.pop("seed"), "sites[0]: 'seed' is missing"),
        (lambda site: site.update(colour=1), "unknown key 'colour'"),
        (lambda site: site.update(timezone="Europe/Lyon"), "timezone 'Europe/Lyon' does not exist"),
        (lambda site: site["listeners"][0].update(framing="ascii"), "'ascii' is unknown, known are tcp, rtu"),
        (lambda site: site["listeners"][0].update(address="hall"), "'hall' is not an IP address"),
        (extra(1, "eastron-sdm630", "x"), "unit 1 occurs twice"),
        (extra(9, "eastron-sdm630", "main"), "meter 'main' occurs twice"),
        (extra(9, "abb", "x"), "'abb' is unknown"),
        (extra(9, "sunspec-battery", "x"), "storage would"),
        (lambda site: first_units(site)[0]["options"].update(ct_ratio="200/5"), "'200/5' is not a ratio"),
        (lambda site: first_units(site)[0]["options"].update(ct=1), "unknown key 'ct'"),
        (lambda site: flow(site).update(input=3), "input 3 is used twice"),
        (lambda site: flow(site).update(input=0), "from 1 to 8 is expected"),
        (lambda site: flow(site).update(low=60), "is not below high"),
    ],
)
def test_bad_descriptions_are_refused(change: Any, says: str) -> None:
    document = json.loads(json.dumps(fleet(plant())))
    change(document["sites"][0])
    with pytest.raises(DescriptionError) as caught:
        parse(document)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_descriptions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="No such file"):
        load(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DescriptionError, match="not JSON"):
        load(tmp_path / "bad.json")


def test_control_requests_that_make_no_sense(simulator: Simulator) -> None:
    assert "an op is expected" in simulator.ask(op="dance")["error"]
    assert "since -1" in simulator.ask(op="answers", site="plant-a", since=-1)["error"]


def test_answers_are_logged_in_order(simulator: Simulator) -> None:
    before = simulator.ask(op="answers", site="plant-a", since=0)["last"]
    with ModbusTcpClient("127.0.1.1", port=simulator.port("127.0.1.1")) as client:
        client.read_input_registers(52, count=2, device_id=1)
        client.read_holding_registers(40, count=4, device_id=2)
        client.read_input_registers(1, count=2, device_id=1)
    rows = simulator.answers(since=before)
    assert [row[0] for row in rows] == [before + 1, before + 2, before + 3]
    assert [row[2:] for row in rows] == [
        ["plant-a", "main", 1, 4, 52, 2, "answered"],
        ["plant-a", "hall", 2, 3, 40, 4, "answered"],
        ["plant-a", "main", 1, 4, 1, 2, "exception"],
    ]
    assert all(round(row[1] * 10) == pytest.approx(row[1] * 10) for row in rows)


def test_log_of_answers_is_bounded() -> None:
    log = AnswerLog(3000)
    for number in range(1, 5001):
        log.add(float(number), 1, 2, 3, 4, 5, 0)
    assert log.dropped == 2000
    entries = log.since(0, 10_000)
    assert [entry[0] for entry in entries] == list(range(2001, 5001))
    assert all(entry[0] == entry[1] for entry in entries)
    assert [entry[0] for entry in log.since(4990, 5)] == [4991, 4992, 4993, 4994, 4995]
    assert log.since(5000, 5) == []


def test_log_of_answers_grows_without_moving_entries() -> None:
    log = AnswerLog(100_000)
    for number in range(1, 5001):
        log.add(float(number), 1, 2, 3, 4, 5, 0)
    assert log.dropped == 0
    assert [entry[1] for entry in log.since(0, 10_000)] == [float(number) for number in range(1, 5001)]


@pytest.mark.skipif(os.geteuid() != 0, reason="making a network namespace needs root")
def test_ports_are_inside_the_namespaces_of_their_sites(tmp_path: Path) -> None:
    """Two sites with one and the same address, each in a namespace of its own, as in the field."""
    names = [f"wfm{os.getpid()}-{number}" for number in (1, 2)]
    sites = []
    made: list[str] = []
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            made.append(name)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
            subprocess.run(["ip", "-n", name, "address", "add", "192.168.10.20/32", "dev", "lo"], check=True)
            site = small(name, "192.168.10.20")
            site["netns"] = f"/run/netns/{name}"
            site["listeners"][0]["port"] = 502
            sites.append(site)
        simulator = Simulator(tmp_path, fleet(*sites))
        try:
            for name in names:
                program = (
                    "from pymodbus.client import ModbusTcpClient as C\n"
                    "c = C('192.168.10.20'); c.connect()\n"
                    "print(c.read_input_registers(0, count=2).registers)"
                )
                inside = ["ip", "netns", "exec", name, sys.executable, "-c", program]
                ended = subprocess.run(inside, capture_output=True, text=True, check=True)
                assert ended.stdout.startswith("[")
                assert len(simulator.answers(name)) == 1
            # The simulator itself has stayed where it was: nothing listens outside.
            here = Path(f"/proc/{simulator.process.pid}/ns/net").stat().st_ino
            assert here == Path("/proc/self/ns/net").stat().st_ino
        finally:
            simulator.stop()
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=True)


def test_missing_namespace_is_one_line(tmp_path: Path) -> None:
    site = small("one", "127.0.2.30")
    site["netns"] = "/run/netns/wattfleet-does-not-exist"
    path = tmp_path / "meters.json"
    path.write_text(json.dumps(fleet(site)))
    ended = run(path, tmp_path / "control.sock")
    assert ended.returncode == 1
    assert "network namespace /run/netns/wattfleet-does-not-exist: No such file" in ended.stderr
    assert "Traceback" not in ended.stderr

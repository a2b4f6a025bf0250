"""Each module file once the way Ansible runs it: options parsed, code shipped, JSON back."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, FakeCollector, Peer, registers_device

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    inventory = tmp_path / "hosts.ini"
    # The distribution's bare Python, as on a gateway, and not the one with everything in it that runs the tests.
    inventory.write_text("here ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n")

    def run_module(name: str, check: bool = False, **options: Any) -> dict[str, Any]:
        command = [sys.executable, "-m", "ansible", "adhoc", "here", "-i", str(inventory)]
        command += [
            "-m",
            f"wattfleet.energy.{name}",
            "-a",
            json.dumps(options),
            *(["--check"] if check else []),
        ]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_INVENTORY_ENABLED": "ini",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "HOME": str(tmp_path),
        }
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        assert done.stdout.lstrip().startswith("{"), done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["here"]
        return result

    return run_module


@pytest.mark.parametrize("check", [False, True])
def test_modbus_probe(run: Run, make_peer: Callable[..., Peer], tmp_path: Path, check: bool) -> None:
    peer = make_peer(registers_device({0: 2314}))
    meters = [
        {"name": "good", "host": "127.0.0.1", "port": peer.port, "unit": 1, "address": 0, "scale": 0.1},
        {"name": "dead", "host": "127.0.0.1", "port": peer.port, "unit": 2, "timeout": 0.1},
    ]
    result = run("modbus_probe", check, meters=meters, socket=str(tmp_path / "none"))
    assert result["changed"] is False
    assert result["reachable"] is False
    good, dead = result["results"]
    assert good["value"] == pytest.approx(231.4)
    assert dead["failure"]["code"] == "NO_ANSWER"


def test_modbus_probe_refuses_nonsense(run: Run) -> None:
    result = run("modbus_probe", unit=1, host="127.0.0.1", timeout=-1)
    assert result["failed"]
    assert result["msg"] == "127.0.0.1/1: timeout -1 must be above 0 s"
    assert "mutually exclusive" in run("modbus_probe", unit=1, meters=[])["msg"]


def test_modbus_counters(run: Run, make_collector: Callable[..., FakeCollector]) -> None:
    looks = iter(({"crc_errors": 1}, {"crc_errors": 4}))
    collector = make_collector({"counters": lambda _request: {"ok": True, "buses": {"hall": next(looks)}}})
    result = run("modbus_counters", socket=collector.path, interval=0.01)
    assert result["exceeded"] == [
        {"kind": "buses", "name": "hall", "counter": "crc_errors", "growth": 3, "limit": 0}
    ]
    assert result["failures"] == []


def test_modbus_counters_tells_what_the_first_look_could_not_read(
    run: Run, make_collector: Callable[..., FakeCollector]
) -> None:
    fault = {"ok": False, "error": "the collector is starting", "cause": "look again"}
    looks = iter((fault, {"ok": True, "buses": {"hall": {"crc_errors": 4}}}))
    collector = make_collector({"counters": lambda _request: next(looks)})
    result = run("modbus_counters", socket=collector.path, interval=0.01)
    assert result["counters"]["buses"] == {"hall": {"crc_errors": 4}}
    # Nothing was compared, so that nothing exceeded says nothing.
    assert result["growth"] == {}
    assert result["exceeded"] == []
    assert [one["name"] for one in result["failures"]] == ["collector"]


def test_link_counters(run: Run) -> None:
    result = run("link_counters", interfaces=["lo", "missing0"], interval=0.01)
    assert result["links"]["lo"]["present"]
    assert [found["finding"] for found in result["findings"] if found["interface"] == "missing0"] == [
        "missing"
    ]
    assert result["exceeded"] == []
    both = run("link_counters", interval=1, before={})
    assert both["msg"] == "give `interval` or `before`, not both: two looks are compared, not three"


def test_gateway_info(
    run: Run, make_peer: Callable[..., Peer], make_collector: Callable[..., FakeCollector]
) -> None:
    status = {
        "ok": True,
        "site": "plant-a",
        "version": "0.1.0",
        "started": "2026-01-01T00:00:00.000Z",
        "buses": [{"name": "hall", "connected": True, "last_error": None}],
        "buffer": {"readings": 12, "batches": 1, "bytes": 4096, "dropped": 0, "oldest": None},
    }
    reading = {"point": "main/frequency", "value": 50.0, "unit": "Hz", "quality": "good"}
    collector = make_collector(
        {
            "status": status,
            "counters": {"ok": True, "buses": {"hall": {"crc_errors": 0}}, "meters": {}},
            "read_meter": {"ok": True, "time": "now", "readings": [reading]},
            "diagnostics": {"ok": False, "error": "Modbus Error 0x01: illegal function", "cause": ""},
        }
    )
    meters = [{"meter": "main", "bus": "hall", "unit": 1, "host": "127.0.0.1"}]
    result = run("gateway_info", meters=meters, socket=collector.path, interval=0, certificate="/none")
    assert abs(result["clock"]["offset"]) <= result["clock"]["uncertainty"] + 0.01
    assert result["collector"]["site"] == "plant-a"
    assert result["buffer"]["readings"] == 12
    assert [meter["reachable"] for meter in result["meters"]] == [True]
    assert result["growth"]["buses"] == {"hall": {"crc_errors": 0}}
    assert result["certificate"]["failure"] == "/none: No such file or directory"
    assert set(result["services"]) == {"energy-gateway.service", "energy-persistence.service"}
    assert not {request["op"] for request in collector.requests} - {*collector.answers}


@pytest.mark.parametrize("check", [True, False])
def test_secret_file(run: Run, tmp_path: Path, check: bool) -> None:
    path = tmp_path / "password"
    me = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
    result = run("secret_file", check, path=str(path), content="hunter2", **me)
    assert result["differs"] == ["content", "owner", "group", "mode"]
    assert path.exists() != check
    assert "hunter2" not in json.dumps(result)
    refused = run("secret_file", path=str(tmp_path / "none" / "password"), content="hunter2", **me)
    assert refused["msg"] == f"{tmp_path}/none/password: its folder {tmp_path}/none is not there"

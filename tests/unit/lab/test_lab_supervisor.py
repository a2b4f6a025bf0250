# SPDX-License-Identifier: Apache-2.0
"""The supervisor with real processes, sockets and notifications; only the container is a shell script."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from wattfleet_lab import network, supervisor
from wattfleet_lab.addresses import Plan
from wattfleet_lab.host import Folder, Host
from wattfleet_lab.state import State
from wattfleet_lab.supervisor import Supervisor

# Says what nspawn says: the pid of the host's PID 1, then the host's own word that it is up.
BOOT = """\
import os, socket, sys, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
    s.send(b"STATUS=Container running.\\nX_NSPAWN_LEADER_PID=%d" % os.getpid())
    s.send(b"READY=1")
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    state = State("dev", tmp_path)
    folder = state.folder("gw")
    folder.path.mkdir(parents=True)
    folder.save(Host("gw", "plain", 0, "198.18.160.11", "/image"))
    monkeypatch.setattr(Folder, "mount", lambda self, host: None)
    monkeypatch.setattr(network, "attach", lambda plan, host, slot, energy: None)
    made = Supervisor(state, Plan(15))
    made.groups = []
    return made


def container(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(
        supervisor, "nspawn_command", lambda plan, host, folder: ["/usr/bin/python3", "-c", script]
    )


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def run(lab: Supervisor, scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        try:
            await asyncio.wait_for(scenario(), 60)
        finally:
            for host in lab.hosts.values():
                await host.cut()

    asyncio.run(limited())


def test_a_host_that_reboots_is_started_again_and_counted(
    lab: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = lab.state.path / "count"
    count.write_text("")
    container(
        monkeypatch,
        BOOT + f"f = open({str(count)!r}, 'a'); f.write('x'); f.close()\n"
        f"os._exit(133) if os.path.getsize({str(count)!r}) < 3 else time.sleep(600)",
    )

    async def scenario() -> None:
        await lab.answer({"op": "start", "host": "gw"})
        host = lab.hosts["gw"]
        await until(lambda: host.boots == 3 and host.state != "booting")
        recorded = json.loads(host.folder.running.read_text())
        assert recorded["leader"][0] == (await lab.answer({"op": "status"}))["hosts"]["gw"]["leader"]
        await lab.answer({"op": "cut", "host": "gw"})
        assert host.state == "off"
        assert not host.folder.running.exists()

    run(lab, scenario)


def test_a_host_that_tells_much_is_heard_for_as_long_as_it_runs(
    lab: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = lab.state.path / "done"
    container(
        monkeypatch,
        BOOT + "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])\n"
        "time.sleep(0.3)\n"
        "for number in range(200): s.send(b'STATUS=A start job is running')\n"
        f"open({str(done)!r}, 'w').close()\n"
        "time.sleep(600)",
    )

    async def scenario() -> None:
        await lab.answer({"op": "start", "host": "gw"})
        await asyncio.wait_for(until(done.exists), 20)
        assert lab.hosts["gw"].boots == 1

    run(lab, scenario)


def test_a_host_that_shuts_down_stays_off(lab: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    container(monkeypatch, BOOT)

    async def scenario() -> None:
        await lab.answer({"op": "start", "host": "gw"})
        await until(lambda: lab.hosts["gw"].state == "off")
        assert lab.hosts["gw"].last_error is None

    run(lab, scenario)


def test_a_container_that_fails_says_why(lab: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    container(monkeypatch, "import sys; print('no such image'); sys.exit(3)")

    async def scenario() -> None:
        await lab.answer({"op": "start", "host": "gw"})
        await until(lambda: lab.hosts["gw"].state == "failed")
        assert lab.hosts["gw"].last_error == "the container ended with status 3: no such image"

    run(lab, scenario)


def test_a_host_without_its_cables_has_failed(lab: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    container(monkeypatch, BOOT + "time.sleep(600)")

    def broken(plan: Plan, host: str, slot: int, energy: bool) -> None:
        raise OSError("no such bridge")

    monkeypatch.setattr(network, "attach", broken)

    async def scenario() -> None:
        await lab.answer({"op": "start", "host": "gw"})
        await until(lambda: lab.hosts["gw"].state == "failed")
        assert lab.hosts["gw"].last_error == "no such bridge"

    run(lab, scenario)


def test_a_host_that_ignores_the_shutdown_loses_its_power(
    lab: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    container(
        monkeypatch,
        "import signal\nfor n in range(1, 65):\n  n in (9, 19, 32, 33) or signal.signal(n, signal.SIG_IGN)\n"
        + BOOT
        + "time.sleep(600)",
    )

    async def scenario() -> None:
        await lab.answer({"op": "start", "host": "gw"})
        await until(lambda: lab.hosts["gw"].state == "running")
        pid = (await lab.answer({"op": "status"}))["hosts"]["gw"]["leader"]
        await lab.hosts["gw"].stop(timeout=0.2)
        assert lab.hosts["gw"].state == "off"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(lab, scenario)


def test_requests_over_the_socket(lab: Supervisor) -> None:
    async def ask(line: str) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(lab.state.socket))
        writer.write(line.encode() + b"\n")
        answer: dict[str, Any] = json.loads(await reader.readline())
        writer.close()
        return answer

    async def scenario() -> None:
        serving = asyncio.create_task(lab.run())
        await until(lab.state.supervisor.exists)
        assert (await ask('{"op": "status"}'))["ok"] is True
        assert await ask('{"op": "dance"}') == {"ok": False, "error": "unknown request 'dance'"}
        assert await ask('{"op": "cut", "host": "x"}') == {"ok": False, "error": "no host 'x' in lab 'dev'"}
        assert "cannot reboot; use start" in (await ask('{"op": "reboot", "host": "gw"}'))["error"]
        assert (await ask("nonsense"))["ok"] is False
        assert (await ask('{"op": "shutdown"}'))["ok"] is True
        await serving
        assert not lab.state.supervisor.exists()
        assert not lab.state.socket.exists()

    run(lab, scenario)

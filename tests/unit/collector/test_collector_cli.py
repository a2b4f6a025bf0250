# SPDX-License-Identifier: Apache-2.0
"""The command of a technician at two in the morning: with a running gateway, and without one."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from energy_collector import control
from energy_collector.cli import main
from energy_collector.errors import UnusableError

from .collector_support import (
    Service,
    document,
    running,
    wait_for,
)

FLOATS = list(struct.unpack(">2H", struct.pack(">f", 0.5))) * 120
SUNSPEC = [0x5375, 0x6E53, 0xFFFF, 0]
UNITS = {1: (0, FLOATS), 7: (40000, SUNSPEC)}


class Site:
    def __init__(self, folder: Path, port: int) -> None:
        settings = document(folder)
        settings["buses"][0] |= {"port": port, "timeout": 0.1}
        self.gateway = Service("gateway", folder, settings)
        self.config = str(folder / "gateway.yaml")
        self.socket = folder / "control.sock"


class _SilentToStrangers(socketserver.BaseRequestHandler):
    """Holding and input registers of a few units; nobody answers for the others, as on a serial line."""

    def handle(self) -> None:
        stream = self.request.makefile("rb")
        while len(head := stream.read(7)) == 7:
            unit = head[6]
            request = stream.read(int.from_bytes(head[4:6], "big") - 1)
            function, address, count = struct.unpack(">BHH", request.ljust(5, b"\0"))
            if unit not in UNITS:
                continue
            first, words = UNITS[unit]
            words = words[address - first : address - first + count] if address >= first else []
            body = bytes([function, 2 * count]) + struct.pack(f">{len(words)}H", *words)
            if function not in (3, 4) or len(words) != count:
                body = bytes([function | 0x80, 2])
            self.request.sendall(head[:4] + struct.pack(">HB", len(body) + 1, unit) + body)


class _Line(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with _Line(("127.0.0.1", 0), _SilentToStrangers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(tmp_path, server.server_address[1])
        server.shutdown()


def test_scan_finds_who_is_there(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "hall", "--units", "1-8", "--config", site.config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["unit", "1", "7"]
    assert lines[1].split()[1] == "main"
    assert "40000" in lines[2]


def test_scan_goes_through_the_running_gateway(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with running(site.gateway):
        wait_for(site.socket.exists, "the gateway listens")
        assert main(["scan", "hall", "--units", "6-7", "--json", "--config", site.config]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["unit"], found["sunspec"]) == (7, 40000)
        counters = control.ask(site.socket, {"op": "counters"})
        assert counters["buses"]["hall"]["connects"] == 1, "a second connection was opened"


@pytest.mark.parametrize("units", ["0-4", "9-3", "1-248", "all", "-3", "1,2"])
def test_scan_refuses_what_is_no_range(site: Site, units: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "hall", f"--units={units}", "--config", site.config]) == 2
    assert f"--units '{units}' is not a range" in capsys.readouterr().err


def test_scan_names_the_buses_that_there_are(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "hal", "--config", site.config]) == 2
    assert capsys.readouterr().err == "energy-collector: no bus 'hal'; the buses are hall\n"


def test_scan_of_a_bus_that_cannot_be_reached_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, 1)
    assert main(["scan", "hall", "--config", site.config]) == 1
    assert "CONNECTION_REFUSED" in capsys.readouterr().err


def test_status_counters_and_reload_of_a_running_gateway(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(site.gateway):
        wait_for(site.socket.exists, "the gateway listens")
        wait_for(
            lambda: control.ask(site.socket, {"op": "status"})["meters"][0]["last_success"],
            "the meter is polled",
        )
        assert main(["status", "--config", site.config]) == 0
        out = capsys.readouterr().out
        assert out.startswith("site plant-a, version ")
        assert [line.split()[:2] for line in out.splitlines() if line.startswith("main")] == [
            ["main", "hall"]
        ]
        assert main(["status", "--json", "--config", site.config]) == 0
        assert json.loads(capsys.readouterr().out)["site"] == "plant-a"
        assert main(["counters", "--config", site.config]) == 0
        assert "crc errors" in capsys.readouterr().out
        assert main(["counters", "--json", "--config", site.config]) == 0
        assert json.loads(capsys.readouterr().out)["buses"]["hall"]["answers"] > 0
        assert main(["reload", "--config", site.config]) == 0
        assert capsys.readouterr().out == "changed: nothing\n"


@pytest.mark.parametrize("command", ["status", "counters", "reload"])
def test_without_a_gateway_one_line_says_so(
    site: Site, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--config", site.config]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == f"energy-collector: no gateway listens on {site.socket}\n"


def test_who_may_not_use_the_socket_is_told_who_may(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(
                UnusableError, match=r"control.sock: permission denied; run this as root or as a member"
            ):
                control.ask(path, {"op": "status"})
        finally:
            os.seteuid(user)


def test_a_gateway_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CLIENT_TIMEOUT", 0.1)
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(UnusableError, match=r"control.sock has not answered for 0.1 s"):
            control.ask(path, {"op": "status"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (
            b"no database at all, but long enough for a header" * 20,
            "nothing of it can be read: file is not a database",
        ),
        (b"", "is not a buffer of energy-collector"),
    ],
)
def test_a_file_that_holds_no_readings_gets_one_line(
    tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "buffer.db.corrupt"
    if content is not None:
        path.write_bytes(content)
    assert main(["buffer", "export", "--file", str(path)]) == 1
    assert capsys.readouterr() == ("", f"energy-collector: {path}: {message}\n")


def test_json_of_readings(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", "main", "--json", "--config", site.config]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["point"].split("/")[0] for row in rows} == {"main"}
    assert main(["probe", "--json", "--config", site.config]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ok"] is True

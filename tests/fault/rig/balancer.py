# SPDX-License-Identifier: Apache-2.0
"""HAProxy with the configuration that the role hub_balancer writes, on loopback."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import jinja2
import yaml
from wattfleet.paths import ROOT

from tests.fault.rig.process import Process, wait_for
from tests.ports import free_port

ROLE = ROOT / "roles/hub_balancer"


def render(port: int, brokers: Mapping[str, int], **settings: object) -> str:
    """What the role would write."""
    values = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    values |= {
        "ansible_managed": "tests",
        "hub_balancer_address": "127.0.0.1",
        "hub_balancer_port": port,
        "hub_balancer_connections": 1000,  # the test's own limit of open files is lower than the unit's
        "hub_balancer_brokers": [
            {"name": name, "address": "127.0.0.1", "port": at} for name, at in brokers.items()
        ],
        **settings,
    }
    environment = jinja2.Environment(
        keep_trailing_newline=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = (ROLE / "templates/haproxy.cfg.j2").read_text()
    return environment.from_string(text).render(values)


class Balancer:
    """One balancer before brokers on loopback, by name and port."""

    def __init__(self, folder: Path, brokers: Mapping[str, int], **settings: object) -> None:
        folder.mkdir()
        self._folder = folder
        self.port = free_port()
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(folder / "log"))
        self.lines: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.configuration = folder / "haproxy.cfg"
        self.write(render(self.port, brokers, **settings))
        self._process = Process(["/usr/sbin/haproxy", "-db", "-f", self.configuration], folder / "out")

    def write(self, text: str) -> None:
        """The configuration, with the places that only the hub has."""
        text = text.replace("/dev/log", str(self._folder / "log"))
        self.configuration.write_text(text.replace("/run/haproxy/", f"{self._folder}/"))

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.lines.append(self._ear.recv(65536).decode())

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process.start()
        wait_for(self._listens, "the balancer listens")

    def _listens(self) -> bool:
        assert self._process.alive, f"haproxy did not start: {self._process.journal[-800:]}"
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal."""
        self._process.kill(number)

    def ask(self, command: str) -> str:
        """A command of the runtime socket, and its answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self._folder / "admin.sock"))
            sock.sendall(command.encode() + b"\n")
            with sock.makefile() as stream:
                return stream.read()

    def places(self) -> dict[str, str]:
        """Site: the broker that it was sent to last, by the log."""
        found = {}
        for line in list(self.lines):
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if not words.get("broker", "<NOSRV>").startswith("<"):
                found[words["site"].partition(".")[0]] = words["broker"]
        return found

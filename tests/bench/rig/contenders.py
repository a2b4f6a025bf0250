# SPDX-License-Identifier: Apache-2.0
"""Who polls the simulated meters: our two services, collectd, and a bare pymodbus loop. Each starts from nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.bench.rig import register_map
from tests.bench.rig.child import ROOT
from tests.bench.rig.hub import SITE, Broker

COLLECTD = Path("/usr/sbin/collectd")
UNIT = ROOT / "roles" / "collector" / "templates" / "_common.service.j2"


@dataclass(frozen=True)
class Field:
    """What is polled: `units` behind each of `ports`, every `interval` s."""

    ports: Sequence[int]
    units: int
    interval: float
    framing: str = "tcp"

    @property
    def rate(self) -> float:
        """Points a second."""
        return len(self.ports) * self.units * register_map.COUNT / self.interval


class Contender:
    """A set of processes that polls a field. `folder` is emptied for every start."""

    name = ""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder = folder / self.name
        self.broker = broker
        self.environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "collector")])}
        self._processes: list[subprocess.Popen[bytes]] = []

    def commands(self, field: Field) -> list[list[str]]:
        """What to run; files that it needs are written here."""
        raise NotImplementedError

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [one.pid for one in self._processes]

    def start(self, field: Field) -> None:
        """Start it."""
        shutil.rmtree(self.folder, ignore_errors=True)  # there is none the first time
        self.folder.mkdir(parents=True)
        for index, command in enumerate(self.commands(field)):
            with (self.folder / f"log{index}").open("wb") as log:
                environment = os.environ | self.environment
                self._processes.append(
                    subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
                )

    def check(self) -> None:
        """Raise RuntimeError when one of the processes has ended."""
        for index, one in enumerate(self._processes):
            if one.poll() is not None:
                log = (self.folder / f"log{index}").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} has ended by itself ({one.returncode}):\n{log}")

    def stop(self) -> None:
        """End it, gently first."""
        for one in self._processes:
            one.send_signal(signal.SIGTERM)
        for one in self._processes:
            try:
                one.wait(10)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        self._processes = []


def unit_environment() -> dict[str, str]:
    """What systemd gives both services."""
    lines = [
        line for line in UNIT.read_text(encoding="utf-8").splitlines() if line.startswith("Environment=")
    ]
    return dict(one.split("=", 1) for line in lines for one in shlex.split(line.removeprefix("Environment=")))


class Ours(Contender):
    """Both services, with the settings that they have by themselves and the environment of their units."""

    name = "wattfleet"

    def __init__(self, folder: Path, broker: Broker) -> None:
        super().__init__(folder, broker)
        self.environment |= unit_environment()
        self.command: Sequence[str] = (sys.executable, "-m", "energy_collector")

    def run_with(self, python: str, release: Path) -> None:
        """Run a release instead of the working tree."""
        self.command = (python, str(release))

    def configuration(self, field: Field) -> dict[str, Any]:
        """The configuration file."""
        one_bus = len(field.ports) == 1
        kind = "rtu-over-tcp" if field.framing == "rtu" else "modbus-tcp"
        return {
            "site": SITE,
            "interval": field.interval,
            "profiles": str(self.folder / "profiles"),
            "buses": [
                {"name": f"bus-{port}", "type": kind, "host": "127.0.0.1", "port": port}
                for port in field.ports
            ],
            "meters": [
                {
                    "name": f"meter-{unit:02d}" if one_bus else f"meter-{port}-{unit}",
                    "bus": f"bus-{port}",
                    "unit": unit,
                    "profile": register_map.PROFILE,
                }
                for port in field.ports
                for unit in range(1, field.units + 1)
            ],
            "hub": {
                "host": "localhost",
                "port": self.broker.port,
                "ca": str(self.broker.authority.path),
                "certificate": str(self.broker.folder / f"{SITE}.crt"),
                "key": str(self.broker.folder / f"{SITE}.key"),
            },
            "signing_key": str(self.folder / "signing.key"),
            "buffer": {"path": str(self.folder / "buffer.db")},
            "telemetry_log": str(self.folder / "telemetry.log"),
            "control_socket": str(self.folder / "control.sock"),
        }

    def commands(self, field: Field) -> list[list[str]]:
        """The two services."""
        (self.folder / "profiles").mkdir()
        profile = self.folder / "profiles" / f"{register_map.PROFILE}.yaml"
        profile.write_text(yaml.safe_dump(register_map.profile(), sort_keys=False))
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.configuration(field), sort_keys=False))
        return [[*self.command, what, "--config", str(path)] for what in ("gateway", "persistence")]


class GatewayOnly(Ours):
    """The polling service alone: what it does on the buses does not depend on the other one."""

    def commands(self, field: Field) -> list[list[str]]:
        """One service."""
        return super().commands(field)[:1]


class Peer(Contender):
    """A loop around pymodbus's client, see tests/bench/rig/peers.py."""

    def __init__(self, folder: Path, broker: Broker, name: str, kind: str) -> None:
        super().__init__(folder, broker)
        self.name, self.kind = name, kind
        self.folder = folder / kind

    def commands(self, field: Field) -> list[list[str]]:
        """One process."""
        module = [sys.executable, "-m", "tests.bench.rig.peers"]
        return [
            [*module, self.kind, str(field.interval), str(field.units), str(field.ports[0]), field.framing]
        ]


class Collectd(Contender):
    """Debian's collectd, plugins modbus and mqtt: a Data block for each register, which it reads one by one, a message
    for each value with QoS 0, which is its default and its cheapest."""

    name = "collectd"

    def commands(self, field: Field) -> list[list[str]]:
        """The daemon in the foreground."""
        if not COLLECTD.exists():
            raise RuntimeError("collectd is missing: apt-get install collectd-core libmodbus5 libmosquitto1")
        blocks = [
            f'<Data "{one.point}">\n RegisterBase {one.address}\n RegisterType {one.quantity.type.capitalize()}\n'
            f' RegisterCmd ReadInput\n Type {one.quantity.collectd}\n Instance "{one.point}"\n'
            f" Scale {one.quantity.scale}\n</Data>"
            for one in register_map.registers()
        ]
        collect = "\n".join(f'  Collect "{one.point}"' for one in register_map.registers())
        for port in field.ports:
            slaves = "\n".join(
                f' <Slave {unit}>\n  Instance "unit-{unit}"\n{collect}\n </Slave>'
                for unit in range(1, field.units + 1)
            )
            blocks.append(
                f'<Host "meters-{port}">\n Address "127.0.0.1"\n Port "{port}"\n Interval {field.interval}\n'
                f"{slaves}\n</Host>"
            )
        folder = self.broker.folder
        path = self.folder / "collectd.conf"
        path.write_text(
            f'Hostname "{SITE}"\nFQDNLookup false\nInterval {field.interval}\nBaseDir "{self.folder}"\n'
            f'PIDFile "{self.folder}/pid"\nTypesDB "/usr/share/collectd/types.db"\n'
            f'LoadPlugin logfile\n<Plugin logfile>\n LogLevel warning\n File "{self.folder}/messages"\n</Plugin>\n'
            "LoadPlugin modbus\nLoadPlugin mqtt\n"
            "<Plugin modbus>\n" + "\n".join(blocks) + "\n</Plugin>\n"
            f'<Plugin mqtt>\n<Publish "hub">\n Host "localhost"\n Port "{self.broker.port}"\n ClientId "collectd"\n'
            f' CACert "{self.broker.authority.path}"\n CertificateFile "{folder}/collectd.crt"\n'
            f' CertificateKeyFile "{folder}/collectd.key"\n TLSProtocol "tlsv1.3"\n</Publish>\n</Plugin>\n'
        )
        return [[str(COLLECTD), "-f", "-C", str(path)]]


class Prototype(Contender):
    """A bare pymodbus loop: reads and scales, and neither stores nor sends."""

    name = "pymodbus"

    def __init__(self, folder: Path, broker: Broker) -> None:
        super().__init__(folder, broker)
        self.python = sys.executable

    def run_with(self, python: str, release: Path) -> None:
        """Run on this Python, with the pymodbus that is in our release."""
        self.python = python
        self.environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(release)])}

    def commands(self, field: Field) -> list[list[str]]:
        """One process."""
        module = [self.python, "-m", "tests.bench.rig.prototype"]
        return [[*module, str(field.interval), str(field.units), *map(str, field.ports)]]

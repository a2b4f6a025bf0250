# SPDX-License-Identifier: Apache-2.0
"""One gateway with its meters and one hub, from the first register to the last row of the database."""

from __future__ import annotations

import copy
import json
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from energy_collector.config import BufferConfig, Config

from tests.fault.report import FaultReport
from tests.fault.rig import exact
from tests.fault.rig.broker import Broker
from tests.fault.rig.database import Database
from tests.fault.rig.exact import Span
from tests.fault.rig.ingest import USUAL, Ingest
from tests.fault.rig.meters import PROFILE, Answer, MeterServer
from tests.fault.rig.namespaces import FAR, Wan
from tests.fault.rig.process import Process, wait_for
from tests.fault.rig.relay import Relay
from tests.fault.rig.standing import Standing
from tests.unit.hub.authority import Authority

SITE = "plant-a"
# Unit: meter. The first two share a bus, the third has one of its own.
HALL, ROOF = {1: "main", 2: "press"}, {3: "solar"}

# s without anything new in the database, after which what is missing counts as lost: longer than the longest back-off
# between two tries to connect.
PATIENCE = 75.0


def say(text: str) -> None:
    """A line of progress."""
    print(f"    {text}", flush=True)


class Rig(Standing):
    """All parts, started in order by `with` and ended whatever happens.

    `wan` puts the delivering service and the hub into namespaces, `relayed` puts a relay between them, `interval` is
    that of the meters in s, `settings` are laid over the gateway's configuration. `prepare` is called before the
    services start. `supervised`: a service that ends by itself is no surprise, and is started again.
    """

    def __init__(
        self,
        *,
        interval: float = 0.1,
        wan: Wan | None = None,
        relayed: bool = False,
        persistent_broker: bool = True,
        supervised: bool = False,
        ingest: str = USUAL,
        prepare: Callable[[Rig], None] = lambda _: None,
        settings: dict[str, Any] | None = None,
        site: str = SITE,
    ) -> None:
        super().__init__()
        self.site = site
        self._interval = interval
        self._wan = wan
        self._relayed = relayed
        self._persistent_broker = persistent_broker
        self._supervised = supervised
        self._ingest_module = ingest
        self._prepare = prepare
        self._settings = settings or {}
        self._in_flight: set[Answer] = set()
        self.excused: list[Span] = []
        self.revived = 0

    def _start(self) -> None:
        near = far = None
        if self._wan is not None:
            near, far = self._wan.near, self._wan.far
        address = FAR if far else "127.0.0.1"
        self._start_hub(address, far)
        self.relay = Relay(self.broker.port)
        port = self.broker.port
        if self._relayed:
            self._started(self.relay)
            port = self.relay.port
        self.meters = [MeterServer(), MeterServer()]
        for one in self.meters:
            self._started(one)
        self._make_gateway(address, port, near)

    def _start_hub(self, address: str, far: str | None) -> None:
        self.authority = Authority()
        self.database = Database(self.folder / "database")
        self._started(self.database)
        self.broker = Broker(
            self.folder / "broker", self.authority, address, netns=far, persistent=self._persistent_broker
        )
        self._started(self.broker)
        self.ingest = Ingest(
            self.folder / "ingest",
            self.broker,
            self.database,
            self.authority,
            netns=far,
            module=self._ingest_module,
        )
        if self._ingest_module != USUAL:
            self.database.forget_identities()
        self._started(self.ingest)

    def _started(self, part: Database | Broker | Ingest | Relay | MeterServer) -> None:
        self._stack.callback(part.stop)
        part.start()

    def _make_gateway(self, address: str, port: int, netns: str | None) -> None:
        home = self.home = self.folder / "gateway"
        (home / "buffer").mkdir(parents=True)
        identity = self.authority.client(self.site, kind="RSA")
        (home / "gateway.crt").write_text(self.authority.chain(identity))
        (home / "gateway.key").write_text(identity.key_pem())
        (home / "gateway.key").chmod(0o600)
        config = home / "config.yaml"
        config.write_text(json.dumps(self._configuration(address, port)))  # JSON is YAML
        self.gateway = self._service("gateway", config, None)
        self.persistence = self._service("persistence", config, netns)
        self._prepare(self)
        kept = {"signing_key", "telemetry_log", "gateway.log", "persistence.log"}
        self._belongings = kept | {path.name for path in home.iterdir()}
        for one in (self.persistence, self.gateway):
            self._stack.callback(one.kill)
            one.start()
        self.wait_for_polls()

    def _service(self, what: str, config: Path, netns: str | None) -> Process:
        log = self.home / f"{what}.log"
        return Process.module("energy_collector", what, "--config", config, log=log, netns=netns)

    def _configuration(self, address: str, port: int) -> dict[str, Any]:
        home = self.home
        buses = [
            {"name": name, "type": "modbus-tcp", "host": "127.0.0.1", "port": server.port, "timeout": 5.0}
            for name, server in zip(("hall", "roof"), self.meters, strict=True)
        ]
        meters = [
            {"name": name, "bus": bus, "unit": unit, "profile": PROFILE}
            for bus, units in (("hall", HALL), ("roof", ROOF))
            for unit, name in units.items()
        ]
        found: dict[str, Any] = paths_below(Config, home) | {
            "site": self.site,
            "interval": self._interval,
            "buses": buses,
            "meters": meters,
            "hub": {
                "host": address if address == FAR else "localhost",
                "port": port,
                "ca": f"{self.broker.folder}/ca.crt",
                "certificate": f"{home}/gateway.crt",
                "key": f"{home}/gateway.key",
            },
            "buffer": paths_below(BufferConfig, home) | {"path": f"{home}/buffer/buffer.db"},
            "batch": {"interval": 1, "resend": 2},
        }
        for key, value in self._settings.items():
            found[key] = found.get(key, {}) | value if isinstance(value, dict) else value
        return copy.deepcopy(found)

    # What the tests do.

    def revive(self) -> None:
        """What systemd does on a gateway (`Restart=always`): start a service again that has ended."""
        for one in (self.gateway, self.persistence):
            if not one.alive:
                self.revived += 1
                one.start()

    @property
    def answers(self) -> list[Answer]:
        """All that the meters have answered so far."""
        return [answer for server in self.meters for answer in server.answers]

    def wait_for_polls(self) -> None:
        """Until each bus has answered again."""
        before = [len(server.answers) for server in self.meters]
        wait_for(
            lambda: all(len(one.answers) > count for one, count in zip(self.meters, before, strict=True)),
            f"the gateway polls; it says: {self.gateway.journal[-500:]}",
        )

    def wait_for_delivery(self, readings: int = 1) -> None:
        """Until so many more readings are committed."""
        before = self.database.number_of_readings()
        wait_for(
            lambda: self.database.number_of_readings() >= before + readings,
            f"readings arrive; the gateway says: {self.persistence.journal[-500:]}",
            PATIENCE,
        )

    def kill_gateway(self) -> None:
        """kill -9; the answers that were on their way through the socket and the service may be missing.

        That is the newest poll of each bus, however long ago it was answered on a busy machine: before a bus is polled
        again, what it brought is in the file of pending readings, committed or not.
        """
        self.gateway.kill()
        for server in self.meters:
            server.settle()
            self._in_flight.update(server.last_poll())

    def kill_collector(self) -> None:
        """kill -9 of both services."""
        self.kill_gateway()
        self.persistence.kill()

    def start_collector(self) -> None:
        """Start both services again."""
        self.gateway.start()
        self.persistence.start()

    @property
    def buffer_files(self) -> list[Path]:
        """The buffer and what SQLite keeps beside it."""
        return sorted((self.home / "buffer").glob("buffer.db*"))

    def keep_buffer(self) -> Path:
        """A copy of the buffer as it is now, for `rewind_buffer`; the services must not run."""
        copy_ = Path(tempfile.mkdtemp(dir=self.home))
        for path in self.buffer_files:
            shutil.copy2(path, copy_ / path.name)
        return copy_

    def rewind_buffer(self, copy_: Path) -> None:
        """Sabotage: the buffer forgets what was committed since, as without fsync; the services must not run."""
        self.remove_buffer()
        for path in copy_.iterdir():
            shutil.copy2(path, self.home / "buffer" / path.name)

    def remove_buffer(self) -> None:
        """Sabotage: there has never been a buffer."""
        for path in self.buffer_files:
            path.unlink()

    def remove_memory(self) -> None:
        """Sabotage: what a gateway keeps outside of its buffer is gone; the services must not run."""
        for path in self.home.iterdir():
            if path.name not in self._belongings:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request to the control socket."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.home / "control_socket"))
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile() as stream:
                found: dict[str, Any] = json.loads(stream.readline())
        return found

    def finish(self, report: FaultReport, *, clock_is_right: bool = True, patience: float = PATIENCE) -> None:
        """Let the meters fall silent, wait for what is under way, and count both ends into the report."""
        for server in self.meters:
            server.silent = True
        say("waiting for what is still under way")
        deadline = time.monotonic() + patience
        seen = -1
        while True:
            if self._supervised:
                self.revive()
            committed = self.database.number_of_readings()
            if committed != seen:
                seen, deadline = committed, time.monotonic() + patience
                time.sleep(2.0)
                continue
            found = self.count(clock_is_right=clock_is_right)
            if not found.lost or time.monotonic() > deadline:
                break
            time.sleep(2.0)
        report.dropped += self.dropped()
        report.add_exact(found, self.database.evidence())

    def dropped(self) -> int:
        """Readings that the gateway says it has thrown away."""
        try:
            return int(self.ask(op="status")["buffer"]["dropped"])
        except (OSError, KeyError, ValueError) as error:
            say(f"the gateway does not say what it has dropped: {error!r}")
            return 0

    def count(self, *, clock_is_right: bool = True) -> exact.Exact:
        """Both ends as they are now."""
        # Read before the answers, which go on: a row has to have its answer.
        rows = self.database.rows()
        return exact.count(
            self.answers, rows, HALL | ROOF, self.excused, self._in_flight, clock_is_right=clock_is_right
        )


def paths_below(section: type, home: Path) -> dict[str, str]:
    """Whatever a gateway keeps somewhere lies in the rig's own folder, also what a later version keeps."""
    return {name: str(home / name) for name, default in vars(section).items() if isinstance(default, Path)}


def pause(low: float, high: float) -> None:
    """A random time, in s."""
    time.sleep(random.uniform(low, high))


def stop_on_sigterm() -> None:
    """SIGTERM ends a run as Ctrl-C does, with everything cleaned up."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)

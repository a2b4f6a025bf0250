# SPDX-License-Identifier: Apache-2.0
"""Several gateways, several brokers behind a balancer, two ingest workers and one database, all on loopback.

Each gateway dials a name of its own, as playbooks/site.yml has it: `<site>.brokers.energy.internal`, which a hosts file
in its mount namespace leads to loopback.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import psycopg
from energy_collector.config import BufferConfig, Config

from tests.fault.report import FaultReport
from tests.fault.rig import exact
from tests.fault.rig.balancer import Balancer
from tests.fault.rig.broker import Broker, HubBroker
from tests.fault.rig.database import HEALTH, Database
from tests.fault.rig.ingest import USUAL, Ingest
from tests.fault.rig.load import Load, Source
from tests.fault.rig.meters import PROFILE, Answer, MeterServer
from tests.fault.rig.process import Process, wait_for
from tests.fault.rig.rig import PATIENCE, paths_below, say
from tests.fault.rig.standing import Standing
from tests.unit.hub.authority import Authority

DOMAIN = "brokers.energy.internal"
UNIT, METER = 1, "main"


class Gateway:
    """A site: one meter, and both services of the collector."""

    def __init__(
        self, name: str, folder: Path, hosts: Path, port: int, authority: Authority, ca: Path
    ) -> None:
        folder.mkdir()
        self.name = name
        self.folder = folder
        self.meter = MeterServer()
        self.meter.start()
        identity = authority.client(name, kind="RSA")
        (folder / "gateway.crt").write_text(authority.chain(identity))
        (folder / "gateway.key").write_text(identity.key_pem())
        (folder / "gateway.key").chmod(0o600)
        (folder / "buffer").mkdir()
        config = folder / "config.yaml"
        keys = paths_below(Config, folder) | {
            "site": name,
            "interval": 1,
            "buses": [
                {
                    "name": "hall",
                    "type": "modbus-tcp",
                    "host": "127.0.0.1",
                    "port": self.meter.port,
                    "timeout": 5.0,
                }
            ],
            "meters": [{"name": METER, "bus": "hall", "unit": UNIT, "profile": PROFILE}],
            "hub": {
                "host": f"{name}.{DOMAIN}",
                "port": port,
                "ca": str(ca),
                "certificate": f"{folder}/gateway.crt",
                "key": f"{folder}/gateway.key",
            },
            "buffer": paths_below(BufferConfig, folder) | {"path": f"{folder}/buffer/buffer.db"},
            "batch": {"interval": 1, "resend": 2},
        }
        config.write_text(json.dumps(keys))  # JSON is YAML
        self.polling = self._service("gateway", config)
        self.delivering = self._service("persistence", config, hosts)

    def _service(self, what: str, config: Path, hosts: Path | None = None) -> Process:
        process = Process.module(
            "energy_collector", what, "--config", config, log=self.folder / f"{what}.log"
        )
        if hosts is not None:
            process.see_as("/etc/hosts", hosts)
        return process

    def start(self) -> None:
        """Both services."""
        self.polling.start()
        self.delivering.start()

    def oldest(self) -> float:
        """Unix seconds of the oldest reading that is not acknowledged; now when there is none."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.folder / "control_socket"))
            sock.sendall(b'{"op": "status"}\n')
            with sock.makefile() as stream:
                oldest = json.loads(stream.readline())["buffer"]["oldest"]
        return datetime.fromisoformat(oldest).timestamp() if oldest else time.time()

    def stop(self) -> None:
        """Whatever still runs."""
        self.delivering.kill()
        self.polling.kill()
        self.meter.stop()


class SitesRig(Standing):
    """All parts, started in order by `with` and ended whatever happens."""

    def __init__(
        self,
        sites: Iterable[str],
        brokers: Iterable[str],
        *,
        persistent_brokers: bool = True,
        as_the_hub: bool = False,
        ingest: str = USUAL,
        balancer: dict[str, object] | None = None,
        load: int = 0,
    ) -> None:
        """`as_the_hub`: the brokers are set up as the role hub_broker does it, revocation list included. `load`: so
        many more sites keep the hub busy."""
        super().__init__()
        self._sites = list(sites)
        self._brokers = list(brokers)
        self._persistent = persistent_brokers
        self._as_the_hub = as_the_hub
        self._ingest_module = ingest
        self._balancer_settings = balancer or {}
        self._load = load

    def _start(self) -> None:
        folder = self.folder
        authority = self.authority = Authority()
        self.database = self.make_database(folder / "database")
        self._started(self.database)
        kind = HubBroker if self._as_the_hub else Broker
        self.brokers = {
            name: kind(
                folder / name, authority, persistent=self._persistent, names=("localhost", f"*.{DOMAIN}")
            )
            for name in self._brokers
        }
        self.prepare()
        for broker in self.brokers.values():
            self._started(broker)
        ports = {name: broker.port for name, broker in self.brokers.items()}
        self.balancer = Balancer(folder / "balancer", ports, **self._balancer_settings)
        self._started(self.balancer)
        self.ingests = [
            Ingest(
                folder / name,
                list(self.brokers.values()),
                self.database,
                authority,
                name=name,
                module=self._ingest_module,
                crl=self.brokers[self._brokers[0]].folder / "crl.pem" if self._as_the_hub else None,
                # While a worker waits for more batches of a group, no transaction is open.
                group={"wait": 0} if self._load else {},
            )
            for name in ("ingest", "ingest-2")
        ]
        for ingest in self.ingests:
            self._started(ingest)
        hosts = folder / "hosts"
        hosts.write_text(
            "127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {name}.{DOMAIN}\n" for name in self._sites)
        )
        ca = self.brokers[self._brokers[0]].folder / "ca.crt"
        self.gateways = {
            name: Gateway(name, folder / name, hosts, self.balancer.port, authority, ca)
            for name in self._sites
        }
        for gateway in self.gateways.values():
            self._started(gateway)
        names = [f"load-{number}" for number in range(1, self._load + 1)]
        self.load = Load([Source(name, DOMAIN, self.balancer.port, folder, ca, authority) for name in names])
        self._started(self.load)
        self.wait_for_everybody()

    def hub_broker(self, name: str) -> HubBroker:
        """One that is set up as the role does it."""
        broker = self.brokers[name]
        assert isinstance(broker, HubBroker)
        return broker

    def make_database(self, folder: Path) -> Database:
        """Another one, for those who need it."""
        return Database(folder)

    def prepare(self) -> None:
        """Called before the brokers start."""

    def attend(self) -> None:
        """Called while the rig waits."""

    def _started(self, part: Database | Broker | Balancer | Ingest | Gateway | Load) -> None:
        self._stack.callback(part.end if isinstance(part, HubBroker) else part.stop)
        part.start()

    # What the tests do.

    def wait_for_everybody(self, patience: float = PATIENCE) -> float:
        """Until something measured from now on is committed of each site; s that it took."""
        began = time.time()

        def behind() -> list[str]:
            self.attend()
            try:
                newest = self.newest()
            except psycopg.OperationalError:
                return list(self.gateways)
            return [name for name in self.gateways if newest.get(name, 0) < began] + self.load.behind(began)

        try:
            wait_for(lambda: not behind(), "readings of every site are committed", patience)
        except AssertionError as error:
            late = behind()
            says = [self.gateways[name].delivering.journal[-500:] for name in late if name in self.gateways]
            raise AssertionError(f"{error}; not of {', '.join(late)}; one says: {says[:1]}") from None
        return time.time() - began

    def newest(self) -> dict[str, float]:
        """Unix seconds of each site's newest reading of a meter."""
        with self.database.connect() as connection:
            rows = connection.execute(
                "SELECT s.name, extract(epoch FROM max(r.time))::float8 FROM reading r"
                " JOIN point p ON p.id = r.point JOIN site s ON s.id = p.site WHERE r.value IS NOT NULL"
                " AND p.name !~ %s GROUP BY s.name",
                (HEALTH,),
            ).fetchall()
        return dict(rows)

    def states(self) -> dict[str, str]:
        """What the hub says of each site."""
        with self.database.connect() as connection:
            return dict(connection.execute("SELECT name, state FROM site").fetchall())

    def reconnect(self, names: Iterable[str]) -> None:
        """The delivering services of these sites are killed, and connect anew."""
        for name in names:
            self.gateways[name].delivering.kill()
            self.gateways[name].delivering.start()

    def waiting(self, before: float) -> list[str]:
        """Sites whose gateways hold something that they measured before a time, and that is not acknowledged."""
        waiting = [name for name, gateway in self.gateways.items() if gateway.oldest() < before]
        return waiting + self.load.waiting(before)

    def finish(self, report: FaultReport, patience: float = PATIENCE, stranger: str = "") -> None:
        """Let the meters fall silent, wait for what is under way, and count both ends into the report. What the hub
        found wrong with a site that is none of the rig's is for the test to look at."""
        for gateway in self.gateways.values():
            gateway.meter.silent = True
        self.load.silent = True
        say("waiting for what is still under way")
        deadline = time.monotonic() + patience
        while True:
            found = {name: self._count(name, answers) for name, answers in self._answers().items()}
            if not any(one.lost for one in found.values()) or time.monotonic() > deadline:
                break
            time.sleep(2.0)
        for name, one in found.items():
            for lines in (one.lost, one.doubled, one.invented, one.disordered, one.mistimed):
                lines[:] = [f"{name}: {line}" for line in lines]
            report.add_exact(one, [])
        evidence = self.database.evidence(without=stranger)
        report.evidence += len(evidence)
        report.findings += evidence[:20]

    def _answers(self) -> dict[str, list[Answer]]:
        gateways = {name: gateway.meter.answers for name, gateway in self.gateways.items()}
        return gateways | {one.name: one.answers for one in self.load.sources}

    def _count(self, name: str, answers: list[Answer]) -> exact.Exact:
        return exact.count(answers, self.database.rows(name), {UNIT: METER})

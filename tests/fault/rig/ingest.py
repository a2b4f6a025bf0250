# SPDX-License-Identifier: Apache-2.0
"""The hub's ingest worker as a process."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.fault.rig.broker import Broker
from tests.fault.rig.database import Database
from tests.fault.rig.process import Process
from tests.ports import free_port
from tests.unit.hub.authority import Authority

USUAL = "energy_hub"
WITHOUT_IDENTITY = "tests.fault.rig.ingest_without_identity"


class Ingest:
    """One worker, at one broker or at several. `module` is what is run: the hub's own, or one that lacks what it
    needs. `database` is one, or what the configuration says of several."""

    def __init__(
        self,
        folder: Path,
        brokers: Broker | Sequence[Broker],
        database: Database | dict[str, object],
        authority: Authority,
        *,
        netns: str | None = None,
        module: str = USUAL,
        name: str = "ingest",
        crl: Path | None = None,
        **settings: object,
    ) -> None:
        folder.mkdir()
        self.metrics_port = free_port()
        identity = authority.client(name)
        (folder / "ingest.crt").write_text(authority.chain(identity))
        (folder / "ingest.key").write_text(identity.key_pem())
        config = folder / "ingest.yaml"
        links = [
            {
                "host": "localhost",
                "port": broker.port,
                "ca": f"{broker.folder}/ca.crt",
                "certificate": f"{folder}/ingest.crt",
                "key": f"{folder}/ingest.key",
                "client_id": name,
            }
            for broker in ([brokers] if isinstance(brokers, Broker) else brokers)
        ]
        keys = {
            **({"broker": links[0]} if len(links) == 1 else {"brokers": links}),
            "crl": str(crl) if crl else "none",
            "metrics": {"port": self.metrics_port},
            "log": f"{folder}/ingest.log",
        } | (database if isinstance(database, dict) else {"database": database.conninfo("energy_ingest")})
        config.write_text(json.dumps(keys | settings))  # JSON is YAML
        self.folder = folder
        self.config = config
        self._notify = folder / "notify"
        self._process = Process.module(module, "ingest", "--config", config, log=folder / "out", netns=netns)
        self._process.environment["NOTIFY_SOCKET"] = str(self._notify)

    def metric(self, name: str, **labels: str) -> float:
        """One sample of its metrics; 0 when it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    @property
    def log(self) -> str:
        """Its log file."""
        path = self.folder / "ingest.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def begin(self) -> None:
        """Start, and wait for nothing."""
        self._notify.unlink(missing_ok=True)
        self._process.start()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.alive

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it takes batches."""
        self._notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.bind(str(self._notify))
            ear.settimeout(60)
            self._process.start()
            assert ear.recv(100) == b"READY=1"

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal."""
        self._process.kill(number)

# SPDX-License-Identifier: Apache-2.0
"""The hub's ingest worker as a process."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

from tests.fault.rig.broker import Broker
from tests.fault.rig.database import Database
from tests.fault.rig.process import Process
from tests.unit.hub.authority import Authority

USUAL = "energy_hub"
WITHOUT_IDENTITY = "tests.fault.rig.ingest_without_identity"


class Ingest:
    """One worker. `module` is what is run: the hub's own, or one that lacks what it needs."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        database: Database,
        authority: Authority,
        *,
        netns: str | None = None,
        module: str = USUAL,
    ) -> None:
        folder.mkdir()
        identity = authority.client("ingest")
        (folder / "ingest.crt").write_text(authority.chain(identity))
        (folder / "ingest.key").write_text(identity.key_pem())
        config = folder / "ingest.yaml"
        keys = {
            "broker": {
                "host": "localhost",
                "port": broker.port,
                "ca": f"{broker.folder}/ca.crt",
                "certificate": f"{folder}/ingest.crt",
                "key": f"{folder}/ingest.key",
            },
            "database": database.conninfo("energy_ingest"),
            "crl": "none",
            "log": f"{folder}/ingest.log",
        }
        config.write_text(json.dumps(keys))  # JSON is YAML
        self.folder = folder
        self._notify = folder / "notify"
        self._process = Process.module(module, "ingest", "--config", config, log=folder / "out", netns=netns)
        self._process.environment["NOTIFY_SOCKET"] = str(self._notify)

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

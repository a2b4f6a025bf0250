# SPDX-License-Identifier: Apache-2.0
"""mosquitto with TLS 1.3, mutual TLS and the access list of the role hub_broker."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import yaml
from wattfleet.paths import ROOT

from tests.fault.rig.process import Process, wait_for
from tests.ports import free_port
from tests.unit.hub.authority import Authority, Identity

ACCESS = """\
pattern write energy/v1/%u/batch
pattern write energy/v1/%u/status
pattern read energy/v1/%u/ack
pattern read energy/v1/%u/witness

user ingest-2
topic readwrite energy/v1/#

user ingest
"""
ALL = "topic readwrite energy/v1/#\n"
NO_ACKNOWLEDGEMENT = "topic read energy/v1/#\n"
# Names of the certificates that may read everything.
SERVICES = ("ingest", "ingest-2")


class Broker:
    """One broker; it may be stopped, killed and started. `address` is what a gateway connects to."""

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        address: str = "127.0.0.1",
        *,
        netns: str | None = None,
        persistent: bool = True,
        names: Sequence[str] = ("localhost",),
    ) -> None:
        self.folder = folder
        folder.mkdir()
        self._netns = netns
        self._address = address
        self.port = 8883 if netns else free_port()
        server = authority.client("localhost", server=True, addresses=("127.0.0.1", address), names=names)
        for name, text in (
            ("ca.crt", authority.root.pem() + authority.intermediate.pem()),
            ("server.crt", authority.chain(server)),
            ("server.key", server.key_pem()),
            ("access", ACCESS + ALL),
        ):
            (folder / name).write_text(text)
        self._store = folder / "store"
        self._store.mkdir()
        self._persistent = persistent
        self.authority = authority
        self.configure()
        (folder / "mosquitto.conf").write_text(self.configuration())
        self._process = Process(
            ["/usr/sbin/mosquitto", "-c", folder / "mosquitto.conf"], folder / "log", netns=netns
        )

    def configure(self) -> None:
        """What a broker needs beside its configuration."""

    def configuration(self) -> str:
        """mosquitto.conf(5)"""
        folder = self.folder
        return (
            f"listener {self.port} {'0.0.0.0' if self._netns else '127.0.0.1'}\n"
            f"cafile {folder}/ca.crt\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n"
            "tls_version tlsv1.3\nrequire_certificate true\nuse_identity_as_username true\n"
            f"allow_anonymous false\nacl_file {folder}/access\n"
            f"persistence {str(self._persistent).lower()}\npersistence_location {self._store}/\nautosave_interval 1\n"
            "max_inflight_messages 200\nmax_queued_messages 1000\nset_tcp_nodelay true\n"
            # Started by root it would give its rights up, and could not read the key.
            "user root\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n"
        )

    @property
    def pid(self) -> int:
        """Of the broker."""
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process.start()
        wait_for(self._listens, "the broker listens")

    def _listens(self) -> bool:
        assert self._process.alive, f"mosquitto did not start: {self._process.journal[-500:]}"
        if self._netns:
            command = ["ip", "netns", "exec", self._netns, "ss", "-Hltn", f"sport = :{self.port}"]
            return bool(subprocess.run(command, capture_output=True, check=True).stdout)
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal."""
        self._process.kill(number)

    def forget(self) -> None:
        """Take away what it keeps of sessions and queues; only while it does not run."""
        for path in self._store.iterdir():
            path.unlink()

    @property
    def kept_bytes(self) -> int:
        """What it has written down of sessions and queues."""
        return sum(path.stat().st_size for path in self._store.iterdir())

    @property
    def journal(self) -> str:
        """What it says."""
        return self._process.journal

    def drop_acknowledgements(self, drop: bool) -> None:
        """From now on the hub's acknowledgements end at the broker, or pass again; nobody's connection is touched."""
        (self.folder / "access").write_text(ACCESS + (NO_ACKNOWLEDGEMENT if drop else ALL))
        self._process.send(signal.SIGHUP)


class HubBroker(Broker):
    """One with the configuration and the access list that the role writes, a revocation list, and the program beside it
    that tells in words whom it refuses. Its queue is written down when it stops, and every five minutes."""

    ROLE = ROOT / "roles/hub_broker"

    def configure(self) -> None:
        self.revoke([])
        self._teller = Process(
            [sys.executable, self.ROLE / "files/energy-refusals.py", self.folder / "debug.log", *SERVICES],
            self.folder / "refusals",
        )

    def configuration(self) -> str:
        (self.folder / "access").write_text(self._render("energy.acl.j2"))
        text = self._render("mosquitto.conf.j2")
        for what, here in (
            (f"listener {self.port}", f"listener {self.port} 127.0.0.1"),
            ("/etc/mosquitto/energy.acl", f"{self.folder}/access"),
            ("/var/lib/mosquitto/", f"{self._store}/"),
            ("log_dest syslog\n", ""),
            ("/run/mosquitto/debug.log", f"{self.folder}/debug.log"),
        ):
            assert text.count(what) == 1, f"mosquitto.conf.j2: {what!r}"
            text = text.replace(what, here)
        # Started by root it would give its rights up, and could not read the key.
        return text + "\nuser root\n"

    def _render(self, template: str) -> str:
        values = yaml.safe_load((self.ROLE / "defaults/main.yml").read_text()) | {
            "ansible_managed": "tests",
            "hub_broker_port": self.port,
            "hub_broker_certificate_directory": str(self.folder),
            "hub_broker_services": list(SERVICES),
        }
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
        return environment.from_string((self.ROLE / "templates" / template).read_text()).render(values)

    def start(self) -> None:
        super().start()
        if not self._teller.alive:
            self._teller.start()

    def end(self) -> None:
        """The broker, and the program beside it."""
        self.stop()
        self._teller.kill()

    def revoke(self, revoked: Sequence[Identity]) -> None:
        """From now on these certificates are refused."""
        new = self.folder / "crl.new"
        new.write_text(self.authority.crl(revoked))
        new.rename(self.folder / "crl.pem")

    def save(self) -> None:
        """Have it write down what it keeps of sessions and queues."""
        self._process.send(signal.SIGUSR1)

    def reload(self) -> None:
        """Have it read its lists again."""
        self._process.send(signal.SIGHUP)

    @property
    def told(self) -> str:
        """What the journal is told of those that are refused."""
        return self._teller.journal

    @property
    def log(self) -> str:
        """All that it writes, debug lines too."""
        path = self.folder / "debug.log"
        return path.read_text(errors="replace") if path.exists() else ""

# SPDX-License-Identifier: Apache-2.0
"""mosquitto with TLS 1.3, mutual TLS and the access list of the role hub_broker."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from tests.fault.rig.process import Process, wait_for
from tests.unit.hub.authority import Authority

ACCESS = """\
pattern write energy/v1/%u/batch
pattern write energy/v1/%u/status
pattern read energy/v1/%u/ack

user ingest
"""
ALL = "topic readwrite energy/v1/#\n"
NO_ACKNOWLEDGEMENT = "topic read energy/v1/#\n"


def free_port() -> int:
    """A port of loopback that nobody uses just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


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
    ) -> None:
        self.folder = folder
        folder.mkdir()
        self._netns = netns
        self._address = address
        self.port = 8883 if netns else free_port()
        server = authority.client("localhost", server=True, addresses=("127.0.0.1", address))
        for name, text in (
            ("ca.crt", authority.root.pem() + authority.intermediate.pem()),
            ("server.crt", authority.chain(server)),
            ("server.key", server.key_pem()),
            ("access", ACCESS + ALL),
        ):
            (folder / name).write_text(text)
        self._store = folder / "store"
        self._store.mkdir()
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} {'0.0.0.0' if netns else '127.0.0.1'}\n"
            f"cafile {folder}/ca.crt\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n"
            "tls_version tlsv1.3\nrequire_certificate true\nuse_identity_as_username true\n"
            f"allow_anonymous false\nacl_file {folder}/access\n"
            f"persistence {str(persistent).lower()}\npersistence_location {self._store}/\nautosave_interval 1\n"
            "max_inflight_messages 200\nmax_queued_messages 1000\nset_tcp_nodelay true\n"
            # Started by root it would give its rights up, and could not read the key.
            "user root\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n"
        )
        self._process = Process(
            ["/usr/sbin/mosquitto", "-c", folder / "mosquitto.conf"], folder / "log", netns=netns
        )

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

    def drop_acknowledgements(self, drop: bool) -> None:
        """From now on the hub's acknowledgements end at the broker, or pass again; nobody's connection is touched."""
        (self.folder / "access").write_text(ACCESS + (NO_ACKNOWLEDGEMENT if drop else ALL))
        self._process.send(signal.SIGHUP)

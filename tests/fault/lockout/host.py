# SPDX-License-Identifier: Apache-2.0
"""A lab host as somebody at its console sees it: through the kernel's namespaces, whatever SSH and the firewall do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from wattfleet_lab import client
from wattfleet_lab.errors import LabError
from wattfleet_lab.lab import Lab, Wanted

LOOK = Path(__file__).with_name("look.py")
ENERGY_METER = "192.168.10.20"
# s; how long a command on a host may take before the host counts as hanging.
PATIENCE = 60.0
# s for a whole new SSH connection. ConnectTimeout alone would wait for ever behind a link that loses large packets.
SSH_PATIENCE = 20.0


class LabHost:
    """One host of the campaign's lab."""

    def __init__(self, lab: Lab, name: str, address: str | None = None) -> None:
        self.lab = lab
        self.name = name
        self._wanted = address

    def add(self) -> None:
        """Make the host and boot it."""
        kind = "hub" if self.name == "hub" else "plain"
        energy = None if kind == "hub" else [ENERGY_METER]
        self.lab.add_host(Wanted(self.name, kind, self._wanted, energy))

    def remake(self) -> None:
        """A new host of the same name and address: what a site visit would be."""
        self._wanted = self.address
        self.lab.remove_host(self.name)
        self.add()

    @property
    def address(self) -> str:
        return self.lab.state.host(self.name).address

    @property
    def files(self) -> Path:
        """The host's root as the machine sees it, also while the host is off."""
        return self.lab.state.folder(self.name).root

    def exec(self, *words: str, stdin: str | None = None) -> str:
        """Output of a command that runs as root in the host, without its network. LabError when it fails."""
        target = str(self.lab.leader(self.name))
        enter = ["nsenter", "--target", target, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        done = subprocess.run(
            [*enter, "--root", "--wd=/", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(words)}: {(done.stderr or done.stdout).strip()[-400:]}")
        return done.stdout

    def look(self) -> dict[str, str]:
        """Everything that has to be as it was, see look.py. LabError while the host cannot be asked."""
        found: dict[str, str] = json.loads(self.exec("python3", "-", stdin=LOOK.read_text(encoding="utf-8")))
        return found

    def lets_in(self) -> bool:
        """Whether the operator gets in by a new connection, and is somebody there."""
        command = [
            "ssh",
            "-F",
            str(self.lab.state.ssh_config),
            "-o",
            "BatchMode=yes",
            "-o",
            "ControlPath=none",
        ]
        try:
            done = subprocess.run(
                [*command, "-o", "ConnectTimeout=8", self.name, "sudo -n true"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SSH_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    @property
    def power(self) -> dict[str, Any]:
        """What the lab's supervisor says: `state`, `boots`, `leader` and others."""
        answer: dict[str, Any] = client.request(self.lab.state, "status")["hosts"][self.name]
        return answer

    def cut(self) -> None:
        client.request(self.lab.state, "cut", host=self.name)

    def start(self) -> None:
        """Give the power back. Does not wait: what this host needs to answer SSH is what is asked here."""
        client.request(self.lab.state, "start", host=self.name)

    def reboot(self) -> None:
        client.request(self.lab.state, "reboot", host=self.name)

    def journal(self, since: float) -> str:
        """What the host's services said since a Unix time; read from its disk, since it may be off or hang."""
        command = [
            "journalctl",
            f"--directory={self.files}/var/log/journal",
            "--no-pager",
            "--output=short-precise",
        ]
        done = subprocess.run(
            [
                *command,
                f"--since=@{int(since)}",
                "_TRANSPORT=stdout",
                "+",
                "_TRANSPORT=journal",
                "+",
                "_TRANSPORT=syslog",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout or done.stderr

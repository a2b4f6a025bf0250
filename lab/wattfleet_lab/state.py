# SPDX-License-Identifier: Apache-2.0
"""The files of one lab, ``<state root>/<lab>/``.

======================  ================================================================================
``lab.json``            name, index, and when the lab was made (UTC)
``hosts/<host>/``       each host's files (see `wattfleet_lab.host`)
``id_ed25519``          the key that every host of the lab lets in as ``admin``
``known_hosts``         the hosts' keys
``ssh_config``          for ``ssh -F``: names and addresses of all hosts
``inventory/``          the fleet restricted to the sites that are up, with this lab's addresses
``meters.json``         what the meter simulator serves; ``meters.sock``, ``meters.log`` are its own
``supervisor.json``     pid and start time of the supervisor; ``supervisor.log``, ``control.sock``
======================  ================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wattfleet_lab import paths
from wattfleet_lab.addresses import Plan
from wattfleet_lab.errors import LabError
from wattfleet_lab.files import write_json
from wattfleet_lab.host import Folder, Host

SOCKET_PATH_MAX = 107  # bytes, unix(7)


class State:
    """Paths and contents of a lab's folder."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.hosts_folder = path / "hosts"
        self.key = path / "id_ed25519"
        self.known_hosts = path / "known_hosts"
        self.ssh_config = path / "ssh_config"
        self.inventory = path / "inventory"
        self.meters = path / "meters.json"
        self.meters_socket = path / "meters.sock"
        self.meters_log = path / "meters.log"
        self.supervisor = path / "supervisor.json"
        self.supervisor_log = path / "supervisor.log"
        self.socket = path / "control.sock"

    @classmethod
    def of(cls, name: str) -> State:
        return cls(name, paths.state_root() / name)

    @property
    def exists(self) -> bool:
        return (self.path / "lab.json").exists()

    def create(self, plan: Plan) -> None:
        longest = max(len(str(self.socket)), len(str(self.meters_socket)))
        if longest > SOCKET_PATH_MAX:
            raise LabError(
                f"{self.path}: too long a path for sockets ({longest} of {SOCKET_PATH_MAX} characters); "
                "set WATTFLEET_STATE to a shorter folder"
            )
        if any(mark in str(self.path) for mark in ":,\\ "):
            raise LabError(
                f"{self.path}: overlay mounts allow no colon, comma, backslash or space in the path"
            )
        self.hosts_folder.mkdir(parents=True, exist_ok=True)
        made = self._made() or datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.path / "lab.json", {"name": self.name, "index": plan.index, "made": made})

    @property
    def index(self) -> int | None:
        """The index the lab had when it was made; None when there is no lab here."""
        try:
            return int(json.loads((self.path / "lab.json").read_text())["index"])
        except FileNotFoundError:
            return None

    @property
    def epoch(self) -> str:
        """When the simulated meters began to count: midnight UTC of the day before the lab was made.

        Not earlier, since every process that computes their totals sums up all days since then.
        """
        made = self._made()
        day = datetime.fromisoformat(made) if made else datetime.now(UTC)
        return (day - timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0).isoformat()

    def _made(self) -> str | None:
        try:
            return str(json.loads((self.path / "lab.json").read_text())["made"])
        except (FileNotFoundError, KeyError):
            return None

    def folder(self, host: str) -> Folder:
        return Folder(self.hosts_folder / host)

    def hosts(self) -> list[Host]:
        """All hosts of the lab: the hub first, then by name."""
        return sorted(self._hosts(), key=lambda host: (host.kind != "hub", host.name))

    def _hosts(self) -> Iterator[Host]:
        for file in self.hosts_folder.glob("*/host.json"):
            yield Folder(file.parent).load()

    def host(self, name: str) -> Host:
        """LabError when there is none of this name; it lists those there are."""
        for host in self._hosts():
            if name in (host.name, host.address):
                return host
        names = ", ".join(host.name for host in self.hosts())
        raise LabError(f"no host {name!r} in lab {self.name!r}; there are: {names or 'none'}")

# SPDX-License-Identifier: Apache-2.0
"""The folder that outlasts every run: the ledger, plans that were read, logs, and who drives which rollout.

======================  ================================================================================
``rollouts.db``         the one ledger (docs/reference/rollout-ledger.md)
``plans/<name>.json``   what `plan` has written, and `start` takes by its digest
``inventory.json``      what Ansible made of the inventory, until one of its files changes
``logs/<name>.log``     what Ansible said
``locks/``              held by whoever acts; the kernel lets go when that process ends, also by kill -9
======================  ================================================================================
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wattfleet.errors import WattfleetError
from wattfleet.rollout.ledger import Ledger

INVENTORY = "WATTFLEET_INVENTORY"
# A lock that is held for longer than this is somebody's who acts, in s.
PATIENCE = 1.0


class BusyError(WattfleetError):
    """Somebody else acts there; one line says who."""


class Folder:
    """The folder's paths. Made when something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger_file = path / "rollouts.db"

    @classmethod
    def of(cls, inventory: Path) -> Folder:
        """Beside the fleet file, as the authority's folder is."""
        return cls(inventory.resolve().parent / "rollouts")

    def make(self) -> None:
        for folder in (self.path, *(self.path / part for part in ("plans", "logs", "locks"))):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ledger(self) -> Ledger:
        self.make()
        return Ledger(self.ledger_file)

    def plan(self, name: str) -> Path:
        return self.path / "plans" / f"{name}.json"

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    @contextmanager
    def driving(self, rollout: str) -> Iterator[None]:
        """The one that drives a rollout whole. Raises BusyError when somebody else acts on it."""
        with self._held(rollout, fcntl.LOCK_EX, f"{rollout} is driven"):
            yield

    @contextmanager
    def driving_site(self, rollout: str, site: str) -> Iterator[None]:
        """One of several that each drive a site of a rollout. Raises BusyError."""
        with (
            self._held(rollout, fcntl.LOCK_SH, f"{rollout} is driven"),
            self._held(f"{rollout}.{site}", fcntl.LOCK_EX, f"{site} in {rollout} is worked on"),
        ):
            yield

    def is_driven(self, rollout: str) -> bool:
        """Whether somebody drives it, whole or by its sites. Held for an instant, which `PATIENCE` allows for."""
        self.make()
        with (self.path / "locks" / rollout).open("a") as file:
            return not _got(file, fcntl.LOCK_EX)

    @contextmanager
    def _held(self, name: str, how: int, what: str) -> Iterator[None]:
        self.make()
        path = self.path / "locks" / name
        # Not truncated: until the lock is ours, the content tells who has it.
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
            until = time.monotonic() + PATIENCE
            while not _got(file, how):
                if time.monotonic() > until:
                    who = file.read().strip() or "another process"
                    raise BusyError(f"{what} by {who} already: one at a time")
                time.sleep(PATIENCE / 10)
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield


def _got(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

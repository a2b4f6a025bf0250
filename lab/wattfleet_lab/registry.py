# SPDX-License-Identifier: Apache-2.0
"""Which labs exist on this machine: name, index, state folder; and what to put back when the last one goes.

One file, ``/run/wattfleet/labs.json``, for all checkouts on the machine, since bridges, addresses and sysctls
are the machine's. ::

    {"labs": {"default": {"index": 0, "state": "/home/me/wattfleet/.lab/default"}},
     "restore": {"fs.inotify.max_user_instances": "128"}, "netns_folder": true}
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wattfleet_lab import paths
from wattfleet_lab.addresses import LABS, check_host_name
from wattfleet_lab.errors import LabError
from wattfleet_lab.files import write_json

RESERVED = {"default": 0, "molecule": 1}


@dataclass
class Registry:
    """The contents of labs.json."""

    labs: dict[str, tuple[int, Path]] = field(default_factory=dict)
    restore: dict[str, str] = field(default_factory=dict)
    netns_folder: bool = False

    def claim(self, name: str, state: Path, remembered: int | None = None) -> int:
        """The index of the lab; a new name gets its reserved, its remembered or the first free one."""
        check_host_name(name)
        if name in self.labs:
            index, other = self.labs[name]
            if other != state:
                raise LabError(
                    f"a lab named {name!r} is already up with its state in {other}: choose another name with "
                    f"--lab, or end it: WATTFLEET_STATE={other.parent} wattfleet lab --lab {name} down"
                )
            return index
        taken = {index for index, _ in self.labs.values()}
        wished = RESERVED.get(name, remembered)
        if wished is None or wished in taken:
            free = [i for i in range(LABS) if i not in taken and i not in RESERVED.values()]
            if not free or name in RESERVED:
                raise LabError(f"no free lab index for {name!r}: labs {', '.join(sorted(self.labs))} are up")
            wished = free[0]
        self.labs[name] = (wished, state)
        return wished


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds an exclusive lock on a lock file, which its holder may delete.

    `waiting` is called when somebody else has it.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its holder has deleted the file meanwhile: nobody else would see our lock
    try:
        yield
    finally:
        os.close(descriptor)


def read() -> Registry:
    """The registry as it is now, for looking only."""
    path = paths.MACHINE / "labs.json"
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        return Registry()
    labs = {name: (int(lab["index"]), Path(lab["state"])) for name, lab in raw["labs"].items()}
    return Registry(labs, dict(raw["restore"]), bool(raw["netns_folder"]))


@contextmanager
def changing() -> Iterator[Registry]:
    """The registry, locked; what the block changes in it is written when it ends without an exception."""
    path = paths.MACHINE / "labs.json"
    lock = paths.MACHINE / "lock"
    with locked(lock):
        registry = read()
        yield registry
        if not registry.labs and not registry.restore and not registry.netns_folder:
            path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            return
        labs = {name: {"index": index, "state": str(state)} for name, (index, state) in registry.labs.items()}
        content = {"labs": labs, "restore": registry.restore, "netns_folder": registry.netns_folder}
        write_json(path, content)

# SPDX-License-Identifier: Apache-2.0
"""A control group for each host.

nspawn with --keep-unit puts the container below the control group it is started in. Hosts that shared one
would share their services' groups too (all have a ``system.slice/ssh.service``), and one host's systemd would
clean up the others'.
"""

from __future__ import annotations

import os
from pathlib import Path


def own_folders(lab_group: str) -> list[Path]:
    """The lab's group, below this process's own, in each hierarchy that systemd manages.

    These are the version 2 hierarchy and version 1's ``name=systemd``; containers see all others read-only.
    """
    mounted = _hierarchies()
    found: list[Path] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in mounted:
            found.append(mounted[controllers] / path.lstrip("/") / lab_group)
    return found


def enter(folders: list[Path]) -> None:
    """Moves the calling process into groups that exist."""
    for folder in folders:
        (folder / "cgroup.procs").write_text(str(os.getpid()))


def lab_folders(lab_group: str) -> list[Path]:
    """All groups of this name, wherever the process that made them was."""
    found: list[Path] = []
    for root in set(_hierarchies().values()):
        found += [folder for folder in root.glob(f"**/{lab_group}") if folder.is_dir()]
    return found


def members(folder: Path) -> list[int]:
    """Pids in a group and all groups below it."""
    pids: list[int] = []
    for file in folder.glob("**/cgroup.procs"):
        try:
            pids += [int(pid) for pid in file.read_text().split()]
        except OSError:
            continue
    return pids


def remove(folder: Path) -> None:
    """Removes an empty group with all below it; one that still has members stays."""
    if not folder.is_dir():
        return
    for path, _, _ in os.walk(folder, topdown=False):
        try:
            Path(path).rmdir()
        except OSError:
            continue


def _hierarchies() -> dict[str, Path]:
    """Mount points: key "" for version 2, "name=systemd" for version 1, as /proc/self/cgroup has them."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(maxsplit=2)
        point = Path(before.split()[4])
        if kind == "cgroup2":
            found.setdefault("", point)
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            found.setdefault("name=systemd", point)
    return found

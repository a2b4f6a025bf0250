# SPDX-License-Identifier: Apache-2.0
"""What the machine must offer, and what it has mounted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from wattfleet_lab.commands import succeeds
from wattfleet_lab.errors import LabError

_NAMESPACES = ("net", "pid", "mnt", "uts", "ipc", "cgroup")


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("this needs root, for containers and networks: run it with sudo")


def require_programs(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise LabError(
            f"{', '.join(missing)} not found: run tools/bootstrap.sh, which installs the Debian packages"
        )


def require_space(folder: Path, megabytes: int, variable: str) -> None:
    free = shutil.disk_usage(folder).free // 2**20
    if free < megabytes:
        raise LabError(
            f"{folder}: {free} MiB free, {megabytes} needed; make room or set {variable} to another folder"
        )


def require_containers() -> None:
    """LabError when this kernel cannot run the lab's hosts."""
    missing = [name for name in _NAMESPACES if not Path(f"/proc/self/ns/{name}").exists()]
    if missing:
        raise LabError(f"this kernel has no {', '.join(missing)} namespaces, which systemd-nspawn needs")
    if "\toverlay\n" not in Path("/proc/filesystems").read_text() and not succeeds("modprobe", "overlay"):
        raise LabError(
            "this kernel has no overlay file system (CONFIG_OVERLAY_FS), which the lab's hosts are made of"
        )
    if not Path("/sys/fs/cgroup").is_dir():
        raise LabError("no cgroups are mounted on /sys/fs/cgroup, which systemd-nspawn needs")


def mounts_below(folder: Path) -> list[Path]:
    """Mount points in a folder, or the folder itself, innermost first."""
    found = [point for point, _ in _mounts() if point == folder or folder in point.parents]
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def is_mounted(point: Path) -> bool:
    return any(candidate == point for candidate, _ in _mounts())


def overlay_lower_folders() -> set[str]:
    """Folders that mounted overlays are made from."""
    found: set[str] = set()
    for _, options in _mounts():
        for option in options.split(","):
            if option.startswith("lowerdir="):
                found.update(option.removeprefix("lowerdir=").split(":"))
    return found


def _mounts() -> list[tuple[Path, str]]:
    """(mount point, options of the file system), from proc(5) mountinfo."""
    result: list[tuple[Path, str]] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        result.append((Path(point), after.split()[-1]))
    return result

# SPDX-License-Identifier: Apache-2.0
"""Kernel settings that the lab raises, and puts back with the last lab."""

from __future__ import annotations

from pathlib import Path

# Each systemd host needs about five inotify instances of root; the default of 128 stops at about 23 hosts.
WANTED = {"fs.inotify.max_user_instances": 8192, "fs.inotify.max_user_watches": 524288}


def _file(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def read(name: str) -> int:
    return int(_file(name).read_text())


def raise_all(restore: dict[str, str]) -> None:
    """Raises what is too low; the value found first is remembered in `restore`."""
    for name, wanted in WANTED.items():
        found = read(name)
        if found < wanted:
            restore.setdefault(name, str(found))
            _file(name).write_text(str(wanted))


def put_back(restore: dict[str, str]) -> None:
    for name, value in restore.items():
        _file(name).write_text(value)
    restore.clear()

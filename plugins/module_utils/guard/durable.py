# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Changes of the file system that a power cut leaves either not done or done.

All of the guard's own writing goes through these few functions. `watch` sees each step before and after it is taken;
the tests put a process there that dies, or that keeps account of what is on the disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

watch: Callable[[str, Path], None] = lambda _step, _path: None  # noqa: E731  (a place for the tests' own)


def sync_file(path: Path) -> None:
    """Bring a file's content, or a directory's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    watch("synced", path)


def sync_tree(path: Path) -> None:
    """Bring a directory and all below it to the disk, the names last."""
    for directory, _names, files in os.walk(path, topdown=False):
        for file in (Path(directory, name) for name in files):
            if not file.is_symlink():
                # What its owner has removed meanwhile has nothing to bring to the disk.
                with suppress(FileNotFoundError):
                    sync_file(file)
        sync_file(Path(directory))


def temporary_name(path: Path) -> Path:
    """One name a file, so that what a cut left behind is overwritten instead of gathering."""
    return path.with_name(f".{path.name}.energy-guard")


def write(path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace a file in one step, never wider open than `mode`, and on the disk when this returns."""
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    watch("made", temporary)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if owner is not None:
                os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            os.fsync(handle)
        watch("synced", temporary)
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link(path: Path, target: str, owner: tuple[int, int] | None = None) -> None:
    """Replace whatever file or link has this name by a symbolic link."""
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    if owner is not None:
        os.lchown(temporary, *owner)
    watch("made", temporary)
    rename(temporary, path)


def rename(old: Path, new: Path) -> None:
    """Give a file or directory another name, in one step."""
    watch("renaming", new)
    old.rename(new)
    watch("renamed", new)
    sync_file(new.parent)
    if old.parent != new.parent:
        sync_file(old.parent)


def remove(path: Path) -> None:
    """Remove a file, a link or an empty directory."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    watch("removed", path)
    sync_file(path.parent)


def remove_tree(path: Path) -> None:
    """Remove one of the guard's own directories. Not in one step: give it a name that nobody reads first."""
    if path.exists():
        shutil.rmtree(path)
        watch("removed", path)
        sync_file(path.parent)


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make a directory and those above it that are missing."""
    if path.is_dir():
        return
    make_directory(path.parent, mode=0o755)
    path.mkdir(mode=mode)
    path.chmod(mode)
    watch("made", path)
    sync_file(path.parent)

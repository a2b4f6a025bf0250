# SPDX-License-Identifier: Apache-2.0
"""A host's own disk, for real: what was synced outlives a power cut, and the rest does not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from wattfleet_lab import kernel
from wattfleet_lab.disk import Disk

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="mounts and loop devices need root"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    one = Disk(tmp_path / "disk.img", tmp_path / "disk")
    one.mount()
    yield one
    unmount(one)


def unmount(disk: Disk) -> None:
    if kernel.is_mounted(disk.folder):
        subprocess.run(["umount", disk.folder], check=True)


def write(path: Path, *, synced: bool) -> None:
    with path.open("wb") as file:
        file.write(b"x" * 5000)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def cut_and_boot(disk: Disk) -> list[int]:
    """Sizes of the files afterwards."""
    write(disk.folder / "1", synced=True)
    write(disk.folder / "2", synced=False)
    disk.lose_power()
    unmount(disk)
    disk.let_go()
    disk.mount()
    return [path.stat().st_size if path.exists() else 0 for path in (disk.folder / "1", disk.folder / "2")]


def test_what_was_not_synced_is_gone(disk: Disk) -> None:
    assert cut_and_boot(disk) == [5000, 0]


def test_a_namespace_that_still_holds_it_does_no_harm(disk: Disk) -> None:
    """It has a copy of every mount of the moment at which it was made."""
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            assert cut_and_boot(disk) == [5000, 0]
            write(disk.folder / "3", synced=True)
        finally:
            other.kill()

# SPDX-License-Identifier: Apache-2.0
"""A small file system of its own under one folder, which can be full."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.fault.rig.namespaces import command

PIECE = bytes(4096)


class SmallDisk:
    """In memory, or with `ext4` an image on a loop device, where there are such."""

    def __init__(self, size: str, *, ext4: bool = False) -> None:
        self.folder = Path()
        self._size = size
        self._ext4 = ext4

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def mount(self, folder: Path) -> None:
        """The folder has to be there."""
        self.folder = folder
        if self._ext4 and Path("/dev/loop-control").exists():
            image = self.folder.parent / f"{self.folder.name}.img"
            command("truncate", "--size", self._size, str(image))
            # Nothing is reserved for root: full is full.
            command("mkfs.ext4", "-q", "-m", "0", str(image))
            command("mount", "-o", "loop", str(image), str(self.folder))
        else:
            command("mount", "-t", "tmpfs", "-o", f"size={self._size}", "wf-fault", str(self.folder))

    def unmount(self) -> None:
        """Whatever state it is in."""
        if self.folder != Path():
            subprocess.run(["umount", "-l", self.folder], capture_output=True, check=False)

    def fill(self) -> None:
        """Until not a byte is left."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(PIECE)
            except OSError:
                return

    def free(self) -> None:
        """Take away what filled it."""
        self._filler.unlink(missing_ok=True)

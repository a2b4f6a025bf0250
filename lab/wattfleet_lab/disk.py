# SPDX-License-Identifier: Apache-2.0
"""A file system of a host's own, in an image, from which a power cut takes what was not synced.

Hosts that share the machine's file system lose processes and no data: what a dead process has written is in the
machine's page cache, synced or not.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from wattfleet_lab import kernel
from wattfleet_lab.commands import run

SIZE = "4G"  # sparse: it takes what the host writes
# Linux, fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN ends a mounted file system where it is; NOLOGFLUSH: not even its journal is
# written out.
_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2


class Disk:
    """An image with ext4 in it, and the folder where that is mounted."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image = image
        self.folder = folder

    def mount(self) -> None:
        """Makes it first, where there is none yet."""
        if kernel.is_mounted(self.folder):
            return
        self.folder.mkdir(exist_ok=True)
        if not self.image.exists():
            half_made = self.image.with_suffix(".new")
            run("truncate", "--size", SIZE, str(half_made))
            run("mkfs.ext4", "-q", "-m", "0", str(half_made))
            half_made.rename(self.image)
        run("mount", "-o", "loop", str(self.image), str(self.folder))

    def lose_power(self) -> None:
        """From now on nothing is written any more; every access fails until it is mounted again."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(handle)

    def let_go(self) -> None:
        """After it was unmounted. A mount namespace of somebody else's may hold it for as long as it lasts, dead as it
        is, and the next mount would get the dead one: then a copy takes its place."""
        if run("losetup", "--associated", str(self.image)):
            copy = self.image.with_suffix(".new")
            run("cp", "--sparse=always", str(self.image), str(copy))
            copy.rename(self.image)

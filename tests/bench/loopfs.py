# SPDX-License-Identifier: Apache-2.0
"""A file system of its own in a file, whose writes to the block device can be counted. Needs root."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

SECTOR = 512


def run(*command: str | Path) -> str:
    """Run a command; returns what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class LoopFs:
    """An ext4 (or other) file system in `image`, mounted on `folder` while used as a context."""

    def __init__(self, image: Path, folder: Path, size: int, options: str = "", kind: str = "ext4") -> None:
        self.image = image
        self.folder = folder
        self._options = options
        self._device = ""
        with image.open("wb") as file:
            file.truncate(size)
        # Small ext4 file systems have blocks of 1 KiB unless told otherwise; no gateway has one so small.
        ext4 = ["-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        run(f"mkfs.{kind}", "-q", *(ext4 if kind == "ext4" else ["-f"]), image)

    def __enter__(self) -> LoopFs:
        self.folder.mkdir(exist_ok=True)
        self._device = run("losetup", "--find", "--show", self.image)
        try:
            options = ["-o", self._options] if self._options else []
            run("mount", *options, self._device, self.folder)
        except BaseException:
            run("losetup", "--detach", self._device)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # A loop device whose file lies here lets go of it a little later.
        deadline = time.monotonic() + 10
        while subprocess.run(["umount", self.folder], check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.folder} cannot be unmounted")
            time.sleep(0.1)
        run("losetup", "--detach", self._device)

    def written(self) -> int:
        """Bytes that have reached the block device so far."""
        stat = Path("/sys/block", Path(self._device).name, "stat").read_text(encoding="ascii").split()
        return int(stat[6]) * SECTOR

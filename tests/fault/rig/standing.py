# SPDX-License-Identifier: Apache-2.0
"""What a rig of several processes needs whatever they are: a folder, and an end."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

PREFIX = "wf-fault-"


class Standing(ABC):
    """Parts that stand within a `with`, and end with it whatever happens. Subclasses start them in `_start`."""

    folder: Path

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._make_folder()
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self) -> None:
        """Start them, in an order in which each finds what it needs."""

    def on_exit(self, action: Callable[[], object]) -> None:
        """Called when the rig ends; from a subclass's `prepare`, after the services have ended."""
        self._stack.callback(action)

    def _make_folder(self) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self._stack.callback(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)  # the database's user has to get through


def sweep() -> None:
    """Remove folders of runs that were killed before they could; their processes went with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in [one for one in mounts if one.startswith(f"{folder}/")]:
                subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
            shutil.rmtree(folder, ignore_errors=True)  # of another run that was killed; not this one's fault

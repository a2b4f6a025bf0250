# SPDX-License-Identifier: Apache-2.0
"""A process of the rig: it never outlives the rig, whatever ends that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wattfleet.paths import BUILD, ROOT

PATIENCE = 30.0


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience:g} s: {what}")


def python_environment(**more: str) -> dict[str, str]:
    """For our own programs: from this tree, compiled once for all starts."""
    paths = [str(ROOT / part) for part in ("collector", "hub", "controller", "lab", ".")]
    environment = (
        os.environ | {"PYTHONPATH": ":".join(paths), "PYTHONPYCACHEPREFIX": str(BUILD / "pycache")} | more
    )
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


class Process:
    """A command that can be started again and again; what it says goes to one file."""

    def __init__(self, command: Sequence[str | Path], log: Path, *, netns: str | None = None) -> None:
        self._command = [str(part) for part in command]
        if netns is not None:
            self._command = ["ip", "netns", "exec", netns, *self._command]
        self._log = log
        self.environment = python_environment()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def module(cls, name: str, *arguments: str | Path, log: Path, netns: str | None = None) -> Process:
        """`python -m name …`."""
        return cls([*cls.python(name), *arguments], log, netns=netns)

    @staticmethod
    def python(name: str) -> list[str]:
        """The beginning of a command that runs a module of this tree."""
        return [sys.executable, "-m", name]

    def see_as(self, path: str, file: Path) -> None:
        """It sees another file at this path, in a mount namespace of its own; its pid stays that of the program."""
        script = 'mount --bind "$0" "$1" && shift && exec "$@"'
        self._command = ["unshare", "--mount", "sh", "-c", script, str(file), path, *self._command]

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the program itself: neither setpriv nor ip stays in between."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it. A session of its own keeps the terminal's Ctrl-C away: the rig ends it, in order."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command],
                cwd=self._log.parent,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        """Send a signal to a process that may have ended."""
        if self.alive:
            assert self._process is not None
            self._process.send_signal(number)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, and wait for the end."""
        if self._process is None:
            return
        self.send(number)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def journal(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

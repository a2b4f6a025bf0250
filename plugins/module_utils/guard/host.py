# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The host as the guard sees it: a root for all paths, a way to run commands, and somebody to tell."""

from __future__ import annotations

import os
import signal
import subprocess
import syslog
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMED_OUT = 124
# Where systemd tells its units the boot. They have a /proc of their own, which in a container is that of another boot.
BOOT_ID = "ENERGY_GUARD_BOOT"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    argv: list[str]
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What the command itself said, in one line."""
        text = (self.err.strip() or self.out.strip()).replace("\n", " | ")
        return text or f"it ended with status {self.code} and said nothing"


class Host:
    """Everything the guard touches goes through here, so that a test can give it another root and other commands."""

    def __init__(self, root: Path | str = "/") -> None:
        self.root = Path(root)

    def at(self, path: str) -> Path:
        """Where an absolute path of the host is."""
        return self.root / path.lstrip("/")

    def run(self, argv: list[str], *, timeout: float = 20, stdin: str | None = None) -> Done:
        """Run a command to its end, or to its time-out: then it is killed with all that it started."""
        environment = {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            "SYSTEMD_COLORS": "0",
            "SYSTEMD_PAGER": "",
        }
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return Done(argv, 127, "", f"{argv[0]}: {error.strerror}")
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            # A process that the kernel does not let go of is left behind: a restore must not wait for it.
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=2)
            return Done(argv, TIMED_OUT, "", f"no answer within {timeout:g} s")
        return Done(argv, process.returncode, out, err)

    def say(self, text: str, *, bad: bool = False) -> None:
        """Tell the journal."""
        syslog.openlog("energy-guard")
        syslog.syslog(syslog.LOG_WARNING if bad else syslog.LOG_NOTICE, text)

    def sync(self) -> None:
        """Bring everything to the disk, whoever has written it."""
        os.sync()

    def boot_id(self) -> str:
        told = os.environ.get(BOOT_ID, "")
        if told:
            return "-".join((told[:8], told[8:12], told[12:16], told[16:20], told[20:]))
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def now(self) -> float:
        """Seconds on the clock that systemd's monotonic timers run by."""
        return time.monotonic()

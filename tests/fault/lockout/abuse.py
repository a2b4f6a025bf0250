# SPDX-License-Identifier: Apache-2.0
"""Confirmations that must not count: without the nonce, with a wrong one, too late, twice."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fault.lockout import judge
from tests.fault.lockout.host import LabHost
from tests.fault.lockout.judge import Look
from tests.fault.lockout.play import Play
from tests.fault.lockout.view import GuardView

# s in which a change is armed and applied, and the time it waits in these tests: for two plays, which a busy machine
# takes a quarter of a minute for, each.
ARMING = 120.0
WAIT = 80.0
NOTE = "/etc/energy-note"


class Abuse:
    """One host with a change that waits, and whoever tries to confirm it."""

    def __init__(self, host: LabHost, folder: Path) -> None:
        self.host = host
        self.view = GuardView(host)
        self.folder = folder
        self._number = 0

    def confirm(self, **options: str) -> dict[str, Any]:
        """What the module answers to a confirmation."""
        self._number += 1
        task = {"wattfleet.energy.guard": {"state": "confirmed", **options}}
        play = Play(self.host.lab.state, self.host.name, [task], self.folder / f"confirm-{self._number}")
        play.start()
        while not play.ended:
            time.sleep(0.1)
        play.close()
        answer = play.result()
        assert answer is not None, play.words()
        return {**answer, "ok": play.ok}

    def begin(self) -> str:
        """A change that waits, and whose controller is dead; its nonce.

        The real nonce has died with the controller, so the guard is given another, from outside.
        """
        nonce = secrets.token_hex(32)
        note = {"path": NOTE, "content": f"{nonce}\n", "mode": "0644"}
        task = {"state": "applied", "subject": "note", "files": [note], "wait_min": WAIT}
        play = Play(
            self.host.lab.state, self.host.name, [{"wattfleet.energy.guard": task}], self.folder / "begin"
        )
        play.start()
        try:
            self.wait_for(lambda: self.view.pending, ARMING, "nothing was armed")
            # The session that began it is cut within its answer: systemd applies it without it.
            play.kill()
            self.wait_for(lambda: self.view.phase == "applied", ARMING, "nothing was applied")
        finally:
            play.close()
        record = self.view.change()
        record["digest"] = hashlib.sha256(nonce.encode()).hexdigest()
        path = self.host.files / "var/lib/energy-guard/pending/change.json"
        path.write_text(json.dumps(record))
        return nonce

    def wait_for(self, condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"{complaint}: {self.view.phase}\n{self.host.journal(time.time() - 60)}"
            )
            time.sleep(0.05)

    def undone(self, before: Look) -> None:
        """The change goes by itself, whatever was tried meanwhile."""
        self.wait_for(lambda: not self.view.pending, WAIT + 30, "the change was not undone")
        assert not judge.differences(before, self.host.look())
        assert list(self.view.settled().values())[-1] == "undone"


def program(host: LabHost, nonce: str) -> tuple[int, str]:
    """The guard's own program on the host, as somebody with a shell there would try it."""
    words = ["ssh", "-F", str(host.lab.state.ssh_config), "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    done = subprocess.run(
        [*words, host.name, "sudo python3 /usr/local/lib/energy-guard/energy-guard.pyz confirm"],
        input=nonce + "\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr

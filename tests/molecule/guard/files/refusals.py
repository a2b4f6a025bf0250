# SPDX-License-Identifier: Apache-2.0
"""Runs on the host, with the guard that is installed there: confirmations that must not be followed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = "/usr/local/lib/energy-guard/energy-guard.pyz"
sys.path.insert(0, PROGRAM)

from energy_guard import engine
from energy_guard.change import Change
from energy_guard.host import Host

MOTD = Path("/etc/motd")
NONCE, OTHER = "a" * 64, "b" * 64


def confirm(nonce: str, *, here: bool = False) -> tuple[int, str]:
    """Confirm from outside of this session, which is older than all that is tried here; or from within."""
    outside = [] if here else ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
    command = [*outside, sys.executable, PROGRAM, "confirm"]
    done = subprocess.run(command, input=nonce + "\n", capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def status() -> dict[str, object]:
    return json.loads(subprocess.check_output([sys.executable, PROGRAM, "status", "--json"], text=True))


def begin(text: str, wait: float) -> None:
    change = Change(subject="refusals", files=[{"path": str(MOTD), "content": text}])
    engine.begin(Host(), change, hashlib.sha256(NONCE.encode()).hexdigest(), wait)
    while status()["phase"] != "applied":
        time.sleep(0.1)


def expect(nonce: str, words: str) -> None:
    """A refusal in its own words, which changes nothing and is noted."""
    before = (MOTD.read_text(), status()["phase"], status()["subject"])
    code, said = confirm(nonce)
    assert code != 0, f"confirmed: {said}"
    assert words in said, f"{words!r} expected, but it said {said!r}"
    assert (MOTD.read_text(), status()["phase"], status()["subject"]) == before, "something has changed"
    last = status()["history"][-1]
    assert last["outcome"] == "refused", last
    assert last["reason"] in said, last
    print(said)


old = MOTD.read_text()
expect("", "a confirmation without its nonce")
expect(OTHER, "no change waits for a confirmation")
begin("first\n", 60)
expect("", "a confirmation without its nonce")
expect(OTHER, "this nonce is not that of the change of refusals that waits")
code, said = confirm(NONCE, here=True)
assert (code, "this connection is older than the change" in said) == (1, True), said
print(said)
code, said = confirm(NONCE)
assert code == 0, said
assert MOTD.read_text() == "first\n"
expect(NONCE, "has been confirmed already")
NONCE = "c" * 64
begin("second\n", 4)
until = time.monotonic() + 34
while status()["phase"] != "none" and time.monotonic() < until:
    time.sleep(0.2)
assert MOTD.read_text() == "first\n", "not undone"
expect(NONCE, "too late: this change was undone")
begin(old, 60)
assert confirm(NONCE)[0] == 0, "the same nonce for a new change"

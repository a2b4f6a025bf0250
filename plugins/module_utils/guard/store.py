# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the guard keeps on the host: the change that waits, the originals, and what has happened.

Each directory has one meaning, and gets or loses it by one rename:

  pending.new/        a change that is being prepared; nothing of the host has been changed
  pending/            a change that is neither confirmed nor undone
  confirmed/ undone/  the same directory after its end; what remains is to take its results over, which finish() does
  originals/SUBJECT/  the host before the first change of a subject
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import durable, lock
from .errors import GuardError
from .host import Host

BASE = "/var/lib/energy-guard"
KEPT = 200  # entries of the history


class Store:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.base = host.at(BASE)
        self.new = self.base / "pending.new"
        self.pending = self.base / "pending"
        self.ended = {"confirmed": self.base / "confirmed", "undone": self.base / "undone"}
        self._history = self.base / "history.jsonl"

    def make(self) -> None:
        durable.make_directory(self.base, mode=0o700)
        durable.make_directory(self.base / "originals", mode=0o700)

    @contextmanager
    def lock(self, wait: float = 30) -> Iterator[None]:
        """Only one of begin, confirm and restore at a time."""
        self.make()
        busy = GuardError(f"another run has held {BASE}/lock for {wait:g} s; try again")
        with lock.held(self.base / "lock", wait, busy):
            yield

    # The change that waits

    def change(self) -> dict[str, Any] | None:
        """What is waiting for its confirmation, or for its end."""
        return _read(self.pending / "change.json")

    def phase(self) -> dict[str, Any]:
        return _read(self.pending / "phase.json") or {"phase": "none"}

    def set_phase(self, phase: str, **more: Any) -> None:
        """Note how far a change has come. What was noted before stays, unless it is said anew."""
        noted = {**self.phase(), "phase": phase, **more}
        durable.write(self.pending / "phase.json", json.dumps(noted).encode())

    def snapshot(self, name: str = "") -> dict[str, Any]:
        """The host before the change, or the originals that go with it."""
        found = _read(self.pending / name / "snapshot.json")
        if found is None:
            raise GuardError(f"{self.pending / name}/snapshot.json is missing")
        return found

    def end(self, outcome: str, **more: Any) -> None:
        """The change ends here: until this rename it is undone at the next boot, afterwards it never is."""
        change = self.change() or {}
        keys = ("id", "subject", "revert", "wait", "digest")
        entry = {**{key: change[key] for key in keys}, "outcome": outcome, **more, "at": _stamp()}
        durable.write(self.pending / "outcome.json", json.dumps(entry).encode())
        durable.rename(self.pending, self.ended[outcome])

    def finish(self) -> None:
        """Take over the results of changes that have ended. Can be cut and repeated anywhere."""
        for outcome, ended in self.ended.items():
            if not ended.exists():
                continue
            entry = _read(ended / "outcome.json")
            if entry is not None:
                if outcome == "confirmed":
                    self._take_originals(ended, entry)
                if all(
                    line.get("id") != entry["id"] or line["outcome"] == "refused" for line in self.history()
                ):
                    self.note(entry)
                # Last of all: from here on the directory is only rubbish.
                durable.remove(ended / "outcome.json")
            durable.remove_tree(ended)

    def _take_originals(self, ended: Path, entry: dict[str, Any]) -> None:
        there = self.originals(entry["subject"])
        old = there.with_name(f".{there.name}.old")
        if entry["revert"] or (ended / "originals").exists():
            if there.exists():
                durable.remove_tree(old)
                durable.rename(there, old)
            if not entry["revert"]:
                durable.rename(ended / "originals", there)
        durable.remove_tree(old)

    # The originals

    def originals(self, subject: str) -> Path:
        return self.base / "originals" / subject

    def original_snapshot(self, subject: str) -> dict[str, Any] | None:
        return _read(self.originals(subject) / "snapshot.json")

    # What has happened

    def history(self) -> list[dict[str, Any]]:
        """The latest entries, the oldest first."""
        try:
            lines = self._history.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def note(self, entry: dict[str, Any]) -> None:
        lines = [json.dumps(line) for line in [*self.history(), {"at": _stamp(), **entry}][-KEPT:]]
        durable.write(self._history, ("\n".join(lines) + "\n").encode())

    def last(self, digest: str) -> dict[str, Any] | None:
        """How the change with this nonce ended."""
        found = [
            line for line in self.history() if line.get("digest") == digest and line["outcome"] != "refused"
        ]
        return found[-1] if found else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def _stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

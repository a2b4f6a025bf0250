# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the gateway remembers of its releases: one file, replaced as a whole, so that each step is taken or not taken.

state.json   the attempt that is under way, those that have ended, and the highest release taken of each kind
incoming/    the image that is on its way (incoming.py)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..guard import durable, lock
from .host import FirmwareError, Host

BASE = "/var/lib/energy-firmware"
KEPT = 20  # attempts that have ended
Record = dict[str, Any]


class Store:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.base = host.at(BASE)
        self._state = self.base / "state.json"

    @contextmanager
    def lock(self, wait: float = 30) -> Iterator[None]:
        """One decision at a time."""
        durable.make_directory(self.base, mode=0o700)
        busy = FirmwareError(f"another run has held {BASE}/lock for {wait:g} s; try again")
        with lock.held(self.base / "lock", wait, busy):
            yield

    def state(self) -> Record:
        try:
            found: Record = json.loads(self._state.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {"attempt": None, "ended": [], "taken": {}}
        except ValueError as error:
            raise FirmwareError(f"{BASE}/state.json is damaged ({error}); nothing is installed") from None
        return found

    def _write(self, state: Record) -> None:
        durable.write(self._state, (json.dumps(state, indent=1) + "\n").encode())

    def attempt(self) -> Record | None:
        """The attempt that is under way."""
        found: Record | None = self.state()["attempt"]
        return found

    def find(self, name: str, direction: str | None = None) -> Record | None:
        """An attempt by its name, the latest first; `direction` where only one of the two is meant."""
        state = self.state()
        known = [*state["ended"], *([state["attempt"]] if state["attempt"] else [])]
        for record in reversed(known):
            if record["attempt"] == name and direction in (None, record["direction"]):
                return dict(record)
        return None

    def begin(self, record: Record, number: int = 0, digest: str = "") -> None:
        """Write down a new attempt, and with it the release that it takes."""
        state = self.state()
        if number:
            state["taken"][record["kind"]] = {"number": number, "digest": digest}
        self._write({**state, "attempt": record})

    def note(self, record: Record, **changes: Any) -> Record:
        """Write down how far the attempt has come; the record as it is then."""
        state = self.state()
        state["attempt"] = {**record, **changes}
        self._write(state)
        return dict(state["attempt"])

    def end(self, record: Record, phase: str, why: str) -> None:
        """The attempt ends here: as `confirmed` or as `failed`."""
        state = self.state()
        ended = {**record, "phase": phase, "why": why, "ended": stamp()}
        self._write({**state, "attempt": None, "ended": [*state["ended"], ended][-KEPT:]})

    def drop(self) -> None:
        """Forget an attempt that was never begun: whoever asks for it again begins it."""
        self._write({**self.state(), "attempt": None})

    def taken(self, kind: str) -> tuple[int, str]:
        """Number and digest of the highest release that was taken."""
        found = self.state()["taken"].get(kind) or {"number": 0, "digest": ""}
        return int(found["number"]), str(found["digest"])

    def before(self, kind: str) -> str | None:
        """The version that ran before the last attempt; None where there was none, or it was a way back itself."""
        for record in reversed(self.state()["ended"]):
            if record["kind"] == kind:
                return record["from"] if record["direction"] == "forward" else None
        return None


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What of a change is live state of the kernel, done by units of its own that can do little else.

The unit that applies or undoes a change has files and systemd's units, and a network of its own. It listens on a socket
below /run, has systemd start the hands that it needs, and asks them for one thing after the other: by the names of
things in the change or the snapshot that waits, which they read themselves. A hand that does not start, or does not
answer, is a step that fails, and no comparison has been made.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from io import BufferedRWPair
from pathlib import Path
from typing import Any

from . import change as changes
from . import durable, manager, snapshot, sysctls, units
from .errors import GuardError, StepError
from .host import Host
from .store import Store
from .sysctls import HANDS, NETWORK

UNITS = {name: f"energy-guard-{name}.service" for name in HANDS}
PLACE = "/run/energy-guard"
# There once an attempt to undo the change that waits has got as far as its comparison.
COMPARED = f"{PLACE}/compared"
# Seconds for a hand to start, and for what it is asked to do.
START = 30.0
ANSWER = 140.0


def _socket(host: Host, name: str) -> Path:
    return host.at(f"{PLACE}/{name}")


def forget(host: Host) -> None:
    """Nobody asks, and nothing has been compared."""
    for path in (*(_socket(host, name) for name in UNITS), host.at(COMPARED)):
        path.unlink(missing_ok=True)


def note_compared(host: Host) -> None:
    """An attempt has got as far as its comparison: whatever it has found, it need not be the next boot that undoes."""
    place = host.at(COMPARED)
    durable.make_directory(place.parent, mode=0o700)
    place.touch()


class Direct:
    """Live state set and compared by this process itself: by a person at the console, and at the hands' own end."""

    def __init__(self, host: Host, was: dict[str, Any], tell: snapshot.Tell) -> None:
        self._host, self._was, self._tell = host, was, tell

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def put_back(self, what: str, **options: bool) -> None:
        snapshot.put_live_back(self._host, self._was, what, self._tell, **options)

    def differences(self) -> list[str]:
        return snapshot.live_differences(self._host, self._was)


class Hands:
    """The hands as the unit sees them that works on files. `kept` is where the snapshot lies that they put back."""

    def __init__(self, host: Host, names: list[str], kept: str = "") -> None:
        self._host, self._names, self._kept = host, names, kept
        self._listeners: dict[str, socket.socket] = {}
        self._links: dict[str, tuple[socket.socket, BufferedRWPair]] = {}
        self._lost: dict[str, str] = {}
        self._began = 0.0

    def __enter__(self) -> Hands:
        """Have systemd start them, anew if they run. They are waited for when they are needed."""
        self._began = time.monotonic()
        for name in self._names:
            try:
                self._listeners[name] = self._listen(name)
            except OSError as error:
                self._lost[name] = f"it cannot be asked: {error}"
        started = [UNITS[name] for name in self._listeners]
        if started:
            # A start that fails is seen when it is waited for.
            self._host.run(["systemctl", "restart", "--no-block", "--", *started])
        return self

    def __exit__(self, *_error: object) -> None:
        """Let them go: they end when nobody asks any more."""
        for name in self._names:
            self._drop(name)
            with suppress(OSError):
                _socket(self._host, name).unlink()

    def _listen(self, name: str) -> socket.socket:
        place = self._host.at(PLACE)
        durable.make_directory(place, mode=0o700)
        path = _socket(self._host, name)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(path))
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        return listener

    def _drop(self, name: str) -> None:
        if name in self._listeners:
            self._listeners.pop(name).close()
        if name in self._links:
            link, stream = self._links.pop(name)
            with suppress(OSError):
                stream.close()
            link.close()

    def _link(self, name: str) -> tuple[socket.socket, BufferedRWPair]:
        """The connection to a hand, which it makes once it runs."""
        if name not in self._links:
            listener = self._listeners[name]
            while not select.select([listener], [], [], 0.5)[0]:
                state = units.look(self._host, [UNITS[name]])[UNITS[name]]
                if time.monotonic() > self._began + START or not (units.is_active(state) or state["job"]):
                    raise TimeoutError(f"it does not start, see systemctl status {UNITS[name]}")
            link = listener.accept()[0]
            self._links[name] = link, link.makefile("rwb")
        return self._links[name]

    def ask(self, name: str, verb: str, *, timeout: float = ANSWER, **more: Any) -> Any:
        """Have a hand do something, and wait for what it says. StepError if it could not, or is not there."""
        if name in self._lost:
            raise StepError(UNITS[name], self._lost[name])
        try:
            link, stream = self._link(name)
            link.settimeout(timeout)
            stream.write(json.dumps({"do": verb, **more}).encode() + b"\n")
            stream.flush()
            line = stream.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError("it ended before it had answered")
        except (OSError, GuardError) as error:
            # What it still does, if it does anything, is not to be taken for an answer to another question.
            self._lost[name] = f"{verb}: {error}"
            self._drop(name)
            raise StepError(UNITS[name], self._lost[name]) from error
        answer = json.loads(line)
        if "words" in answer:
            raise StepError(answer["step"], answer["words"])
        return answer["done"]

    def _each(self, verb: str, **more: Any) -> list[Any]:
        """Ask all of them. One that fails does not keep the others from it."""
        answers, failed = [], []
        for name in self._names:
            try:
                answers.append(self.ask(name, verb, kept=self._kept, **more))
            except StepError as error:
                failed.append(error)
        if failed:
            raise StepError(failed[0].step, "; ".join([failed[0].words, *map(str, failed[1:])]))
        return answers

    def put_back(self, what: str, **options: bool) -> None:
        if what == "network":
            self.ask(NETWORK, "put back", kept=self._kept, what=what, options=options)
        else:
            self._each("put back", what=what, options=options)

    def differences(self) -> list[str]:
        return [line for lines in self._each("differences") for line in lines]


# What a hand does


def _put_back(host: Host, store: Store, name: str, *, kept: str, what: str, options: dict[str, bool]) -> None:
    tell = changes.teller(host, store.change() or {})
    snapshot.put_live_back(host, snapshot.part(store.snapshot(kept), name), what, tell, **options)


def _differences(host: Host, store: Store, name: str, *, kept: str) -> list[str]:
    return snapshot.live_differences(host, snapshot.part(store.snapshot(kept), name))


def _set(host: Host, store: Store, name: str) -> None:
    """Settings of the kernel as the change wants them."""
    change = (store.change() or {})["change"]
    wanted = {key: value for key, value in change["sysctls"].items() if sysctls.hand_of(key) == name}
    found = sysctls.look(host, list(wanted))
    for key, value in wanted.items():
        if found[key] != value:
            sysctls.write(host, key, value)


def _step(host: Host, store: Store, _name: str, *, number: int, left: float) -> None:
    record = store.change() or {}
    step = record["change"]["apply"][number]
    if "bring_up" in step:
        manager.bring_up(host, step["bring_up"]["interface"], step["bring_up"]["uuid"])
    else:
        changes.run_step(host, step, store.pending, record["staged"], left)


DO: dict[str, Callable[..., Any]] = {
    "put back": _put_back,
    "differences": _differences,
    "set": _set,
    "step": _step,
}


def serve(host: Host, name: str) -> int:
    """Run by the unit of a hand: do what is asked, until nobody asks any more."""
    store = Store(host)
    with socket.socket(socket.AF_UNIX) as link, suppress(OSError):
        # Where nobody listens it was started to see that it starts.
        link.connect(str(_socket(host, name)))
        with link.makefile("rwb") as stream:
            for line in stream:
                stream.write(json.dumps(_answer(host, store, name, json.loads(line))).encode() + b"\n")
                stream.flush()
    return 0


def _answer(host: Host, store: Store, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"done": DO[asked.pop("do")](host, store, name, **asked)}
    except StepError as error:
        return {"step": error.step, "words": error.words}
    except Exception as error:  # noqa: BLE001 - whoever asks tells it, and what else there is to do is done
        return {"step": UNITS[name], "words": str(error) or repr(error)}

# SPDX-License-Identifier: Apache-2.0
"""A cut at every step of an update: never flashed twice, never stuck, and in the end the old version or the new one."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import engine
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import FirmwareError
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.manifest import Refused
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.store import Store
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import durable

from tests.unit.cuts import cut_at

from .gateway import ATTEMPT, NEW, OLD, WITHIN, FakeGateway, envelope, image_of

COLLECTOR = b"collector 0.4.0"


class Case:
    """One update: its release, and what a controller asks for, again and again, until it has ended."""

    def __init__(self, kind: str, behaviour: str, confirms: bool = True, backwards: bool = False) -> None:
        self.kind = kind
        self.confirms = confirms
        self.backwards = backwards
        firmware = kind == "firmware"
        self.image = image_of(NEW, behaviour) if firmware else COLLECTOR
        self.release = envelope(self.image, kind=kind, version=NEW if firmware else "0.4.0")
        self.old, self.new = (OLD, NEW) if firmware else ("0.3.0", "0.4.0")

    def runs(self, host: FakeGateway) -> str:
        return host.version if self.kind == "firmware" else host.release

    def drive(self, host: FakeGateway) -> engine.Answer:
        """What a controller does that knows nothing but what the gateway says."""
        for _round in range(30):
            host.work()
            told = host.look(kind=self.kind)
            if told.kind == "unknown":
                host.send(self.image, self.release)
                host.begin(self.release, kind=self.kind)
            elif told.kind == "running" and self.confirms:
                try:
                    engine.confirm(host, ATTEMPT)
                except FirmwareError:
                    host.settle()
            elif told.kind == "running":
                host.pass_by(WITHIN + 1)
            elif (Store(host).attempt() or {}).get("attempt") != ATTEMPT:
                return told
        raise AssertionError(f"stuck: {told}, {host.said[-5:]}")

    def whole(self, root: Path) -> None:
        host = FakeGateway(root)
        self.drive(host)
        if self.backwards:
            self.take_back(host)

    def take_back(self, host: FakeGateway) -> None:
        for _round in range(10):
            host.work()
            told = host.look("x/back", self.kind)
            if told.kind == "running":
                engine.confirm(host, "x/back")
            elif told.kind in ("confirmed", "failed"):
                return
            else:
                engine.back(host, "x/back", self.kind)
        raise AssertionError(f"stuck: {told}")


CASES = {
    "good and confirmed": Case("firmware", "good"),
    "good and never confirmed": Case("firmware", "good", confirms=False),
    "fails": Case("firmware", "fails"),
    "hangs": Case("firmware", "hangs"),
    "lies": Case("firmware", "lies"),
    "taken back": Case("firmware", "good", backwards=True),
    "collector": Case("collector", "good"),
    "collector, never confirmed": Case("collector", "good", confirms=False),
    "collector, taken back": Case("collector", "good", backwards=True),
}


def fresh(place: Path) -> FakeGateway:
    # There is none at first.
    shutil.rmtree(place / "root", ignore_errors=True)
    return FakeGateway.make(place / "root")


@pytest.mark.parametrize(
    ("name", "power"),
    [
        *((name, True) for name in CASES),
        *((name, False) for name in ("good and confirmed", "lies", "collector, never confirmed")),
    ],
)
def test_a_cut_at_any_step(place: Path, name: str, power: bool) -> None:
    """With `power` the gateway boots after the cut; without, only the process has died, and systemd sees that."""
    case = CASES[name]
    ends: Counter[str] = Counter()
    step = 0
    while True:
        step += 1
        host = fresh(place)
        if not cut_at(step, lambda: case.whole(place / "root")):
            break
        host = FakeGateway(host.root)
        if power:
            host.boot()
        else:
            host.settle()
        told = case.drive(host)
        if case.backwards:
            case.take_back(host)
        flashed = host.device()["flashed"]
        assert len(flashed) <= 1, f"step {step}: flashed {len(flashed)} times"
        expected = case.old if told.kind == "failed" or case.backwards else case.new
        assert case.runs(host) == expected, f"step {step}: {told}"
        assert told.kind in ("confirmed", "failed"), f"step {step}: {told}"
        # A later boot changes nothing any more, and nothing is left that would.
        host.late += 10 * WITHIN
        host.boot()
        assert case.runs(host) == expected, f"step {step}: changed by a later boot"
        assert host.device()["timer"] is None
        ends[told.kind] += 1
    print(f"{name}: {step - 1} cuts, {dict(ends)}")
    assert step > 20
    assert bool(ends["confirmed"]) == (case.confirms and name not in ("fails", "hangs", "lies"))


def test_without_the_note_before_it_is_flashed_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a program that does not write down what it is about to do is found out by the test above."""
    case = CASES["good and confirmed"]
    note = Store.note

    def forgetful(store: Store, record: dict[str, object], **changes: object) -> dict[str, object]:
        if changes.get("phase") == "installing":
            return {**record, **changes}
        return note(store, record, **changes)

    monkeypatch.setattr(Store, "note", forgetful)
    twice, step = 0, 0
    while True:
        step += 1
        host = fresh(place)
        if not cut_at(step, lambda: case.whole(place / "root")):
            break
        host = FakeGateway(host.root)
        host.boot()
        with suppress(AssertionError, Refused):
            case.drive(host)
        twice += len(host.device()["flashed"]) > 1
    assert twice


def test_what_counts_is_on_the_disk_before_the_tool_is_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment that the tool is run, the note that it is has been synced, and so has the image."""
    host = fresh(place)
    case = CASES["good and confirmed"]
    synced: list[str] = []
    seen: list[str] = []

    def watch(step: str, path: Path) -> None:
        if step == "tool":
            seen.append(Store(host).attempt()["phase"])
            assert synced
        synced.append(path.name)

    monkeypatch.setattr(durable, "watch", watch)
    case.drive(host)
    assert seen[0] == "installing"
    assert set(seen) == {"installing", "confirming"}

# SPDX-License-Identifier: Apache-2.0
"""The source clock, and what becomes of readings that were taken while the wall clock was wrong."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from energy_collector import quality
from energy_collector.batches import batch
from energy_collector.built import BUILT
from energy_collector.clock import SourceClock, Stamper, synchronised
from energy_collector.config import BufferConfig
from energy_collector.journal import Faults
from energy_collector.reading import Layout, Reading, Record
from energy_collector.storage.boot import Boot
from energy_collector.storage.buffer import Buffer
from energy_collector.storage.writer import Writer

from . import wire_vectors as vectors

# 2026-06-01T00:00:00Z in s.
NOW = 1_780_272_000.0
HOUR = 3600.0
LAYOUT = Layout(("m/a", "m/b"), ("W", "V"))


class Machine(Boot):
    """A wall clock in s, and a clock since the boot in ms, under the test's hand."""

    def __init__(self, wall: float) -> None:
        super().__init__()
        self.id = "first boot"
        self.wall = wall
        self.elapsed = 50_000

    def time(self) -> int:
        return self.elapsed

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += int(seconds * 1000)

    def clock(self, floor: int = 0, **more: object) -> SourceClock:
        return SourceClock(floor, wall=lambda: self.wall, boot=self, **more)  # type: ignore[arg-type]  # a clock in the place of the system's


def test_time_follows_the_wall_clock_and_a_step_forwards_at_once() -> None:
    machine = Machine(NOW)
    clock = machine.clock()
    assert clock.now() == NOW * 1000
    machine.run(1.5)
    assert clock.now() == (NOW + 1.5) * 1000
    machine.wall += HOUR
    assert clock.now() == (NOW + 1.5 + HOUR) * 1000
    assert clock.is_right


def test_small_differences_are_followed_slowly_in_both_directions() -> None:
    for difference in (0.4, -0.4):
        machine = Machine(NOW)
        clock = machine.clock()
        clock.now()
        machine.wall += difference
        machine.run(1)
        assert clock.now() == (NOW + 1) * 1000 + (50 if difference > 0 else -50)
        assert clock.is_right
        for _ in range(10):
            machine.run(1)
            clock.now()
        assert abs(clock.now() - machine.wall * 1000) < 1


def test_after_a_step_back_time_goes_on_at_half_speed_and_says_so() -> None:
    machine = Machine(NOW)
    clock = machine.clock()
    last = clock.now()
    machine.wall -= 10
    for _ in range(18):
        machine.run(1)
        now = clock.now()
        assert now == last + 500
        assert not clock.is_right
        last = now
    machine.run(1)
    clock.now()
    assert clock.is_right
    # Nor does it fall behind when it is not asked for long.
    machine.wall -= 10
    machine.run(1)
    before = clock.now()
    machine.run(60)
    assert before < clock.now() == machine.wall * 1000


def test_a_meter_never_gets_the_same_time_twice() -> None:
    machine = Machine(NOW)
    now = int(NOW * 1000)
    stamp = Stamper(machine.clock(), now + 4)
    assert [stamp() for _ in range(3)] == [now + 5, now + 6, now + 7]


def test_whether_this_machine_is_synchronised_can_be_asked() -> None:
    assert synchronised() in (True, False)


def test_a_kernel_that_may_not_be_asked_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def refuse() -> bool:
        raise PermissionError(1, "Operation not permitted")

    told = tmp_path / "synchronized"
    monkeypatch.setattr("energy_collector.clock.SYNCHRONISED", told)
    monkeypatch.setattr("energy_collector.clock.kernel_synchronised", refuse)
    with caplog.at_level("WARNING", logger="energy"):
        assert [synchronised() for _ in range(3)] == [False] * 3
    (line,) = caplog.messages
    assert "Operation not permitted" in line
    assert "ProtectClock" in line
    told.touch()
    assert synchronised()


class Site:
    """A polling and a delivering service on one machine, without their buses and their hub."""

    def __init__(
        self, folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, **rules: object
    ) -> None:
        self.folder = folder
        self.machine = machine
        self.rules = rules
        monkeypatch.setattr("energy_collector.storage.buffer.Boot", lambda: machine)
        self.taken: dict[float, float] = {}
        self.start()

    def start(self) -> None:
        """Start the polling service; its writer has no thread, so that commits fall where the test wants them."""
        path = self.folder / "buffer.db"
        self.writer = Writer(BufferConfig(path, pending=self.folder / "pending"), Faults())
        self.writer._open_buffer()
        self.clock = self.machine.clock(self.writer.newest, settled=self.writer.settled, **self.rules)
        self.writer.follow(self.clock)
        self.stamp = Stamper(self.clock, self.writer.settled)
        self.delivering = Buffer(path)

    def kill(self) -> None:
        self.writer._close_buffer()
        self.delivering.close()

    def reboot(self, wall: float) -> None:
        self.kill()
        (self.folder / "pending").unlink()
        self.machine.id = "second boot"
        self.machine.wall = wall
        self.machine.elapsed = 20_000

    def poll(self, count: int, interval: float = 10.0, *, commit: bool = True) -> None:
        """Take readings whose value is the number of seconds that have truly passed."""
        for _ in range(count):
            self.machine.run(interval)
            self.truth = self.machine.elapsed / 1000
            self.writer.put([Record(LAYOUT, self.stamp(), [self.truth, 1.0])])
            if commit:
                self.writer._commit()

    def sealed(self) -> int:
        """Seal what may be sealed; returns how many readings."""
        count = 0
        while (one := self.delivering.seal("plant-a", vectors.KEY, 10, 10_000, flush=True)) is not None:
            count += one.readings
        return count

    def readings(self) -> list[Reading]:
        """Everything of one point, in the order in which it is or would be sealed."""
        self.writer._commit()
        return [one for _, one in self.delivering.export() if one.point == "m/a"]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    def site(machine: Machine, **rules: object) -> Site:
        return Site(tmp_path, machine, monkeypatch, **rules)

    return site


def ascend(found: list[Reading]) -> bool:
    return all(one.time < later.time for one, later in pairwise(found))


def test_booted_in_1970_readings_move_to_the_right_time_when_it_is_known(make: Callable[..., Site]) -> None:
    site = make(Machine(NOW))
    site.poll(3)
    site.reboot(12.0)
    site.start()
    site.poll(5)
    # Two that are in memory only, when the time server answers.
    site.poll(2, commit=False)
    assert not site.clock.is_right
    assert site.sealed() == 3 * 2, "what was taken while the clock is wrong waits"
    provisional = site.readings()[3:]
    assert ascend(site.readings())
    site.machine.wall = NOW + 1000 - 1
    site.poll(1, 1)
    assert site.clock.is_right
    found = site.readings()
    assert [one.value for one in found[3:]] == [30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 91.0]
    assert [one.time for one in found[3:]] == [
        int((NOW + 1000 - 91 + value) * 1000) for value in (30, 40, 50, 60, 70, 80, 90, 91)
    ]
    assert [one.quality for one in found] == [0] * 3 + [quality.UNCERTAIN_CLOCK] * 7 + [0]
    assert ascend(found)
    assert {one.time for one in provisional}.isdisjoint(one.time for one in found)
    assert site.sealed() == 8 * 2
    body = batch.decode_body(batch.parse(site.delivering.batches(0, 99)[-1].data).body)
    assert body.site == "plant-a"


def test_a_step_forwards_by_an_hour_neither_reorders_nor_doubles(make: Callable[..., Site]) -> None:
    site = make(Machine(NOW))
    site.poll(3)
    site.machine.wall += HOUR
    site.poll(3)
    found = site.readings()
    assert ascend(found)
    assert [one.quality for one in found] == [0] * 6
    assert site.sealed() == 12


def test_a_step_back_by_an_hour_neither_reorders_nor_doubles_and_is_marked(make: Callable[..., Site]) -> None:
    site = make(Machine(NOW))
    site.poll(3)
    site.machine.wall -= HOUR
    site.poll(3)
    assert site.sealed() > 0, "nothing is held: the time that was used stays"
    site.poll(720)
    site.poll(30)
    found = site.readings()
    assert ascend(found)
    assert [one.quality for one in found[:6]] == [0] * 3 + [quality.UNCERTAIN_CLOCK] * 3
    assert [one.quality for one in found[-25:]] == [0] * 25
    assert found[-1].time == int(site.machine.wall * 1000)


def test_a_step_while_readings_are_held_moves_them_by_the_last_word(make: Callable[..., Site]) -> None:
    machine = Machine(NOW)
    synced = [False]
    site = make(machine, in_sync=lambda: synced[0])
    site.poll(3)
    # Somebody sets the clock by hand, an hour wrong; then the time server says what is right.
    machine.wall += HOUR
    site.poll(3)
    assert site.sealed() == 0
    machine.wall -= HOUR + 600
    synced[0] = True
    site.poll(2)
    found = site.readings()
    assert [one.time for one in found] == [int((NOW - 600 + 10 * n) * 1000) for n in range(1, 9)]
    assert [one.quality for one in found] == [quality.UNCERTAIN_CLOCK] * 6 + [0] * 2
    assert site.sealed() == 16


def test_after_a_reboot_held_readings_keep_their_times_and_are_sealed(make: Callable[..., Site]) -> None:
    site = make(Machine(5.0))
    site.poll(4)
    before = site.readings()
    assert site.sealed() == 0
    site.reboot(NOW)
    site.start()
    assert site.clock.is_right
    site.poll(2)
    assert site.sealed() == 12
    found = site.readings()
    assert found[:4] == before
    assert ascend(found)


def test_held_readings_are_sealed_when_they_have_waited_long_enough(make: Callable[..., Site]) -> None:
    site = make(Machine(5.0), hold=200.0)
    site.poll(30)
    assert site.sealed() == 2 * 10, "those of more than 200 s ago"
    site.machine.wall = NOW
    site.poll(1)
    found = site.readings()
    assert ascend(found)
    assert found[-2].time == int((NOW) * 1000)
    assert found[0].time < BUILT + 100_000
    assert site.sealed() == 21 * 2


def test_killed_while_the_clock_is_wrong_everything_moves_later(make: Callable[..., Site]) -> None:
    site = make(Machine(5.0))
    site.poll(2)
    site.poll(2, commit=False)
    site.kill()
    site.start()
    site.poll(2)
    assert ascend(site.readings())
    site.machine.wall = NOW
    # Killed again before the first poll with the right time.
    site.kill()
    site.start()
    site.poll(2)
    found = site.readings()
    assert [one.time for one in found] == [int((NOW - 60 + 10 * n) * 1000) for n in range(1, 9)]
    assert [one.quality for one in found] == [quality.UNCERTAIN_CLOCK] * 6 + [0] * 2
    assert site.sealed() == 16


def test_right_times_that_would_not_ascend_are_refused(make: Callable[..., Site]) -> None:
    machine = Machine(NOW)
    synced = [True]
    site = make(machine, in_sync=lambda: synced[0])
    site.poll(3)
    synced[0] = False
    site.poll(3)
    # The right time lies before what was used when the clock was believed.
    machine.wall -= HOUR
    synced[0] = True
    site.poll(3)
    found = site.readings()
    assert ascend(found)
    assert [one.quality for one in found] == [0] * 3 + [quality.UNCERTAIN_CLOCK] * 6
    assert site.sealed() == 18

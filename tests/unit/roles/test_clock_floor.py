"""The floor of a clock without a battery, with a clock of the test's own: this one may not be set."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[3] / "roles/network/files/energy-clock-floor.py"
SAVED = 1_800_000_000.0


class Clock:
    """A clock that can be read and set."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.refuses = False

    def time(self) -> float:
        return self.now

    def clock_settime(self, _clock: int, moment: float) -> None:
        if self.refuses:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self.now = moment


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("energy_clock_floor", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the program as at boot: `start(now, floor=…, certificate=…)` with the time stamps of files."""

    def run(now: float, *, refuses: bool = False, own: float = 0.0, **stamps: float) -> tuple[int, float]:
        clock = Clock(now)
        clock.refuses = refuses
        monkeypatch.setattr(program.time, "time", clock.time)
        monkeypatch.setattr(program.time, "clock_settime", clock.clock_settime)
        for name, stamp in {**stamps, "program": own}.items():
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (stamp, stamp))
        files = [str(tmp_path / name) for name in ("floor", "certificate", "buffer")]
        return program.main(files, tmp_path / "program"), clock.now

    return run


def test_a_clock_that_starts_in_1970_is_set_to_the_last_known_time(start: Any) -> None:
    assert start(3.0, floor=SAVED) == (0, SAVED)


def test_the_newest_of_all_time_stamps_counts(start: Any) -> None:
    assert start(3.0, floor=SAVED, certificate=SAVED + 60, buffer=SAVED + 5) == (0, SAVED + 60)
    assert start(3.0, floor=SAVED, buffer=SAVED + 90) == (0, SAVED + 90)


def test_a_clock_that_is_not_behind_is_left_alone(start: Any) -> None:
    assert start(SAVED + 0.5, floor=SAVED) == (0, SAVED + 0.5)
    assert start(SAVED, floor=SAVED) == (0, SAVED)


def test_before_anything_was_written_the_program_itself_is_the_floor(start: Any) -> None:
    assert start(3.0, own=SAVED) == (0, SAVED)


def test_a_clock_that_cannot_be_set_is_a_failure(start: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(3.0, refuses=True, floor=SAVED) == (1, 3.0)
    assert "cannot be set: Operation not permitted" in capsys.readouterr().err


def test_it_says_what_it_did_and_by_which_file(start: Any, capsys: pytest.CaptureFixture[str]) -> None:
    start(0.0, floor=SAVED)
    said = capsys.readouterr().out
    assert "The clock read 1970-01-01 00:00:00 UTC; set to 2027-01-15 08:00:00 UTC" in said
    assert said.rstrip().endswith("/floor.")


def test_a_file_that_cannot_be_looked_at_is_told(
    start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "floor").symlink_to("floor")
    assert start(3.0, certificate=SAVED) == (0, SAVED)
    assert "Too many levels of symbolic links" in capsys.readouterr().err

# SPDX-License-Identifier: Apache-2.0
"""The controller is killed at every single write of a rollout, before it and after it: the end is always the same."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from wattfleet.rollout import operations
from wattfleet.rollout.engine import Command, Rollout
from wattfleet.rollout.folder import Folder
from wattfleet.rollout.ledger import Ledger, LedgerError
from wattfleet.rollout.run import drive

from .simulated import INSTALL, REBOOT, Behaviour, Gateway, SimulatedFleet
from .support import NAME, START, TURN, fleet_of, planned, run, some

BEHAVIOURS = {"s0004": Behaviour.FAILS}


class Crash(Exception):  # noqa: N818  (no error)
    """Stands for the end of the process."""


# ms from the end of a driver to the next one: at once; after a gateway has restarted; and after every deadline.
PAUSES = (0, INSTALL + REBOOT, 1_000_000)


def rollout_with_a_crash(folder: Path, at: int, pause: int = 0) -> tuple[Ledger, SimulatedFleet, int]:
    """Run to the end, with the process ending at the `at`-th moment around a write; how many there were."""
    sites = some(7)
    fleet = fleet_of(sites, BEHAVIOURS)
    moments = 0

    def observe(_when: str) -> None:
        nonlocal moments
        moments += 1
        if moments == at:
            raise Crash

    planned(Ledger(folder / "ledger.db"), sites)
    with contextlib.suppress(Crash):
        run(Ledger(folder / "ledger.db", observe), fleet)
    fleet.now += pause
    ledger = Ledger(folder / "ledger.db")
    run(ledger, fleet)
    return ledger, fleet, moments


def end(ledger: Ledger, fleet: SimulatedFleet) -> tuple[dict[str, str], dict[str, list[tuple[int, str]]]]:
    records = ledger.sites("r1")
    return (
        {name: record.state for name, record in records.items()} | {"": ledger.rollout("r1").state},
        {name: gateway.flashed for name, gateway in fleet.gateways.items()},
    )


@pytest.mark.parametrize("pause", PAUSES)
def test_a_crash_at_any_write_changes_nothing_in_the_end(tmp_path: Path, pause: int) -> None:
    ledger, fleet, moments = rollout_with_a_crash(tmp_path / "whole", -1)
    whole = end(ledger, fleet)
    assert all(len(flashes) <= 1 for flashes in whole[1].values())
    assert moments > 40
    for at in range(1, moments + 1):
        folder = tmp_path / str(at)
        ledger, fleet, _ = rollout_with_a_crash(folder, at, pause)
        assert end(ledger, fleet) == whole, f"killed at moment {at}"
        assert ledger.verify() == []
        ledger.close()
        shutil.rmtree(folder)


class DiskFleet(SimulatedFleet):
    """Gateways that outlive whoever drives them: what each knows is on its disk. `act` is called around acting."""

    def __init__(self, disk: Path, gateways: dict[str, Gateway], act: Callable[[str], None]) -> None:
        super().__init__(gateways)
        self._disk = disk
        self._act = act
        if disk.exists():
            self.gateways, self.now = pickle.loads(disk.read_bytes())
        self._number = 0

    def carry_out(self, rollout: Rollout, wanted: Iterable[Command]) -> None:
        # Only what follows a write is a moment of its own: idle turns ask for the same again.
        is_new, self._number = rollout.number != self._number, rollout.number
        if is_new:
            self._act("acting")
        super().carry_out(rollout, wanted)
        self._keep()
        if is_new:
            self._act("acted")

    def wait(self, seconds: float) -> None:
        self.now += TURN
        self._keep()

    def close(self) -> None:
        pass

    def _keep(self) -> None:
        new = self._disk.with_suffix(".new")
        new.write_bytes(pickle.dumps((self.gateways, self.now)))
        new.replace(self._disk)


def drive_until_killed(folder: Folder, at: int) -> int:
    """The command's own driver, killed by SIGKILL at the `at`-th moment; how many there were."""
    moments = 0

    def moment(_when: str) -> None:
        nonlocal moments
        moments += 1
        if moments == at:
            os.kill(os.getpid(), signal.SIGKILL)

    fleet = DiskFleet(folder.path / "gateways", fleet_of(some(5), BEHAVIOURS).gateways, moment)
    fleet.now = fleet.now or START
    ledger = Ledger(folder.ledger_file, moment)
    drive(folder, ledger, NAME, fleet, "test", lambda _: None, now=lambda: fleet.now)
    ledger.close()
    return moments


def outcome(folder: Folder) -> tuple[dict[str, str], dict[str, list[tuple[int, str]]]]:
    ledger = Ledger(folder.ledger_file)
    assert ledger.verify() == []
    fleet = DiskFleet(folder.path / "gateways", {}, lambda _: None)
    found = end(ledger, fleet)
    ledger.close()
    return found


@pytest.mark.timeout(900)
def test_kill_9_at_every_moment_of_the_commands_driver(tmp_path: Path) -> None:
    """Before a commit, after it, before acting on it and after that: a process that is gone, and one that goes on.

    The lock is the kernel's, so the next driver is let in at once.
    """
    with tempfile.TemporaryDirectory(
        dir="/dev/shm"
    ) as name:  # SIGKILL leaves what the kernel has; no power is cut
        top = Path(name)

        def prepared(part: str) -> Folder:
            folder = Folder(top / part)
            folder.make()
            planned(Ledger(folder.ledger_file), some(5))
            return folder

        whole = prepared("whole")
        moments = drive_until_killed(whole, -1)
        expected = outcome(whole)
        assert moments > 80
        assert all(len(flashes) <= 1 for flashes in expected[1].values())
        for at in range(1, moments + 1):
            folder = prepared(str(at))
            child = os.fork()
            if child == 0:
                try:
                    drive_until_killed(folder, at)
                finally:
                    os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), f"moment {at} never came"
            assert os.WTERMSIG(status) == signal.SIGKILL
            drive_until_killed(folder, -1)
            assert outcome(folder) == expected, f"killed at moment {at}"


def test_two_controllers_do_not_write_over_each_other(tmp_path: Path) -> None:
    sites = some(3)
    first, second = Ledger(tmp_path / "ledger.db"), Ledger(tmp_path / "ledger.db")
    planned(first, sites)
    seen = operations.load(second, "r1")
    first.write(operations.pause(operations.load(first, "r1")), at=1, who="ann")
    with pytest.raises(LedgerError, match="another controller"):
        second.write(operations.pause(seen), at=2, who="ben")
    assert second.verify() == []

# SPDX-License-Identifier: Apache-2.0
"""The controller is killed at every single write of a rollout, before it and after it: the end is always the same."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from wattfleet.rollout import operations
from wattfleet.rollout.ledger import Ledger, LedgerError

from .killed_controller import KILLED
from .simulated import Behaviour, SimulatedFleet
from .support import fleet_of, planned, run, some

BEHAVIOURS = {"s0004": Behaviour.FAILS}


class Crash(Exception):  # noqa: N818  (no error)
    """Stands for the end of the process."""


def rollout_with_a_crash(folder: Path, at: int) -> tuple[Ledger, SimulatedFleet, int]:
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
    ledger = Ledger(folder / "ledger.db")
    run(ledger, fleet)
    return ledger, fleet, moments


def end(ledger: Ledger, fleet: SimulatedFleet) -> tuple[dict[str, str], dict[str, list[tuple[int, str]]]]:
    records = ledger.sites("r1")
    return (
        {name: record.state for name, record in records.items()} | {"": ledger.rollout("r1").state},
        {name: gateway.flashed for name, gateway in fleet.gateways.items()},
    )


def test_a_crash_at_any_write_changes_nothing_in_the_end(tmp_path: Path) -> None:
    ledger, fleet, moments = rollout_with_a_crash(tmp_path / "whole", -1)
    whole = end(ledger, fleet)
    assert all(len(flashes) <= 1 for flashes in whole[1].values())
    assert moments > 40
    for at in range(1, moments + 1):
        folder = tmp_path / str(at)
        ledger, fleet, _ = rollout_with_a_crash(folder, at)
        assert end(ledger, fleet) == whole, f"killed at moment {at}"
        assert ledger.verify() == []
        ledger.close()
        shutil.rmtree(folder)


def test_kill_9_leaves_a_ledger_that_goes_on(tmp_path: Path) -> None:
    """The same with a process of its own, which is really gone: nothing of it is closed or rolled back."""
    planned(Ledger(tmp_path / "ledger.db"), some(4))
    for at in (1, 2, 3, 4):
        command = [
            sys.executable,
            "-m",
            f"{__package__}.killed_controller",
            str(tmp_path / "ledger.db"),
            str(at),
        ]
        assert subprocess.run(command, check=False).returncode == KILLED
        assert Ledger(tmp_path / "ledger.db").verify() == []


def test_two_controllers_do_not_write_over_each_other(tmp_path: Path) -> None:
    sites = some(3)
    first, second = Ledger(tmp_path / "ledger.db"), Ledger(tmp_path / "ledger.db")
    planned(first, sites)
    seen = operations.load(second, "r1")
    first.write(operations.pause(operations.load(first, "r1")), at=1, who="ann")
    with pytest.raises(LedgerError, match="another controller"):
        second.write(operations.pause(seen), at=2, who="ben")
    assert second.verify() == []

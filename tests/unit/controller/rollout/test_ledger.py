# SPDX-License-Identifier: Apache-2.0
"""The ledger: what was written cannot be changed unnoticed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from wattfleet.rollout.ledger import Ledger, LedgerError, Step

from .support import NAME, fleet_of, planned, run, some


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with a whole rollout in it."""
    ledger = Ledger(tmp_path / "ledger.db")
    sites = some(4)
    planned(ledger, sites)
    run(ledger, fleet_of(sites))
    assert ledger.verify() == []
    ledger.close()
    return tmp_path / "ledger.db"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE entry SET why = 'it was me' WHERE number = 9", "entry 9 is not what was written"),
        ("UPDATE entry SET at = at - 60000 WHERE number = 12", "entry 12 is not what was written"),
        ("DELETE FROM entry WHERE number = 7", "entries 7 to 7 are missing"),
        ("DELETE FROM entry WHERE number > 20", "the record of s0001 is not what its entries add up to"),
        ("UPDATE site SET state = 'ok' WHERE site = 's0002' AND rollout = 'r1'", None),
        ("UPDATE site SET state = 'failed' WHERE site = 's0002'", "the record of s0002"),
        ("DELETE FROM site WHERE site = 's0003'", "the record of s0003"),
    ],
)
def test_a_change_shows(path: Path, change: str, said: str | None) -> None:
    with sqlite3.connect(path) as database:
        database.execute(change)
    faults = "\n".join(Ledger(path).verify())
    assert (said in faults) if said else not faults


def test_entries_that_change_places_show(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE entry SET number = -8 WHERE number = 8")
        database.execute("UPDATE entry SET number = 8 WHERE number = 9")
        database.execute("UPDATE entry SET number = 9 WHERE number = -8")
    assert "entry 8 is not what was written" in "\n".join(Ledger(path).verify())


def test_a_cut_tail_shows_against_a_head_that_was_kept(path: Path) -> None:
    ledger = Ledger(path)
    head = ledger.head()
    assert ledger.verify(head) == []
    ledger.close()
    with sqlite3.connect(path) as database:
        # A thief who also repairs the records leaves nothing else to see.
        database.execute("DELETE FROM entry")
        database.execute("DELETE FROM site")
        database.execute("DELETE FROM rollout")
    assert Ledger(path).verify() == []
    assert "the ledger ends before entry" in "\n".join(Ledger(path).verify(head))


def test_a_step_that_does_not_exist_is_refused(path: Path) -> None:
    ledger = Ledger(path)
    with pytest.raises(LedgerError, match="cannot go from 'ok' to 'installing'"):
        ledger.write([Step(NAME, "s0001", "ok", "installing", "why not")], at=0, who="test")


def test_all_steps_of_a_write_or_none(path: Path) -> None:
    ledger = Ledger(path)
    head = ledger.head()
    good = Step(NAME, "s0001", "ok", "due", "again")
    stale = Step(NAME, "s0002", "failed", "due", "again")
    with pytest.raises(LedgerError, match="is 'ok' in the ledger, not 'failed'"):
        ledger.write([good, stale], at=0, who="test")
    assert ledger.head() == head
    assert ledger.sites(NAME)["s0001"].state == "ok"


def test_a_rollout_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no rollout 'r9' in .*; there are: r1"):
        Ledger(path).rollout("r9")

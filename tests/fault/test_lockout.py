# SPDX-License-Identifier: Apache-2.0
"""Nobody is locked out: every kind of change once, each with a death, and confirmations that must not count. And a
round without the guard's timer, which has to be seen as a site that is lost.

`python tests/fault/run.py lockout` runs the campaign at full size, with `--control` its negative controls.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fault.lockout import abuse, campaign, controls, judge, plan
from tests.fault.lockout.abuse import Abuse
from tests.fault.lockout.host import LabHost
from tests.fault.lockout.site import Site
from tests.fault.lockout.trial import Trial

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab's hosts need root"),
]

WRONG_NONCE = "0" * 64
# s that the site of the control is watched beyond its deadline; the campaign takes a minute.
LAST_CHANCE = 10.0


def test_nobody_is_locked_out() -> None:
    seed = campaign.new_seed()
    report = campaign.Campaign(lab="lockout-quick").run(plan.one_of_each(seed), "lockout-quick", seed)
    report.write()
    print(report.summary())
    assert report.passed, report.summary()


@dataclass
class Prepared:
    """A host in a lab of its own, and where its plays are kept."""

    host: LabHost
    site: Site
    folder: Path


@pytest.fixture(scope="module")
def prepared() -> Iterator[Prepared]:
    one = campaign.Campaign(1, lab="lockout-abuse")
    with one.lab_up():
        yield Prepared(*one.new_site(1), one.folder)


@pytest.fixture(scope="module")
def waiting(prepared: Prepared) -> Abuse:
    return Abuse(prepared.host, prepared.folder)


def test_confirmations_without_the_nonce_or_too_late_change_nothing(waiting: Abuse) -> None:
    before = waiting.host.look()
    nonce = waiting.begin()
    applied = waiting.host.look()
    for options, refusal in (({}, "no_nonce"), ({"nonce": WRONG_NONCE}, "wrong_nonce")):
        answer = waiting.confirm(**options)
        assert not answer["ok"]
        assert answer["refusal"] == refusal, answer
        code, words = abuse.program(waiting.host, options.get("nonce", ""))
        assert code == 1
        assert "nonce" in words
        assert waiting.view.pending
        assert not judge.differences(applied, waiting.host.look())
    waiting.undone(before)
    answer = waiting.confirm(nonce=nonce)
    assert not answer["ok"]
    assert answer["refusal"] == "late", answer
    assert answer["outcome"] == "undone"
    assert not judge.differences(before, waiting.host.look())


def test_a_second_confirmation_changes_nothing(waiting: Abuse) -> None:
    nonce = waiting.begin()
    # Whoever has the nonce may confirm over a new connection, whoever they are.
    assert waiting.confirm(nonce=nonce)["outcome"] == "confirmed"
    kept, settled = waiting.host.look(), waiting.view.settled()
    answer = waiting.confirm(nonce=nonce)
    assert not answer["ok"]
    assert answer["refusal"] == "twice", answer
    assert not judge.differences(kept, waiting.host.look())
    assert waiting.view.settled() == settled


def test_a_confirmation_of_nothing_says_so(waiting: Abuse) -> None:
    before = waiting.host.look()
    answer = waiting.confirm(nonce=WRONG_NONCE)
    assert answer["refusal"] == "nothing", answer
    assert not judge.differences(before, waiting.host.look())


def test_a_site_whose_timer_never_fires_is_lost(prepared: Prepared) -> None:
    """Else the campaign would be green whatever the guard does."""
    seed = campaign.new_seed()
    planned = random.Random(seed).choice(controls.rounds("timer", seed))
    host = prepared.host
    before = host.look()
    folder = prepared.folder / "without-timer"
    trial = Trial(host, prepared.site, planned, campaign.WAIT, folder, last_chance=LAST_CHANCE)
    outcome = trial.run()
    assert outcome.armed, outcome
    assert outcome.failure == "lost", outcome
    # All but the timer was there.
    assert controls.recover(host), outcome
    assert not judge.differences(before, host.look())

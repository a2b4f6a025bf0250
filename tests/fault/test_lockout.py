# SPDX-License-Identifier: Apache-2.0
"""Nobody is locked out: every kind of change once, each with a death, and confirmations that must not count.

`python tests/fault/run.py lockout` runs the campaign at full size, and its negative control.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.fault.lockout import abuse, campaign, judge, plan
from tests.fault.lockout.abuse import Abuse

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab's hosts need root"),
]

WRONG_NONCE = "0" * 64


def test_nobody_is_locked_out() -> None:
    seed = campaign.new_seed()
    report = campaign.Campaign(lab="lockout-quick").run(plan.one_of_each(seed), "lockout-quick", seed)
    report.write()
    print(report.summary())
    assert report.passed, report.summary()


@pytest.fixture(scope="module")
def waiting() -> Iterator[Abuse]:
    """A host on which the guard is installed."""
    one = campaign.Campaign(1, lab="lockout-abuse")
    with one.lab_up():
        host, _ = one.new_site(1)
        yield Abuse(host, one.folder)


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

# SPDX-License-Identifier: Apache-2.0
"""The controller's side of a guarded change: how long it waits, and what it says of a module that does not answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _guarded

ROOT = Path(__file__).parents[3]
Answer = dict[str, Any]
NOTHING: Answer = {"failed": True, "refusal": "nothing", "msg": "no change waits for a confirmation"}


class Clock:
    """Seconds that pass only when somebody lets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Action(_guarded.GuardedAction):  # type: ignore[misc]  # Ansible has no types
    """With a host in its place: a new connection to it takes `takes` seconds, `begins` and `confirms` are what it
    answers."""

    def __init__(
        self, clock: Clock, takes: float, begins: Callable[[], Answer], confirms: Callable[[], Answer]
    ) -> None:
        self.clock, self.takes, self.begins, self.confirms = clock, takes, begins, confirms
        self._task = SimpleNamespace(args={})
        self._connection = SimpleNamespace(transport="local")

    def _execute_module(
        self,
        module_name: str | None = None,
        module_args: dict[str, Any] | None = None,
        task_vars: dict[str, Any] | None = None,
    ) -> Answer:
        assert module_args is not None
        if module_name is None:
            if module_args["guard"]["phase"] == "compare":
                return {"changed": True, "guard": {"needed": True}}
            self.waits = module_args["guard"]["wait"]
            return self.begins()
        self.clock.sleep(self.takes)
        return {} if module_args["state"] == "status" else self.confirms()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_guarded, "time", clock)
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    return clock


def lost() -> Answer:
    raise AnsibleConnectionFailure("the session is gone")


def crashed() -> Answer:
    """As ansible-core 2.19 and newer tell it."""
    event = SimpleNamespace(msg="[Errno 28] No space left on device: '/var/lib/energy-guard'")
    return {"failed": True, "exception": SimpleNamespace(event=event), "warnings": []}


def crashed_before() -> Answer:
    return {
        "failed": True,
        "msg": "MODULE FAILURE",
        "module_stdout": "",
        "module_stderr": "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device\n",
    }


def applied() -> Answer:
    return {"changed": True, "guard": {"phase": "applied"}}


def confirmed() -> Answer:
    return {"changed": True, "outcome": "confirmed"}


@pytest.mark.parametrize(("takes", "wait"), [(0.3, 60.0), (20.0, 60.0), (40.0, 120.0)])
def test_the_wait_is_three_times_a_new_connection_and_a_minute_at_least(
    clock: Clock, takes: float, wait: float
) -> None:
    action = Action(clock, takes, applied, confirmed)
    result = action.run(task_vars={})
    assert (result["changed"], result["guard"]["outcome"], action.waits) == (True, "confirmed", wait)


@pytest.mark.parametrize(
    ("begins", "confirms", "what"),
    [
        ({"subject": "firewall"}, {}, "the change of firewall was"),
        ({}, {"subject": "firewall"}, "the change of firewall was"),
        ({}, {}, "the change was"),  # one that was confirmed already when it was asked for again
    ],
)
def test_a_change_that_was_confirmed_is_told_in_one_line(
    clock: Clock, begins: Answer, confirms: Answer, what: str
) -> None:
    action = Action(
        clock,
        30.0,
        lambda: {"changed": True, "guard": {"phase": "applied", **begins}},
        lambda: {**confirmed(), **confirms},
    )
    result = action.run(task_vars={"inventory_hostname": "lab-01"})
    assert result["msg"] == (
        f"lab-01: {what} applied, and confirmed over a new connection after 30 s. It would have been undone after "
        "90 s; a new connection took 30 s."
    )
    assert "failed" not in result


@pytest.mark.parametrize("begins", [crashed, crashed_before])
def test_a_module_that_has_crashed_is_told_with_its_reason(
    clock: Clock, begins: Callable[[], Answer]
) -> None:
    before = clock.now
    result = Action(clock, 0.3, begins, lambda: NOTHING).run(task_vars={"inventory_hostname": "lab-01"})
    assert result["failed"]
    assert not result["changed"]
    assert result["msg"].startswith(
        "The change of lab-01 was undone, because it was never begun: the module has crashed: "
    )
    assert "[Errno 28] No space left on device" in result["msg"]
    assert "exactly as it was" in result["msg"]
    # It has ended: nothing more comes of it, and nobody waits.
    assert clock.now - before < _guarded.BEGIN


@pytest.mark.parametrize("begins", [crashed, crashed_before])
def test_a_module_that_has_crashed_after_the_beginning_is_asked_after(
    clock: Clock, begins: Callable[[], Answer]
) -> None:
    result = Action(clock, 0.3, begins, confirmed).run(task_vars={})
    assert result["guard"]["outcome"] == "confirmed"


def test_a_module_that_has_refused_says_why_and_nothing_is_asked(clock: Clock) -> None:
    action = Action(clock, 0.3, lambda: {"failed": True, "msg": "sshd refuses what is wanted"}, lost)
    result = action.run(task_vars={})
    assert (result["failed"], result["changed"], result["msg"]) == (
        True,
        False,
        "sshd refuses what is wanted",
    )


def test_a_slow_link_is_given_the_time_that_it_takes_to_begin(clock: Clock) -> None:
    """The session is cut while the module is on its way, and begins a minute later."""
    begun = clock.now + 40 + 60

    def confirms() -> Answer:
        return confirmed() if clock.now >= begun else NOTHING

    result = Action(clock, 40.0, lost, confirms).run(task_vars={})
    assert result["guard"]["outcome"] == "confirmed"


def test_what_was_never_begun_is_told_after_a_while(clock: Clock) -> None:
    before = clock.now
    result = Action(clock, 0.3, lost, lambda: NOTHING).run(task_vars={})
    assert result["guard"]["reason"] == "it was never begun"
    assert _guarded.BEGIN < clock.now - before < 60


def test_a_host_that_stays_away_is_not_known(clock: Clock) -> None:
    result = Action(clock, 0.3, lost, lost).run(task_vars={"inventory_hostname": "lab-01"})
    assert (result["failed"], result["guard"]["outcome"]) == (True, "unknown")
    assert "lab-01 has not answered over a new connection" in result["msg"]


def test_a_host_that_answers_and_is_still_undoing_is_not_told_as_one_that_is_silent(clock: Clock) -> None:
    late = {"failed": True, "refusal": "late", "phase": "restoring", "msg": "too late: it is being undone"}
    result = Action(clock, 0.3, lost, lambda: late).run(task_vars={"inventory_hostname": "lab-01"})
    assert (result["failed"], result["guard"]["outcome"]) == (True, "unknown")
    assert "It answers: too late: it is being undone. It goes on by itself" in result["msg"]


@pytest.mark.parametrize("confirms", [lambda: NOTHING, lost])
def test_what_was_not_kept_names_the_page_for_it(clock: Clock, confirms: Callable[[], Answer]) -> None:
    result = Action(clock, 0.3, lost, confirms).run(task_vars={})
    page = re.search(r"docs/\S+\.md", result["msg"])
    assert page is not None
    assert (ROOT / page[0]).is_file()

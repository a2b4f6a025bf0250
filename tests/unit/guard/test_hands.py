# SPDX-License-Identifier: Apache-2.0
"""Live state is set and compared by units of their own: without their answers nothing has been done."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import engine, hands, install, sysctls
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.errors import GuardError, StepError
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Done
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.store import Store

from .conftest import FakeHost, tree

NONCE = "n" * 64
DIGEST = hashlib.sha256(NONCE.encode()).hexdigest()
# What each hand has here, and what of it is wanted.
SETTINGS = {"network": "net.ipv4.ip_forward", "kernel": "vm.swappiness", "bpf": "net.core.bpf_jit_harden"}
OLD, NEW = ["0", "0", "0", "old"], ["1", "1", "1", "new"]


@pytest.fixture
def settings(host: FakeHost) -> FakeHost:
    for name in SETTINGS.values():
        path = sysctls.path_of(host, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("0\n")
    return host


def begin(host: FakeHost, **more: Any) -> None:
    change = Change(
        subject="test",
        files=[{"path": "/etc/issue", "content": "new\n"}],
        sysctls=dict.fromkeys(SETTINGS.values(), "1"),
        **more,
    )
    engine.begin(host, change, DIGEST, 60)


def values(host: FakeHost) -> list[str]:
    """What there is of each hand, and of the file."""
    paths = [*(sysctls.path_of(host, name) for name in SETTINGS.values()), host.at("/etc/issue")]
    return [path.read_text().strip() for path in paths]


def test_each_hand_sets_and_puts_back_its_own(settings: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    for verb, work in hands.DO.items():

        def noted(host: Any, store: Any, name: str, verb: str = verb, work: Any = work, **more: Any) -> Any:
            done.append((name, verb))
            return work(host, store, name, **more)

        monkeypatch.setitem(hands.DO, verb, noted)
    begin(settings, apply=[["ip", "link"], ["systemctl", "reload", "ssh.service"]])
    assert engine.apply(settings) == 0, settings.said
    assert values(settings) == NEW
    assert sorted(done) == [*((name, "set") for name in sorted(SETTINGS)), ("network", "step")]
    assert settings.ran.count(["ip", "link"]) == 1
    done.clear()
    assert engine.restore(settings) == 0, settings.said
    assert values(settings) == OLD
    assert done == [(name, verb) for verb in ("put back", "differences") for name in SETTINGS]


def test_what_needs_no_hand_has_none_started(host: FakeHost) -> None:
    engine.begin(host, Change(subject="test", files=[{"path": "/etc/issue", "content": "new\n"}]), DIGEST, 60)
    host.lame = set(hands.UNITS)
    assert engine.apply(host) == 0
    assert engine.restore(host) == 0
    assert not any("restart" in words for words in host.ran)


@pytest.mark.parametrize("name", list(hands.UNITS))
def test_a_hand_that_does_not_start_fails_the_change(settings: FakeHost, name: str) -> None:
    begin(settings)
    settings.lame = {name}
    assert engine.apply(settings) == 1
    assert Store(settings).phase()["step"] == hands.UNITS[name]
    assert "does not start" in Store(settings).phase()["words"]


@pytest.mark.parametrize("name", list(hands.UNITS))
def test_without_a_comparison_nothing_is_as_it_was(settings: FakeHost, name: str) -> None:
    begin(settings)
    assert engine.apply(settings) == 0
    settings.lame = {name}
    assert engine.restore(settings) == 1
    assert f"not compared: {hands.UNITS[name]}: " in settings.said[-1]
    # What could be put back has been.
    assert values(settings) == [*("1" if name == other else "0" for other in SETTINGS), "old"]
    assert Store(settings).pending.exists()
    assert not settings.at(hands.COMPARED).exists()
    settings.lame = set()
    assert engine.restore(settings) == 0
    assert values(settings) == OLD


def test_a_hand_that_dies_has_compared_nothing(settings: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(settings)
    assert engine.apply(settings) == 0

    def die(*_words: Any, **_more: Any) -> None:
        raise SystemExit

    monkeypatch.setitem(hands.DO, "differences", die)
    assert engine.restore(settings) == 1
    assert "it ended before it had answered" in settings.said[-1]
    assert Store(settings).pending.exists()


def test_a_hand_that_hangs_is_not_waited_for_again(
    settings: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(settings)
    assert engine.apply(settings) == 0

    def late(*_words: Any, **_more: Any) -> list[str]:
        time.sleep(0.5)
        return []

    monkeypatch.setitem(hands.DO, "put back", late)
    with hands.Hands(settings, ["network"]) as live:
        with pytest.raises(StepError, match="timed out"):
            live.ask("network", "put back", timeout=0.1)
        # Its late answer is none to another question.
        with pytest.raises(StepError, match="put back: timed out"):
            live.ask("network", "differences", kept="")


def test_what_a_hand_cannot_do_is_told_in_its_words(settings: FakeHost) -> None:
    begin(settings, apply=[["nft", "-f", "x"]])
    settings.refuse = {"nft": Done([], 1, "", "nonsense\n")}
    assert engine.apply(settings) == 1
    assert "failed at nft -f x: nonsense" in settings.said[-1]
    settings.refuse = {}
    assert engine.restore(settings) == 0


def test_who_restores_at_the_console_needs_no_hands(settings: FakeHost) -> None:
    begin(settings)
    assert engine.apply(settings) == 0
    settings.lame = set(hands.UNITS)
    assert engine.restore(settings, now=True) == 0
    assert values(settings) == OLD


def test_what_cannot_be_started_is_found_before_anything_is_changed(settings: FakeHost) -> None:
    before = tree(settings.root)
    settings.refuse = {"systemctl start -- energy-guard": Done([], 1, "", "Job for it failed")}
    with pytest.raises(GuardError, match="nothing is changed: Job for it failed"):
        begin(settings)
    assert (tree(settings.root), settings.timer) == (before, None)
    assert not Store(settings).new.exists()


def test_started_with_nothing_to_do_they_do_nothing(host: FakeHost) -> None:
    before = tree(host.root)
    assert engine.apply(host) == 0
    assert [hands.serve(host, name) for name in hands.UNITS] == [0, 0, 0]
    assert (tree(host.root), host.said) == (before, [])


def test_the_host_is_restarted_only_where_nothing_got_as_far_as_a_comparison(settings: FakeHost) -> None:
    compared = settings.at(hands.COMPARED)
    compared.parent.mkdir()
    compared.touch()
    begin(settings)
    assert not compared.exists()
    last = settings.timer_of(engine.REBOOT)
    assert last is not None
    assert settings.timer is not None
    assert last - settings.timer == pytest.approx(engine.LAST)
    # A hung attempt is killed before.
    assert "TimeoutStartSec=180\n" in install.RESTORE_UNIT
    assert engine.LAST > 180
    assert engine.apply(settings) == 0
    assert engine.restore(settings) == 0
    assert settings.timer_of(engine.REBOOT) is None


def test_an_attempt_that_has_compared_leaves_the_host_running(
    settings: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(settings)
    assert engine.apply(settings) == 0
    monkeypatch.setattr(sysctls, "put_back", lambda *_: None)
    assert engine.restore(settings) == 1
    assert "sysctl vm.swappiness is 1 instead of 0" in settings.said[-1]
    assert settings.at(hands.COMPARED).exists()
    text = install.unit_files()[f"/etc/systemd/system/{engine.REBOOT}"]
    assert f"ConditionPathExists=!{hands.COMPARED}\n" in text
    assert "ConditionPathExists=/var/lib/energy-guard/pending\n" in text


def test_a_confirmed_change_restarts_nothing(settings: FakeHost) -> None:
    begin(settings)
    assert engine.apply(settings) == 0
    engine.confirm(settings, NONCE, None)
    assert settings.timer_of(engine.REBOOT) is None

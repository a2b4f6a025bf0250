# SPDX-License-Identifier: Apache-2.0
"""Which confirmations are followed, and that a refused one changes nothing and says why."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import engine, probes
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.errors import GuardError, RefusedError
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Done
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.store import Store

from .conftest import FakeHost, tree

NONCE = "n" * 64
DIGEST = hashlib.sha256(NONCE.encode()).hexdigest()


def begin(host: FakeHost, *, apply: bool = True, **more: object) -> None:
    change = Change(subject="test", files=[{"path": "/etc/issue", "content": "new\n"}], **more)
    engine.begin(host, change, DIGEST, 60)
    if apply:
        assert engine.apply(host) == 0, host.said


@pytest.fixture
def refused(host: FakeHost) -> Callable[..., RefusedError]:
    def check(nonce: str | None = NONCE, age: float | None = None, *, noted: bool = True) -> RefusedError:
        before, phase = tree(host.root), Store(host).phase()
        with pytest.raises(RefusedError) as refusal:
            engine.confirm(host, nonce, age)
        assert tree(host.root) == before
        if refusal.value.kind != "probe":
            assert Store(host).phase() == phase
        last = (engine.status(host)["history"] or [{}])[-1]
        assert (last.get("kind") == refusal.value.kind) == noted
        assert any(str(refusal.value) in text for text in host.said) == noted
        return refusal.value

    return check


def test_confirmed(host: FakeHost) -> None:
    begin(host)
    assert engine.confirm(host, NONCE, 0.0)["outcome"] == "confirmed"
    assert host.at("/etc/issue").read_text() == "new\n"
    assert host.timer is None
    assert engine.status(host)["phase"] == "none"
    assert engine.status(host)["last"]["outcome"] == "confirmed"


def test_bytes_that_are_no_text_stay_as_they_are(host: FakeHost) -> None:
    """A person has written `café` in Latin-1 into a file that one of ours is added to."""
    content = b"# caf\xe9\nnew\n"
    change = Change(
        subject="test", files=[{"path": "/etc/issue", "content": content.decode(errors="surrogateescape")}]
    )
    assert change.differences(host)
    engine.begin(host, change, DIGEST, 60)
    assert engine.apply(host) == 0, host.said
    engine.confirm(host, NONCE, 0.0)
    assert host.at("/etc/issue").read_bytes() == content
    assert change.differences(host) == []


def test_without_a_nonce(host: FakeHost, refused: Callable[..., RefusedError]) -> None:
    assert refused(None).kind == "no_nonce"
    begin(host)
    assert refused("").kind == "no_nonce"


def test_with_another_nonce(host: FakeHost, refused: Callable[..., RefusedError]) -> None:
    begin(host)
    assert refused("x" * 64).kind == "wrong_nonce"
    assert host.timer is not None


def test_when_nothing_waits(refused: Callable[..., RefusedError]) -> None:
    assert refused().kind == "nothing"


def test_twice(host: FakeHost, refused: Callable[..., RefusedError]) -> None:
    begin(host)
    engine.confirm(host, NONCE, None)
    again = refused()
    assert (again.kind, again.outcome) == ("twice", "confirmed")


def test_after_the_deadline_but_before_the_timer(
    host: FakeHost, refused: Callable[..., RefusedError]
) -> None:
    begin(host)
    host.late = 60.5
    assert refused().kind == "late"
    assert "60 s have passed" in host.said[-1]


def test_after_it_was_undone(host: FakeHost, refused: Callable[..., RefusedError]) -> None:
    begin(host)
    host.late = 60.5
    assert engine.restore(host) == 0
    late = refused()
    assert (late.kind, late.outcome) == ("late", "undone")
    assert "no confirmation came within 60 s" in str(late)


def test_in_another_boot(host: FakeHost, refused: Callable[..., RefusedError]) -> None:
    begin(host)
    host.reboot()
    assert "restarted" in str(refused())


@pytest.mark.parametrize("kind", ["early", "old_connection"])
def test_what_has_to_come_again(host: FakeHost, refused: Callable[..., RefusedError], kind: str) -> None:
    begin(host, apply=kind != "early")
    assert refused(age=100.0, noted=False).kind == kind
    if kind == "early":
        engine.apply(host)
    engine.confirm(host, NONCE, 0.0)


def test_a_probe_that_fails_undoes_at_once(
    host: FakeHost, refused: Callable[..., RefusedError], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, other = {"host": "hub", "port": 8883}, {"host": "other", "port": 1}
    monkeypatch.setattr(probes, "passing", lambda asked: [item for item in asked if item != other])
    begin(host, probes=[hub, other])
    monkeypatch.setattr(probes, "passing", lambda asked: [])
    assert "hub port 8883 answered before the change" in str(refused())
    assert ["systemctl", "start", "--no-block", engine.RESTORE] in host.ran
    assert engine.restore(host) == 0
    assert host.at("/etc/issue").read_text() == "old\n"
    assert "hub port 8883" in engine.status(host)["last"]["reason"]


def test_nothing_is_changed_without_a_timer(host: FakeHost) -> None:
    before = tree(host.root)
    for words, done in (
        ("systemd-run", Done([], 1, "", "no bus")),
        ("systemctl show --property=ActiveState,SubState,Next", Done([], 0, "ActiveState=inactive\n", "")),
        (
            "systemctl show --property=ActiveState,SubState,Next",
            Done([], 0, "ActiveState=active\nSubState=waiting\nNextElapseUSecMonotonic=1y\n", ""),
        ),
    ):
        host.refuse = {words: done}
        with pytest.raises(GuardError, match="changed"):
            begin(host)
        assert tree(host.root) == before
        assert Store(host).change() is None


def test_a_check_that_fails_changes_nothing(host: FakeHost) -> None:
    host.refuse = {"sshd -t": Done([], 255, "", "line 1: Bad configuration option: Nonsense")}
    before = tree(host.root)
    with pytest.raises(
        GuardError, match=r"sshd -t -f \{staged:/etc/issue\} refuses .* Bad configuration option"
    ):
        begin(host, check=[["sshd", "-t", "-f", "{staged:/etc/issue}"]])
    staged = host.ran[-1][-1]
    assert staged.endswith("/issue")
    assert (tree(host.root), host.timer) == (before, None)


def test_a_step_that_fails_is_undone_and_told(host: FakeHost) -> None:
    host.refuse = {"nft": Done([], 1, "", "Error: syntax error")}
    before = tree(host.root)
    files = [{"path": "/etc/issue", "content": "new\n"}]
    engine.begin(host, Change(subject="test", files=files, apply=[["nft", "-f", "x"]]), DIGEST, 60)
    assert engine.apply(host) == 1
    assert engine.status(host)["phase"] == "failed"
    assert engine.restore(host) == 0
    assert tree(host.root) == before
    assert engine.status(host)["last"]["reason"] == "nft -f x failed: Error: syntax error"


def test_a_restore_that_cannot_finish_says_so_and_is_tried_again(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(host)
    real = engine.snapshot.live_differences
    monkeypatch.setattr(engine.snapshot, "live_differences", lambda *_more, **_words: ["eth0 is down"])
    assert engine.restore(host, now=True) == 1
    assert "eth0 is down" in host.said[-1]
    assert engine.status(host)["attempts"] == 1
    monkeypatch.setattr(engine.snapshot, "live_differences", real)
    assert engine.restore(host) == 0
    assert (engine.status(host)["last"]["attempts"], engine.status(host)["last"]["reason"]) == (
        2,
        "it was asked for",
    )


def test_an_application_that_comes_too_late_does_nothing(host: FakeHost) -> None:
    begin(host, apply=False)
    host.late = 61
    before = tree(host.root)
    engine.apply(host)
    assert tree(host.root) == before


def test_only_one_change_at_a_time(host: FakeHost) -> None:
    begin(host)
    with pytest.raises(GuardError, match="another change waits"):
        begin(host)


def test_the_nonce_is_nowhere_on_the_host(host: FakeHost) -> None:
    begin(host)
    engine.confirm(host, NONCE, None)
    for path in host.root.rglob("*"):
        assert not path.is_file() or NONCE.encode() not in path.read_bytes()
    assert NONCE not in " ".join(host.said + [word for argv in host.ran for word in argv])


def test_the_history_is_bounded(host: FakeHost) -> None:
    for _ in range(205):
        Store(host).make()
        Store(host).note({"outcome": "refused", "kind": "nothing", "reason": "x"})
    assert len(Store(host).history()) == 200


def test_a_directory_gets_its_mode_and_has_it_back_with_all_that_is_in_it(host: FakeHost) -> None:
    cron = host.at("/etc/cron.d")
    cron.mkdir(mode=0o755)
    (cron / "job").write_text("somebody's\n")
    before = tree(host.root)
    change = Change(subject="test", files=[{"path": "/etc/cron.d", "state": "directory", "mode": "0700"}])
    engine.begin(host, change, DIGEST, 60)
    assert engine.apply(host) == 0, host.said
    assert cron.stat().st_mode & 0o777 == 0o700
    assert (cron / "job").read_text() == "somebody's\n"
    assert engine.restore(host, now=True) == 0, host.said
    assert cron.stat().st_mode & 0o777 == 0o755
    assert {name: entry for name, entry in tree(host.root).items() if name in before} == before


def test_a_directory_does_not_take_the_place_of_something_else(host: FakeHost) -> None:
    host.at("/etc/cron.d").mkdir()
    for path, state in (("/etc/issue", "directory"), ("/etc/cron.d", "absent"), ("/etc/cron.d", "link")):
        change = Change(subject="test", files=[{"path": path, "state": state, "target": "/dev/null"}])
        with pytest.raises(GuardError, match="on the host; nothing is changed"):
            change.differences(host)

# SPDX-License-Identifier: Apache-2.0
"""A cut at every step on the way to the disk: the host boots with exactly the old or exactly the confirmed state."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import (
    durable,
    engine,
    entries,
    originals,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.store import Store

from tests.unit.cuts import cut_at

from .conftest import FakeHost, tree

NONCE = "n" * 64
DIGEST = hashlib.sha256(NONCE.encode()).hexdigest()


def change() -> Change:
    """One of each: a file that changes in content, mode and owner, a new one in a new place, one that goes, a link, a
    late one; units and a setting."""
    return Change(
        subject="test",
        files=[
            {"path": "/etc/ssh/sshd_config", "content": "Port 2222\n", "mode": "0644", "group": "1"},
            {"path": "/etc/new/deep/file", "content": "new\n", "mode": "0640"},
            {"path": "/etc/issue", "state": "absent"},
            {"path": "/etc/localtime", "state": "link", "target": "/usr/share/zoneinfo/Europe/Berlin"},
            {"path": "/etc/late", "content": "late\n", "late": True},
            {"path": "/etc/systemd/system/ssh.service.d/guard.conf", "content": "[Unit]\n"},
        ],
        units=[{"name": "avahi.service", "active": False, "enabled": False, "masked": True}],
        sysctls={"net.ipv4.ip_forward": "1"},
        apply=[["somebody", "writes"], ["systemctl", "reload", "ssh.service"]],
        keep={"directories": ["/etc/keep"]},
    )


class Writing(FakeHost):
    """A host where a command of the change writes into the kept directory, as NetworkManager would."""

    def run(self, argv: list[str], **options: object) -> object:
        if argv[0] == "somebody":
            (self.at("/etc/keep/appeared")).write_text("appeared\n")
            self.at("/etc/keep/a").unlink(missing_ok=True)
            shutil.rmtree(self.at("/etc/keep/below"), ignore_errors=True)  # gone after the first time
        return super().run(argv, **options)


def whole(root: Path) -> None:
    """A change from its beginning to its confirmation."""
    one = Writing(root)
    engine.begin(one, change(), DIGEST, 60)
    assert engine.apply(one) == 0, one.said
    engine.confirm(one, NONCE, None)
    one.rest()


@pytest.fixture
def again(host: FakeHost) -> Callable[[], Path]:
    """Makes the host anew, as it was, for the next cut."""
    kept = host.root.with_name("kept")
    shutil.copytree(host.root, kept, symlinks=True)
    state = (host.fake / "state.json").read_text()

    def make() -> Path:
        subprocess.run(["rm", "-rf", host.root], check=True)
        subprocess.run(["cp", "-a", kept, host.root], check=True)
        (host.fake / "state.json").write_text(state)
        return host.root

    return make


def boot(root: Path) -> FakeHost:
    """What happens at the next boot, before anything else is started."""
    one = FakeHost(root)
    one.reboot()
    if Store(one).pending.exists():  # ConditionPathExists=
        assert engine.restore(one, boot=True) == 0, one.said
    with Store(one).lock():
        Store(one).finish()
    assert not [
        path for path in Store(one).base.iterdir() if path.name.startswith(("pending", "confirmed", "undone"))
    ] or (Store(one).new.exists())
    return one


def test_a_cut_at_any_step_of_a_change(again: Callable[[], Path]) -> None:
    root = again()
    old = tree(root)
    whole(root)
    confirmed = tree(root)
    assert confirmed.keys() - old.keys() >= {"etc/new/deep/file", "etc/late", "etc/keep/appeared"}
    outcomes, step = [], 0
    while True:
        step += 1
        again()
        if not cut_at(step, lambda: whole(root)):
            break
        one = boot(root)
        found = tree(root)
        assert found in (old, confirmed), f"step {step}: {diff(found, old)}"
        outcomes.append("old" if found == old else "confirmed")
        # Only the change that was confirmed has left its originals.
        assert (Store(one).original_snapshot("test") is not None) == (found == confirmed), f"step {step}"
        last = Store(one).last(DIGEST)
        assert last is None or last["outcome"] == {"old": "undone", "confirmed": "confirmed"}[outcomes[-1]]
        # A unit that was masked when the boot began runs again.
        if found == old:
            assert one._state()["active"]["avahi.service"], f"step {step}"
        # And the next change finds nothing in its way.
        if step % 10 == 0:
            whole(root)
            assert tree(root).items() >= confirmed.items()
    print(f"{len(outcomes)} steps: {outcomes.count('old')} x old, {outcomes.count('confirmed')} x confirmed")
    assert outcomes == sorted(outcomes, reverse=True), "once a cut keeps the change, no later one may lose it"
    assert len(outcomes) > 100
    assert {"old", "confirmed"} == set(outcomes)


@pytest.mark.parametrize("how", [{}, {"now": True}, {"boot": True}], ids=["unit", "console", "boot"])
def test_a_cut_at_any_step_of_a_restore(again: Callable[[], Path], how: dict[str, bool]) -> None:
    root = again()
    old = tree(root)
    step = 0
    while True:
        step += 1
        again()
        one = Writing(root)
        engine.begin(one, change(), DIGEST, 60)
        assert engine.apply(one) == 0
        one.rest()
        if not cut_at(step, lambda: engine.restore(Writing(root), **how)):
            break
        boot(root)
        assert tree(root) == old, f"step {step}: {diff(tree(root), old)}"
    print(f"{step - 1} steps")
    assert step > 30


def test_a_cut_at_any_step_of_a_revert(again: Callable[[], Path]) -> None:
    def revert() -> None:
        one = FakeHost(root)
        engine.begin(one, originals.change_of(Store(one), "test"), DIGEST, 60)
        assert engine.apply(one) == 0, one.said
        engine.confirm(one, NONCE, None)

    root = again()
    old = tree(root)
    whole(root)
    changed = tree(root)
    kept, state = root.with_name("changed"), FakeHost(root)._state()
    subprocess.run(["cp", "-a", root, kept], check=True)
    step, outcomes = 0, []
    while True:
        step += 1
        subprocess.run(["rm", "-rf", root], check=True)
        subprocess.run(["cp", "-a", kept, root], check=True)
        FakeHost(root)._keep(state)
        cut = cut_at(step, revert)
        one = boot(root)
        found = tree(root)
        # What lay in the kept directory was never the subject's own.
        reverted = {**old, **{name: value for name, value in found.items() if name.startswith("etc/keep/")}}
        reverted = {
            name: value
            for name, value in reverted.items()
            if name in found or not name.startswith("etc/keep/")
        }
        assert found in (changed, reverted), f"step {step}: {diff(found, changed)} or {diff(found, reverted)}"
        outcomes.append("changed" if found == changed else "reverted")
        assert (Store(one).original_snapshot("test") is None) == (found == reverted)
        if not cut:
            break
    assert outcomes == sorted(outcomes)
    assert {"changed", "reverted"} == set(outcomes)


def test_at_the_commit_all_is_on_the_disk(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account of what would be lost if the power went: it has to be empty before each rename that counts."""
    synced: set[int] = set()
    unsynced: set[Path] = set()
    commits: list[str] = []

    def watch(step: str, path: Path) -> None:
        if step in ("made", "renamed", "removed"):
            unsynced.add(path.parent)
            if step == "made" and path.is_file() and not path.is_symlink():
                unsynced.add(path)
            if step == "renamed":
                assert path.with_name(f".{path.name}.energy-guard") not in unsynced
        elif step == "synced":
            unsynced.discard(path)
        elif step == "renaming" and path.name in ("pending", "confirmed", "undone"):
            commits.append(path.name)
            assert not {path for path in unsynced if path.exists()}, f"before {path.name}"
            if path.name == "pending":  # not all of it is written step by step
                new = path.with_name("pending.new")
                assert [one for one in (new, *new.rglob("*")) if one.stat().st_ino not in synced] == []

    def sync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(durable, "watch", watch)
    monkeypatch.setattr(os, "fsync", sync)
    one = Writing(host.root)
    engine.begin(one, change(), DIGEST, 60)
    engine.apply(one)
    engine.confirm(one, NONCE, None)
    engine.begin(one, originals.change_of(Store(one), "test"), DIGEST, 60)
    engine.restore(one, now=True)
    assert commits == ["pending", "confirmed", "pending", "undone"]


def test_the_restore_does_not_follow_a_link_out_of_its_place(host: FakeHost) -> None:
    outside = host.at("/etc/outside")
    outside.write_text("precious\n")
    was, content = entries.look(host.at("/etc/issue"))
    assert content == b"old\n"
    contents = host.root.with_name("contents")
    contents.mkdir()
    (contents / was["sha256"]).write_bytes(content)
    host.at("/etc/issue").unlink()
    host.at("/etc/issue").symlink_to(outside)
    assert entries.put_back(host.at("/etc/issue"), was, contents)
    assert outside.read_text() == "precious\n"
    assert entries.look(host.at("/etc/issue"))[0] == was


def diff(found: dict[str, object], wanted: dict[str, object]) -> dict[str, object]:
    return {
        name: (found.get(name), wanted.get(name))
        for name in found.keys() | wanted.keys()
        if found.get(name) != wanted.get(name)
    }

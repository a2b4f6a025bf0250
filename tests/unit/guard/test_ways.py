# SPDX-License-Identifier: Apache-2.0
"""A change that works until the next boot, and would lock everybody out then, is not kept."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import engine, ways
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.errors import GuardError, RefusedError
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Done
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.store import Store

from .conftest import WANTS, FakeHost, tree

NONCE = "n" * 64
DIGEST = hashlib.sha256(NONCE.encode()).hexdigest()
SSH, MANAGER, NETWORKD, TABLE = (
    "ssh.service",
    "NetworkManager.service",
    "systemd-networkd.service",
    "nftables.service",
)


class Commands(FakeHost):
    """A host where the links of units are changed by commands of the change, as `systemctl mask` does."""

    def run(self, argv: list[str], **options: Any) -> Any:
        done = super().run(argv, **options)
        if argv[0] == "ln":
            self.at(argv[3]).unlink(missing_ok=True)
            self.at(argv[3]).symlink_to(argv[2])
        elif argv[0] == "rm":
            self.at(argv[1]).unlink()
        return done


@pytest.fixture
def gateway(host: FakeHost) -> Commands:
    """A host that is come into by ssh and NetworkManager, behind a firewall."""
    for name in (SSH, MANAGER, TABLE):
        host.at(f"{WANTS}/{name}").symlink_to(f"/lib/systemd/system/{name}")
    state = host._state()
    state["active"] |= {SSH: True, MANAGER: True, TABLE: True}
    host._keep(state)
    return Commands(host.root)


def applied(host: FakeHost, **wanted: Any) -> None:
    files = [{"path": "/etc/issue", "content": "new\n"}, *wanted.pop("files", [])]
    engine.begin(host, Change(subject="test", files=files, **wanted), DIGEST, 60)
    assert engine.apply(host) == 0, host.said


def test_what_carries_the_way_in(gateway: Commands) -> None:
    assert ways.look(gateway) == [SSH, MANAGER, TABLE]


def test_an_alias_is_the_unit_that_it_stands_for(gateway: Commands) -> None:
    listed = "ssh.service enabled enabled\nsshd.service alias -\nnetworking.service masked enabled\n"
    gateway.refuse = {"systemctl list-unit-files": Done([], 0, listed, "")}
    assert ways.look(gateway) == ["ssh.service"]


def test_systemd_is_not_made_to_load_units_that_may_become_aliases(gateway: Commands) -> None:
    applied(gateway)
    engine.confirm(gateway, NONCE, 0.0)
    assert not any("show" in argv and "sshd.service" in argv for argv in gateway.ran)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["systemctl", "mask", MANAGER], "NetworkManager.service is masked"),
        (["systemctl", "disable", MANAGER], "NetworkManager.service is disabled"),
        (["systemctl", "disable", SSH], "ssh.service is disabled"),
        (["systemctl", "disable", TABLE], "nftables.service is disabled"),
        (["systemctl", "mask", "dbus.service"], "dbus.service is masked"),
        (["ln", "-s", "/dev/null", "/etc/systemd/system/dbus.socket"], "dbus.socket is masked"),
        (
            ["ln", "-s", "/lib/systemd/system/rescue.target", "/etc/systemd/system/default.target"],
            "the boot ends in /lib/systemd/system/rescue.target",
        ),
    ],
)
def test_what_the_next_boot_would_lack_undoes_a_change(
    gateway: Commands, command: list[str], words: str
) -> None:
    before = tree(gateway.root)
    applied(gateway, apply=[command])
    with pytest.raises(RefusedError, match=words) as refusal:
        engine.confirm(gateway, NONCE, 0.0)
    assert refusal.value.kind == "boot"
    assert ["systemctl", "start", "--no-block", engine.RESTORE] in gateway.ran
    # Whatever the change has named to be kept.
    assert engine.restore(gateway) == 0, gateway.said
    after = {name: entry for name, entry in tree(gateway.root).items() if "energy-guard" not in name}
    assert after == before
    assert words in str(engine.status(gateway)["last"]["reason"])


def test_an_alias_alone_starts_nothing(gateway: Commands) -> None:
    """Debian's ssh.service has one, and systemd calls the unit enabled by it when the target's link is gone."""
    applied(gateway, apply=[["rm", f"{WANTS}/{SSH}"]])
    gateway.refuse = {"systemctl list-unit-files": Done([], 0, listed(SSH, MANAGER, TABLE), "")}
    with pytest.raises(RefusedError, match="wanted by nothing"):
        engine.confirm(gateway, NONCE, 0.0)


def listed(*names: str) -> str:
    return "".join(f"{name} enabled enabled\n" for name in names)


@pytest.mark.parametrize(
    "wanted",
    [
        {"units": [{"name": TABLE, "enabled": False}]},
        {"units": [{"name": "avahi.service", "active": False, "masked": True}]},
        {"units": [{"name": MANAGER, "masked": True}, {"name": NETWORKD, "enabled": True}]},
        {"files": [{"path": "/etc/systemd/system/cups.service", "state": "link", "target": "/dev/null"}]},
        {"files": [{"path": f"{WANTS}/{TABLE}", "state": "absent"}]},
    ],
)
def test_what_a_change_wants_by_name_is_kept(gateway: Commands, wanted: dict[str, Any]) -> None:
    applied(gateway, **wanted)
    assert engine.confirm(gateway, NONCE, 0.0)["outcome"] == "confirmed"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {"units": [{"name": SSH, "enabled": False}]},
            "ssh.service would be off, and nothing else brings up sshd",
        ),
        ({"units": [{"name": MANAGER, "active": False, "masked": True}]}, "brings up the network"),
        (
            {
                "files": [
                    {
                        "path": f"/etc/systemd/system/{SSH}",
                        "state": "link",
                        "target": "/dev/null",
                        "late": True,
                    }
                ]
            },
            "brings up sshd",
        ),
    ],
)
def test_the_last_way_in_stays_whoever_wants_it_off(
    gateway: Commands, wanted: dict[str, Any], words: str
) -> None:
    before = tree(gateway.root)
    with pytest.raises(GuardError, match=words):
        applied(gateway, **wanted)
    assert tree(gateway.root) == before
    assert Store(gateway).change() is None
    assert gateway.timer is None


def test_the_ways_in_belong_to_no_subject(gateway: Commands) -> None:
    applied(gateway, units=[{"name": "avahi.service", "masked": True}])
    engine.confirm(gateway, NONCE, 0.0)
    first = Store(gateway).original_snapshot("test")
    assert first is not None
    assert list(first["units"]) == ["avahi.service"]
    assert list(first["unit_links"]) == [f"{WANTS}/avahi.service"]

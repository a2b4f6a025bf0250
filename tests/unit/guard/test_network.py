# SPDX-License-Identifier: Apache-2.0
"""By which means the network is put back, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import kernel, manager, network, units
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Done, Host

WAS: dict[str, Any] = {"manager": {"running": True, "active": {}, "moving": []}, "kernel": {}}


@pytest.mark.parametrize(
    ("answers", "helps", "order"),
    [
        (True, "reactivated", ["reactivated"]),
        (True, "straight", ["reactivated", "straight"]),
        (True, "restarted", ["reactivated", "straight", "restarted"]),
        # One that hangs is not waited for: the links come first, and then it is started anew at once.
        (False, "restarted", ["straight", "restarted"]),
        (True, "nothing", ["reactivated", "straight", "restarted", "reactivated", "straight"]),
    ],
)
def test_the_means(monkeypatch: pytest.MonkeyPatch, answers: bool, helps: str, order: list[str]) -> None:
    done: list[str] = []

    def note(name: str) -> bool:
        done.append(name)
        return True

    monkeypatch.setattr(manager, "read_profiles", lambda _host: answers or "restarted" in done)
    monkeypatch.setattr(manager, "put_back", lambda _host, _was: note("reactivated"))
    monkeypatch.setattr(manager, "restart", lambda _host: note("restarted"))
    monkeypatch.setattr(kernel, "put_back", lambda _host, _was: note("straight"))
    monkeypatch.setattr(network, "differences", lambda _host, _was: [] if helps in done else ["eth0 is down"])
    said: list[str] = []
    network.put_back(Host(), WAS, said.append, profiles_changed=False, gentle=False)
    assert done == order
    assert ("not yet as it was: eth0 is down" in said[-1]) == (helps == "nothing")


def test_a_network_that_is_as_it_was_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "differences", lambda _host, _was: [])
    monkeypatch.setattr(manager, "read_profiles", lambda _host: pytest.fail("it was touched"))
    network.put_back(Host(), WAS, print, profiles_changed=False, gentle=False)


GENERATED = (
    "[connection]\nid=eth0\nuuid=3333\ntype=ethernet\ninterface-name=eth0\n\n[.nmmeta]\nnm-generated=true\n"
)
PROFILE = "[connection]\nid=wan\nuuid={}\ntype=ethernet\n"
OF_ETH0 = PROFILE + "interface-name=eth0\n"


class Answers(Host):
    """A host whose NetworkManager has this connection active on eth0; None: it does not answer."""

    def __init__(self, root: Path, uuid: str | None) -> None:
        super().__init__(root)
        self.uuid = uuid
        for directory in manager.DIRECTORIES:
            self.at(directory).mkdir(parents=True)

    def run(self, argv: list[str], **_options: Any) -> Done:
        lines = f"lo:7777:loopback:activated\neth0:{self.uuid}:802-3-ethernet:activated\n"
        return Done(argv, 8 if self.uuid is None else 0, lines, "")


@pytest.mark.parametrize(
    ("now", "profiles", "lost"),
    [
        ("1111", [OF_ETH0.format("1111")], False),
        # Another profile, as a change may want it.
        ("2222", [PROFILE.format("2222")], False),
        # NetworkManager has been started anew without the profile, or before it followed a new one.
        ("3333", [GENERATED], True),
        ("3333", [GENERATED, OF_ETH0.format("1111")], True),
        # It is down: what it will follow counts.
        (None, [GENERATED], True),
        (None, [PROFILE.format("2222")], True),
        (None, [OF_ETH0.format("2222")], False),
        (None, [OF_ETH0.format("1111")], False),
    ],
)
def test_a_device_that_has_lost_its_profile_is_seen(
    tmp_path: Path, now: str | None, profiles: list[str], lost: bool
) -> None:
    host = Answers(tmp_path, now)
    for number, content in enumerate(profiles):
        folder = manager.DIRECTORIES["generated" in content]
        host.at(f"{folder}/{number}.nmconnection").write_text(content)
    was = {"active": {"eth0": "1111"}, "profiled": ["eth0"]}
    assert manager.without_profile(host, was) == (["eth0"] if lost else [])


def test_a_device_that_had_no_profile_loses_none(tmp_path: Path) -> None:
    was = {"active": {"eth0": "3333"}, "profiled": []}
    assert manager.without_profile(Answers(tmp_path, "3333"), was) == []


def test_which_devices_have_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "look", lambda _host, _names: {manager.UNIT: {}})
    monkeypatch.setattr(units, "is_active", lambda _state: True)
    host = Answers(tmp_path, "1111")
    assert manager.look(host)["profiled"] == []
    host.at(f"{manager.DIRECTORIES[0]}/wan.nmconnection").write_text(OF_ETH0.format("1111"))
    assert manager.look(host)["profiled"] == ["eth0"]

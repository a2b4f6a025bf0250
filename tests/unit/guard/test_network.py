# SPDX-License-Identifier: Apache-2.0
"""By which means the network is put back, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import kernel, manager, network
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Host

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

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The network as it was: NetworkManager's connections and the kernel's state, by every means there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import kernel, manager
from .errors import GuardError
from .host import Host


def look(host: Host) -> dict[str, Any]:
    return {"manager": manager.look(host), "kernel": kernel.look(host)}


def differences(host: Host, was: dict[str, Any]) -> list[str]:
    return kernel.differences(host, was["kernel"]) + manager.differences(host, was["manager"])


def put_back(
    host: Host, was: dict[str, Any], tell: Callable[[str], None], *, profiles_changed: bool, gentle: bool
) -> None:
    """Put the network back, from the gentlest means to the hardest, until it is as it was.

    The kernel's state is set early, since it alone decides whether anybody reaches this host; NetworkManager is brought
    in line afterwards.
    """

    def different() -> list[str]:
        try:
            return differences(host, was)
        except GuardError as error:
            return [str(error)]

    def reactivate() -> None:
        if not was["manager"]["running"]:
            return
        answers = manager.read_profiles(host)
        # A profile that has been put back counts only once its device follows it, whatever the kernel shows.
        if answers and (profiles_changed or different()):
            answers = manager.put_back(host, was["manager"])
        if not answers:
            # It hangs or is dead. Whoever comes to this host does not have to wait for it.
            tell("NetworkManager does not answer")
            straight()

    def restart() -> None:
        if was["manager"]["running"]:
            manager.restart(host)
            reactivate()

    def straight() -> None:
        kernel.put_back(host, was["kernel"])

    if not profiles_changed and not different():
        return
    all_means = (
        ("NetworkManager reads its profiles and activates what was active", reactivate),
        ("links, addresses and routes are set straight", straight),
        ("NetworkManager is started anew", restart),
        ("links, addresses and routes are set straight again", straight),
    )
    for name, means in all_means[1:2] if gentle else all_means:
        means()
        found = different()
        if not found:
            tell(f"network: {name}: it is as it was")
            return
        tell(f"network: {name}: not yet as it was: {'; '.join(found)}")

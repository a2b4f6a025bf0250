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

    def reactivate() -> bool:
        """Whether NetworkManager answered."""
        if not was["manager"]["running"]:
            return True
        answers = manager.read_profiles(host)
        # A profile that has been put back counts only once its device follows it, whatever the kernel shows.
        if answers and (profiles_changed or different()):
            answers = manager.put_back(host, was["manager"])
        return answers

    def restart() -> bool:
        if not was["manager"]["running"]:
            return True
        manager.restart(host)
        return reactivate()

    def straight() -> bool:
        kernel.put_back(host, was["kernel"])
        return True

    if not profiles_changed and not different():
        return
    all_means = (
        ("NetworkManager reads its profiles and activates what was active", reactivate),
        ("links, addresses and routes are set straight", straight),
        ("NetworkManager is started anew", restart),
        ("links, addresses and routes are set straight again", straight),
    )
    for name, means in all_means[1:2] if gentle else all_means:
        if not means():
            # It hangs or is dead, and each question costs its time-out. Who comes to this host need not wait for it.
            tell(f"network: {name}: NetworkManager does not answer")
            straight()
            if means is reactivate:
                restart()
        found = different()
        if not found:
            tell(f"network: {name}: it is as it was")
            return
        tell(f"network: {name}: not yet as it was: {'; '.join(found)}")

# SPDX-License-Identifier: Apache-2.0
"""What a change is to the campaign, and the kinds there are of it: `bad.py` and `good.py`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fault.lockout.site import HUB_PORT, TABLE_PATH, WAN_PATH, WAN_UUID, Site

GUARD = "wattfleet.energy.guard"
HARDENING = "hardening"
NETWORK = "wattfleet.energy.network_connections"
TABLE = "wattfleet.energy.nft_table"


@dataclass
class Change:
    """One change as an operator asks for it.

    `options` are those of `module`, without what concerns the wait; for HARDENING they are the role's variables.
    `wanted` is what a look at the host shows of a good change once it is kept: key -> value, a part of a value, or None
    for what is gone then. `may` are patterns of keys that follow from it.
    """

    kind: str
    text: str
    options: dict[str, Any]
    wanted: dict[str, Any] = field(default_factory=dict)
    may: tuple[str, ...] = ()
    module: str = GUARD
    # Moves the site's wanted state, once the change has been kept.
    keep: Callable[[Site], None] | None = None

    def task(self, wait: float) -> dict[str, Any]:
        """The task as an operator writes it."""
        if self.module == GUARD:
            return {"name": self.kind, self.module: {"state": "applied", **self.options, "wait_min": wait}}
        if self.module == HARDENING:
            role = {"ansible.builtin.include_role": {"name": HARDENING}}
            return {"name": self.kind, **role, "vars": {**self.options, "hardening_wait_min": wait}}
        guard = {**self.options["guard"], "wait_min": wait}
        return {"name": self.kind, self.module: {**self.options, "guard": guard}}

    @property
    def guards_network(self) -> bool:
        """Whether NetworkManager and what it does is a part of what the guard would put back."""
        return self.module == NETWORK or bool(self.options.get("keep", {}).get("network"))

    @property
    def good(self) -> bool:
        return self.kind.startswith("good-")


Maker = Callable[[random.Random, Site], Change]


def probes(site: Site) -> list[dict[str, Any]]:
    """What has to be reachable from the site before and after: the hub, by the name that the services use."""
    return [{"host": "hub.campaign", "port": HUB_PORT}]


def connection(kind: str, text: str, site: Site, content: str, **other: Any) -> Change:
    """A changed profile of the WAN, brought up."""
    options = {
        "subject": "network",
        "files": [{"path": WAN_PATH, "content": content, "mode": "0600"}],
        "apply": [{"bring_up": {"interface": "eth0", "uuid": WAN_UUID}}],
        "keep": network(),
        "probes": probes(site),
    }
    return Change(kind, text, options, **other)


def firewall(kind: str, text: str, site: Site, content: str, **other: Any) -> Change:
    """A changed table, loaded in one transaction, and its file written once it is confirmed."""
    options = {
        "subject": "firewall",
        "files": [{"path": TABLE_PATH, "content": content, "mode": "0644", "late": True}],
        "check": [["nft", "--check", "--file", f"{{staged:{TABLE_PATH}}}"]],
        "apply": [["nft", "--file", f"{{staged:{TABLE_PATH}}}"]],
        "keep": {"tables": ["inet wattfleet"]},
        "probes": probes(site),
    }
    return Change(kind, text, options, **other)


def hardening(kind: str, text: str, site: Site, *, variables: dict[str, Any], **other: Any) -> Change:
    """The role as a playbook runs it; it installs nothing here any more, see site.py."""
    options = {"hardening_management_networks": [f"{site.controller}/32"], **variables}
    return Change(kind, text, options, module=HARDENING, **other)


def network() -> dict[str, Any]:
    folder = "NetworkManager/system-connections"
    return {"directories": [f"/etc/{folder}", f"/run/{folder}"], "network": True}

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Faults of a fleet file that concern the brokers behind the hub's balancer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .findings import Finding, dig, text_at


def fleet_findings(fleet: Mapping[str, Any]) -> Iterator[Finding]:
    """Faults of the brokers and of their domain."""
    hub = text_at(fleet, "hub", "name")
    domain = text_at(fleet, "hub", "brokers_domain")
    if hub is not None and domain is not None:
        # As playbooks/ca.yml has it: the name without its first label, unless one label alone would be left.
        rest = hub.partition(".")[2]
        good = rest if "." in rest else hub
        if domain != good and not domain.endswith(f".{good}"):
            yield Finding(
                ("hub", "brokers_domain"),
                f'found "{domain}", expected a domain in {good}, for which alone the fleet\'s authority is good',
            )
    brokers = dig(fleet, "hub", "brokers")
    if not isinstance(brokers, list):
        return
    if domain is None:
        yield Finding(
            ("hub", "brokers"),
            "found without brokers_domain, expected both: the sites are told by their names",
        )
    seen: dict[tuple[str, str], int] = {}
    for index, broker in enumerate(brokers):
        for key in ("name", "address"):
            value = text_at(broker, key) if isinstance(broker, dict) else None
            if value is None:
                continue
            first_index = seen.setdefault((key, value), index)
            if first_index != index:
                yield Finding(
                    ("hub", "brokers", index, key),
                    f'found "{value}", as in brokers[{first_index}], expected another',
                )
            if value == text_at(fleet, "hub", "address"):
                yield Finding(
                    ("hub", "brokers", index, key),
                    f'found "{value}", the hub\'s address, expected that of a machine of its own',
                )


def names(fleet: Mapping[str, Any]) -> list[str]:
    """The brokers' names, which no site may have."""
    brokers = dig(fleet, "hub", "brokers")
    found = (
        [text_at(one, "name") for one in brokers if isinstance(one, dict)]
        if isinstance(brokers, list)
        else []
    )
    return [name for name in found if name]

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The Ansible groups that a site belongs to, besides ``gateways``."""

from __future__ import annotations

from typing import Any


def groups_of(site: dict[str, Any]) -> list[str]:
    """Group names of a checked site; ``-`` becomes ``_``, which Ansible allows in group names."""
    groups = [
        f"region_{site['region']}",
        f"ring_{site['ring']}",
        f"model_{site['gateway']['model']}",
        f"link_{site['link']['type']}",
    ]
    if site["critical"]:
        groups.append("critical")
    roles = {meter["role"] for meter in site["meters"]}
    if "generation" in roles:
        groups.append("has_solar")
    if "storage" in roles:
        groups.append("has_storage")
    return [group.replace("-", "_") for group in groups]

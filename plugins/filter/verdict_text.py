# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: verdict_text
short_description: Verdicts as a table for people
version_added: 0.1.0
description:
  - A line for each site, then each failure with site, meter and likely cause.
options:
  _input:
    description: Verdicts as made by P(wattfleet.energy.site_verdict#filter).
    type: list
    elements: dict
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - plugin: wattfleet.energy.site_verdict
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Tell the verdicts
  ansible.builtin.debug:
    msg: "{{ verdicts | wattfleet.energy.verdict_text }}"
"""

RETURN = r"""
_value:
  description: The text, of several lines.
  type: str
"""

from ansible_collections.wattfleet.energy.plugins.plugin_utils import _verdict


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"verdict_text": _verdict.text}

#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rollout
short_description: Plan a rollout, begin it by its digest, or take it up again
version_added: "0.3.0"
description:
  - What C(wattfleet rollout plan) and C(wattfleet rollout start) do, for plays. Runs on the controller alone and
    contacts no host, unless a plan has to ask what sites run.
  - Without O(digest) a rollout that was not begun is planned and not begun. With it the plan that was read is begun.
    One that was begun is taken up, whatever was given.
options:
  name:
    description: What the rollout is called.
    type: str
    required: true
  digest:
    description: The plan's digest, or its first 12 digits.
    type: str
  image:
    description: The release's image. Needed for a plan.
    type: str
  manifest:
    description: Its signed manifest. Needed for a plan.
    type: str
  limit:
    description: Plan these sites only; a pattern as for C(--limit).
    type: str
  ask:
    description: Which sites a plan asks what they run; V(unknown) are those of which no rollout has told.
    type: str
    choices: [unknown, all, none]
    default: unknown
  state:
    description: The folder of ledger and plans; C(rollouts) beside the fleet file when left out.
    type: str
attributes:
  check_mode:
    description: Begins nothing. A plan is made and saved all the same; it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to compare with.
    support: none
  platform:
    description: The controller.
    platforms: posix
    support: full
requirements:
  - The Python package C(wattfleet) of the same project, on the controller.
seealso:
  - module: wattfleet.energy.rollout_site
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Plan, and show it
  wattfleet.energy.rollout:
    name: gateway-2.4.1
    image: releases/gateway-2.4.1.bin
    manifest: releases/gateway-2.4.1.json
  register: planned

- name: Nothing was begun
  ansible.builtin.assert:
    that: not planned.begun

- name: Begin what was read, or go on with it
  wattfleet.energy.rollout:
    name: gateway-2.4.1
    digest: 1f0c9a72be55
"""

RETURN = r"""
rollout:
  description: The rollout's name.
  returned: success
  type: str
  sample: gateway-2.4.1
begun:
  description: Whether it was begun, now or before.
  returned: success
  type: bool
  sample: true
digest:
  description: The digest of a plan that was made.
  returned: when a plan was made
  type: str
  sample: 1f0c9a72be5534f2f4d2a1f0f7a3a4ff0a2c7f7f0c1b2a3d4e5f60718293a4b5
plan:
  description: The plan for people, line by line.
  returned: when a plan was made
  type: list
  elements: str
  sample: ["gateway-2.4.1: firmware 2.4.1, 42.0 MB, at 56 sites in 5 waves"]
waves:
  description: The sites that are not settled, wave by wave in their order.
  returned: success
  type: list
  elements: list
  sample: [[plant-a], [plant-b, plant-c]]
state:
  description: The rollout's state.
  returned: when it was begun
  type: str
  sample: running
sites:
  description: The state of each site.
  returned: when it was begun
  type: dict
  sample: {plant-a: ok, plant-b: pending}
told:
  description: How the rollout stands, for people; a line for each site that does not have the release.
  returned: when it was begun
  type: list
  elements: str
  sample: ["gateway-2.4.1 is running: wave 1 of 5 is done", "plant-b: soaking: runs 2.4.1"]
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "digest": {"type": "str"},
            "image": {"type": "str"},
            "manifest": {"type": "str"},
            "limit": {"type": "str"},
            "ask": {"type": "str", "choices": ["unknown", "all", "none"], "default": "unknown"},
            "state": {"type": "str"},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="this runs on the controller, by the action plugin of the same name")


if __name__ == "__main__":
    main()

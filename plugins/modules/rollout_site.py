#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rollout_site
short_description: Take a site through a rollout, as the engine says
version_added: "0.3.0"
description:
  - The engine of C(wattfleet rollout) is asked before every step, by the ledger that all sites share, and
    M(wattfleet.energy.firmware) is executed on the gateway. What a person does to the rollout by the command counts
    within seconds.
  - A gateway that does not answer does not become unreachable to Ansible, which counts no such hosts. It is asked
    again until its deadline, and is silent then, which counts as a failure.
  - Ends when the site is settled. Ends at once where nothing may be begun any more, and says why.
options:
  rollout:
    description: The rollout's name.
    type: str
    required: true
  state:
    description: The folder of ledger and plans; C(rollouts) beside the fleet file when left out.
    type: str
attributes:
  check_mode:
    description: Contacts no gateway.
    support: full
  diff_mode:
    description: An image has no difference that could be shown.
    support: none
  platform:
    description: As M(wattfleet.energy.firmware).
    platforms: linux
    support: full
requirements:
  - The Python package C(wattfleet) of the same project, on the controller.
seealso:
  - module: wattfleet.energy.rollout
  - module: wattfleet.energy.firmware
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Take the site through the rollout
  wattfleet.energy.rollout_site:
    rollout: gateway-2.4.1
  register: site

- name: It runs the release
  ansible.builtin.assert:
    that: site.site_state == 'ok'
"""

RETURN = r"""
site_state:
  description: The site's state in the rollout.
  returned: always
  type: str
  sample: ok
rollout_state:
  description: The rollout's state.
  returned: always
  type: str
  sample: running
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={"rollout": {"type": "str", "required": True}, "state": {"type": "str"}},
        supports_check_mode=True,
    )
    module.fail_json(msg="this runs on the controller, by the action plugin of the same name")


if __name__ == "__main__":
    main()

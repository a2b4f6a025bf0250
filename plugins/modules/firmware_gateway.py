#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What a gateway needs to take releases: the program, its units, whom it trusts, how its vendor's tool is driven."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: firmware_gateway
short_description: Give a gateway what it needs to take releases
version_added: "0.3.0"
description:
  - Installs the program that updates a gateway, its systemd units, the keys that may sign releases for it, and the
    adapter of its model. The role firmware calls it where P(wattfleet.energy.firmware_files#filter) and
    P(wattfleet.energy.file_differences#filter) find a difference.
options:
  model:
    description: The gateway's model, as releases name it.
    type: str
    required: true
  trust:
    description: Who may sign releases.
    type: dict
    required: true
    suboptions:
      threshold:
        description: How many different keys it takes.
        type: int
        required: true
      keys:
        description: The Ed25519 public keys, 32 bytes each, in base64.
        type: list
        elements: str
        required: true
  adapter:
    description:
      - How the tool of the model's vendor is driven and what it needs, see docs/reference/firmware-release.md.
      - Without it only the collector can be updated.
    type: dict
attributes:
  check_mode:
    description: Tells what would be written.
    support: full
  diff_mode:
    description: Names the files.
    support: full
  platform:
    description: Linux with systemd.
    platforms: linux
    support: full
seealso:
  - module: wattfleet.energy.firmware
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Let the gateway take releases that two of three people have signed
  wattfleet.energy.firmware_gateway:
    model: moxa-uc-8220
    trust:
      threshold: 2
      keys:
        - 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
        - PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=
        - /FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=
    adapter:
      install: [firmware-update, install, "{image}"]
      version: [firmware-update, version]
      back: [firmware-update, rollback]
      confirm: [firmware-update, confirm]
      needs:
        write: [/boot]
        devices: [/dev/mmcblk0p2, /dev/mmcblk0p3]
  register: gateway

- name: Say what was written
  ansible.builtin.debug:
    var: gateway.differing
"""

RETURN = r"""
differing:
  description: What was, or in check mode would be, brought up to date.
  returned: always
  type: list
  elements: str
  sample: [/etc/energy-firmware/adapter.json]
"""

import os
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import install
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import FirmwareError, Host
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.errors import StepError


def main() -> None:
    trust = {
        "threshold": {"type": "int", "required": True},
        # Public keys are no secret.
        "keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
    }
    module = AnsibleModule(
        argument_spec={
            "model": {"type": "str", "required": True},
            "trust": {"type": "dict", "required": True, "options": trust},
            "adapter": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="only root can do this; set become: true")
    options = module.params
    try:
        files = install.wanted(sys.executable, options["model"], options["trust"], options["adapter"])
        differing = install.install(Host(), files, check=module.check_mode)
    except (FirmwareError, StepError, OSError) as error:
        module.fail_json(msg=str(error))
    lines = "".join(f"{path}\n" for path in differing)
    module.exit_json(
        changed=bool(differing), differing=differing, diff={"before": "", "after": lines} if differing else {}
    )


if __name__ == "__main__":
    main()

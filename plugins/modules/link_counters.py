#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
module: link_counters
short_description: Tell carrier, speed, duplex and error counters of network links
version_added: 0.1.0
description:
  - Reads the state of network links from sysfs, judges speed and duplex, and compares error counters with an
    earlier look.
extends_documentation_fragment:
  - wattfleet.energy._attributes
  - wattfleet.energy._attributes.growth
options:
  interfaces:
    description:
      - Interfaces to look at. Defaults to all but the loopback.
    type: list
    elements: str
  speed_min:
    description:
      - Lowest speed in Mb/s that is not a finding. Links without a speed (cellular modems, for instance) are
        not judged.
    type: int
  duplex:
    description:
      - Duplex that is not a finding.
    type: str
    choices: [full, half]
  watch:
    description:
      - Counters that are held against O(limit).
    type: list
    elements: str
    default: [rx_errors, tx_errors, rx_crc_errors, rx_frame_errors, tx_carrier_errors, collisions,
      carrier_down]
  path:
    description:
      - Where the kernel tells of network links.
    type: path
    default: /sys/class/net
seealso:
  - module: wattfleet.energy.modbus_counters
  - module: wattfleet.energy.gateway_info
"""

EXAMPLES = r"""
- name: Look at the energy network's link twice, ten seconds apart
  wattfleet.energy.link_counters:
    interfaces: [eth1]
    speed_min: 100
    duplex: full
    interval: 10
  register: links

- name: The link is up, as fast as it should be, and counts no errors
  ansible.builtin.assert:
    that:
      - links.links.eth1.carrier
      - links.findings | length == 0
      - links.exceeded | length == 0
"""

RETURN = r"""
links:
  description: State and counters of each interface, by name.
  returned: always
  type: dict
  sample:
    eth1:
      present: true
      kind: ethernet
      operstate: up
      carrier: true
      speed: 100
      duplex: full
      mtu: 1500
      counters: {rx_errors: 0, tx_errors: 0, rx_crc_errors: 0, collisions: 0, carrier_down: 1}
findings:
  description: What is wrong with the links now.
  returned: always
  type: list
  elements: dict
  sample:
    - interface: eth1
      finding: speed
      message: "10 Mb/s in place of 100: check all pairs of the cable"
counters:
  description: The counters of the last look, to be given as O(before) to a later execution.
  returned: always
  type: dict
  sample: {links: {eth1: {rx_errors: 0}}}
growth:
  description: How much each counter grew. A counter that was reset in between counts with its present value.
  returned: with O(interval) or O(before)
  type: dict
  sample: {links: {eth1: {rx_errors: 0}}}
exceeded:
  description: The watched counters that grew by more than O(limit).
  returned: with O(interval) or O(before)
  type: list
  elements: dict
  sample: [{kind: links, name: eth1, counter: rx_crc_errors, growth: 3, limit: 0}]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import _growth, _links


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "str"},
            "speed_min": {"type": "int"},
            "duplex": {"type": "str", "choices": ["full", "half"]},
            "interval": {"type": "float", "default": 0},
            "before": {"type": "dict"},
            "limit": {"type": "int", "default": 0},
            "watch": {"type": "list", "elements": "str", "default": list(_links.WATCHED)},
            "path": {"type": "path", "default": _links.DEFAULT_PATH},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["interval"] < 0:
        module.fail_json(msg=f"interval {options['interval']:g} must not be negative")
    if options["interval"] and options["before"] is not None:
        module.fail_json(msg="give `interval` or `before`, not both: two looks are compared, not three")

    before = options["before"]
    if options["interval"]:
        before = _links.counters_of(_links.read(options["path"], options["interfaces"]))
        time.sleep(options["interval"])
    links = _links.read(options["path"], options["interfaces"])
    counters = _links.counters_of(links)
    result = {
        "changed": False,
        "links": links,
        "findings": _links.judge(links, options["speed_min"], options["duplex"]),
        "counters": counters,
    }
    if before is not None:
        result["growth"] = _growth.growth(before, counters)
        result["exceeded"] = _growth.exceeded(result["growth"], options["watch"], options["limit"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()

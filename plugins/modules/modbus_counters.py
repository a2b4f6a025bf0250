#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
module: modbus_counters
short_description: Tell the communication counters of Modbus meters and buses
version_added: 0.1.0
description:
  - Reads the counters that a device keeps itself, function 08 with the sub-functions 0x0B to 0x12, where it
    has them.
  - Where the collector runs on the host, its own counts for each bus and meter are told too, and devices are
    asked through it.
  - Two looks are compared. Counters of CRC and framing errors that grow mean line noise, bad cabling or a
    second master.
extends_documentation_fragment:
  - wattfleet.energy._attributes
  - wattfleet.energy._attributes.collector
  - wattfleet.energy._attributes.growth
options:
  meters:
    description:
      - Devices to ask for their own counters. Without any, only the collector's counts are told.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name under which the device is reported. Defaults to the bus or host and the unit.
        type: str
      bus:
        description:
          - Name of the bus in the collector's configuration.
        type: str
      host:
        description:
          - Address of the device. Needed where no collector runs.
        type: str
      port:
        description:
          - TCP port of the device.
        type: int
        default: 502
      framing:
        description:
          - What travels over the connection.
        type: str
        choices: [modbus-tcp, rtu-over-tcp]
        default: modbus-tcp
      unit:
        description:
          - Modbus unit id.
        type: int
        required: true
      timeout:
        description:
          - Seconds to wait for each answer. The collector has time-outs of its own.
        type: float
        default: 1.0
      registers:
        description:
          - Registers in which the device counts, as its manual lists them. They are told beside those
            of function 08, under the name that they are given here.
          - Profiles name none, since for their models none was found in public register maps. So
            M(wattfleet.energy.gateway_info) and C(playbooks/verify.yml) take what a device answers to function 08, and
            what the collector itself counts of every bus and meter.
        type: list
        elements: dict
        default: []
        suboptions:
          counter:
            description:
              - Name of the counter. Take one of O(watch) for errors that are to be held against O(limit).
            type: str
            required: true
          function:
            description:
              - Function that reads, 3 holding registers or 4 input registers.
            type: int
            choices: [3, 4]
            default: 3
          address:
            description:
              - Address of the first register, counted from 0.
            type: int
            required: true
          type:
            description:
              - How the registers are read as a number.
            type: str
            choices: [uint16, uint32, uint64]
            default: uint16
          word_order:
            description:
              - V(big) when the first register holds the most significant word.
            type: str
            choices: [big, little]
            default: big
  watch:
    description:
      - Counters that are held against O(limit).
    type: list
    elements: str
    default: [crc_errors, frame_errors, overruns]
seealso:
  - module: wattfleet.energy.modbus_probe
  - module: wattfleet.energy.gateway_info
"""

EXAMPLES = r"""
- name: Look twice, ten seconds apart, at all buses and at one meter's own counters
  wattfleet.energy.modbus_counters:
    meters:
      - {name: main, bus: hall, unit: 1}
    interval: 10
  register: counters

- name: Look at a meter that counts its errors in a register
  wattfleet.energy.modbus_counters:
    meters:
      - name: main
        bus: hall
        unit: 1
        registers:
          - {counter: crc_errors, function: 4, address: 0x0300, type: uint32}
    before: "{{ counters.counters }}"
  register: later

- name: No CRC and no framing errors
  ansible.builtin.assert:
    that:
      - counters.failures | length == 0
      - counters.exceeded | length == 0
    fail_msg: "Line noise: {{ counters.exceeded }}"
"""

RETURN = r"""
counters:
  description:
    - The counters of the last look. C(buses) and C(meters) are the collector's counts, C(devices) the
      devices' own.
    - To be given as O(before) to a later execution.
  returned: always
  type: dict
  sample:
    buses: {hall: {requests: 5210, answers: 5208, timeouts: 2, exceptions: 0, crc_errors: 0, frame_errors: 0,
      connects: 1}}
    meters: {main: {requests: 2605, answers: 2605, timeouts: 0, exceptions: 0, crc_errors: 0, frame_errors: 0,
      connects: 0}}
    devices: {main: {bus_messages: 2611, crc_errors: 0, exceptions: 0, server_messages: 2611, overruns: 0}}
failures:
  description:
    - What could not be read, with its likely cause. A device without function 08 is no failure.
    - With O(interval) what the first look could not read is told too, since nothing can be compared with it.
  returned: always
  type: list
  elements: dict
  sample:
    - name: main
      code: NO_ANSWER
      error: "REGISTER_READ_FAILURE: no answer within 1000 ms: 192.168.10.20:502, unit 1, function 8"
      cause: "connected, but the unit does not answer: check unit id, baud rate, parity, wiring and the
        meter's supply"
growth:
  description: How much each counter grew. A counter that was reset in between counts with its present value.
  returned: with O(interval) or O(before)
  type: dict
  sample: {buses: {hall: {requests: 10, crc_errors: 0}}}
exceeded:
  description: The watched counters that grew by more than O(limit).
  returned: with O(interval) or O(before)
  type: list
  elements: dict
  sample: [{kind: buses, name: hall, counter: crc_errors, growth: 3, limit: 0}]
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _control,
    _counters,
    _growth,
    _modbus,
    _probe,
    _values,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "meters": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str"},
                    "bus": {"type": "str"},
                    "host": {"type": "str"},
                    "port": {"type": "int", "default": 502},
                    "framing": {
                        "type": "str",
                        "choices": [_modbus.TCP, _modbus.RTU_OVER_TCP],
                        "default": _modbus.TCP,
                    },
                    "unit": {"type": "int", "required": True},
                    "timeout": {"type": "float", "default": 1.0},
                    "registers": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "counter": {"type": "str", "required": True},
                            "function": {"type": "int", "choices": [3, 4], "default": 3},
                            "address": {"type": "int", "required": True},
                            "type": {
                                "type": "str",
                                "choices": ["uint16", "uint32", "uint64"],
                                "default": "uint16",
                            },
                            "word_order": {
                                "type": "str",
                                "choices": list(_values.WORD_ORDERS),
                                "default": "big",
                            },
                        },
                    },
                },
            },
            "socket": {"type": "path", "default": _control.DEFAULT_SOCKET},
            "transport": {"type": "str", "choices": list(_probe.TRANSPORTS), "default": "auto"},
            "interval": {"type": "float", "default": 0},
            "before": {"type": "dict"},
            "limit": {"type": "int", "default": 0},
            "watch": {"type": "list", "elements": "str", "default": list(_counters.WATCHED)},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["interval"] < 0:
        module.fail_json(msg=f"interval {options['interval']:g} must not be negative")
    if options["interval"] and options["before"] is not None:
        module.fail_json(msg="give `interval` or `before`, not both: two looks are compared, not three")

    try:
        meters = [_probe.with_defaults(meter) for meter in options["meters"]]
        before = options["before"]
        failures_before: list[dict[str, t.Any]] = []
        if options["interval"]:
            before, failures_before = _counters.read(meters, options["socket"], options["transport"])
            time.sleep(options["interval"])
        counters, failures = _counters.read(meters, options["socket"], options["transport"])
    except _probe.OptionError as error:
        module.fail_json(msg=str(error))
    failures = _counters.of_both(failures_before, failures)
    result = {"changed": False, "counters": counters, "failures": failures}
    if before is not None:
        result["growth"] = _growth.growth(before, counters)
        result["exceeded"] = _growth.exceeded(result["growth"], options["watch"], options["limit"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()

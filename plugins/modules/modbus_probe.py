#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
module: modbus_probe
short_description: Ask whether Modbus meters answer, and whether they answer rightly
version_added: 0.1.0
description:
  - Asks one meter, or all meters of a site in one execution, and tells for each whether it answers, how
    quickly, with what, and the likely cause when it does not.
  - Where the collector runs on the host, every question goes through it, so that a bus never has a second
    master. Only where none runs does the module open connections of its own.
  - A value can be compared with a reference reading; a wrong scale, word order, type, polarity or CT ratio is
    then named. A wrong unit id or parity is found by a search.
  - A meter that does not answer does not make the module fail. Assert what the result should be.
extends_documentation_fragment:
  - wattfleet.energy._attributes
  - wattfleet.energy._attributes.collector
  - wattfleet.energy._attributes.meter
options:
  meters:
    description:
      - Several meters at once, each with the options that describe one meter. Not together with those options
        themselves.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name under which the meter is reported.
        type: str
      meter:
        description:
          - Name of the meter in the collector's configuration.
        type: str
      bus:
        description:
          - Name of the meter's bus in the collector's configuration.
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
      device:
        description:
          - Serial device of the host, for instance V(/dev/ttyUSB0), in place of a host. Asked directly only while no
            collector runs.
        type: path
      baudrate:
        description:
          - Speed of the serial device.
        type: int
        choices: [1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200]
        default: 9600
      parity:
        description:
          - Parity of the serial device, none, even or odd.
        type: str
        choices: [N, E, O]
        default: N
      stopbits:
        description:
          - Stop bits of the serial device.
        type: int
        choices: [1, 2]
        default: 1
      unit:
        description:
          - Modbus unit id.
        type: int
      function:
        description:
          - Function that reads.
        type: int
        choices: [1, 2, 3, 4]
        default: 3
      address:
        description:
          - Address of the first register, counted from 0.
        type: int
      count:
        description:
          - How many registers (or bits) are read. Defaults to the width of the type.
        type: int
      type:
        description:
          - How the registers are read as a number.
        type: str
        choices: [uint16, int16, uint32, int32, float32, uint64, int64, float64]
        default: uint16
      word_order:
        description:
          - V(big) when the first register holds the most significant word.
        type: str
        choices: [big, little]
        default: big
      scale:
        description:
          - The number is multiplied with this.
        type: float
        default: 1.0
      expected:
        description:
          - A reference for the value.
        type: float
      tolerance:
        description:
          - Largest difference to the reference, as a fraction of it (absolute when the reference is 0).
        type: float
        default: 0.05
      ct_ratio:
        description:
          - Ratio of the current transformers, for instance V(200:5).
        type: str
      search:
        description:
          - When the unit does not answer, or no single mistake explains its value, look for a wrong unit id and a
            wrong parity.
        type: bool
        default: false
      search_units:
        description:
          - The other unit ids that the search asks.
        type: list
        elements: int
        default: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
      identify:
        description:
          - Also ask for the device's identification, function 43/14.
        type: bool
        default: false
      timeout:
        description:
          - Seconds to wait for each answer.
        type: float
        default: 1.0
notes:
  - A meter on a serial bus of the gateway is asked through the running collector, or directly while none runs.
seealso:
  - module: wattfleet.energy.modbus_counters
  - module: wattfleet.energy.gateway_info
  - name: MODBUS Application Protocol Specification V1.1b3
    description: Functions, exceptions and the encoding of registers.
    link: https://www.modbus.org/docs/Modbus_Application_Protocol_V1_1b3.pdf
"""

EXAMPLES = r"""
- name: Ask all meters of a site in one execution
  wattfleet.energy.modbus_probe:
    meters:
      - {meter: main}
      - {meter: solar}
  register: probe

- name: Every meter answers
  ansible.builtin.assert:
    that: item.reachable
    fail_msg: "{{ item.name }}: {{ item.failure.error }} ({{ item.failure.cause }})"
  loop: "{{ probe.results }}"
  loop_control:
    label: "{{ item.name }}"

- name: Compare the voltage of phase 1 with the meter's display
  wattfleet.energy.modbus_probe:
    host: 192.168.10.20
    bus: hall
    unit: 1
    function: 4
    address: 0
    type: float32
    expected: 231.4
    tolerance: 0.02
  register: voltage

- name: The configuration of the meter is right
  ansible.builtin.assert:
    that: voltage.results[0].matches
    fail_msg: "{{ voltage.results[0].findings | map(attribute='message') | join('; ') }}"

- name: Find out why a new meter on a serial line does not answer, before the collector is installed
  wattfleet.energy.modbus_probe:
    device: /dev/ttyUSB0
    parity: E
    unit: 1
    address: 0
    search: true
    search_units: [1, 2, 3, 247]
  register: newcomer

- name: Tell it
  ansible.builtin.debug:
    msg: "{{ newcomer.results[0].findings | map(attribute='message') }}"
"""

RETURN = r"""
reachable:
  description: Whether every meter answered.
  returned: always
  type: bool
  sample: true
results:
  description: One result for each meter, in the order they were given.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the meter.
      returned: always
      type: str
      sample: main
    bus:
      description: Name of its bus, when given.
      returned: always
      type: str
      sample: hall
    unit:
      description: Its unit id, when given.
      returned: always
      type: int
      sample: 1
    transport:
      description: How it was asked, V(collector) or V(direct).
      returned: always
      type: str
      sample: collector
    reachable:
      description: Whether the device answered. An exception is an answer, unless a Modbus gateway gives it
        for a silent device.
      returned: always
      type: bool
      sample: true
    latency:
      description: Seconds from question to answer, connecting or waiting in the collector's queue included.
      returned: always
      type: float
      sample: 0.0213
    registers:
      description: The registers (or bits) read.
      returned: always
      type: list
      elements: int
      sample: [17255, 26214]
    value:
      description: The number in the registers, scaled. Null for a float that is not a number.
      returned: always
      type: float
      sample: 231.4
    readings:
      description: What the collector read from a meter asked by its O(meter) name.
      returned: always
      type: list
      elements: dict
      sample: [{point: main/voltage_l1, value: 231.4, unit: V, quality: good}]
    identification:
      description: Objects of function 43/14 by name, empty when the device has none. Null when not asked for.
      returned: always
      type: dict
      sample: {VendorName: Eastron, ProductCode: SDM630, MajorMinorRevision: "1.2"}
    matches:
      description: Whether the value agrees with O(expected). Null without one.
      returned: always
      type: bool
      sample: true
    findings:
      description: Mistakes of configuration that would explain the difference.
      returned: always
      type: list
      elements: dict
      contains:
        finding:
          description: V(scale), V(word_order), V(type), V(polarity), V(ct_ratio), V(unit) or V(parity).
          returned: always
          type: str
          sample: scale
        message:
          description: The finding in words.
          returned: always
          type: str
          sample: "10 times the expected: multiply the scale of this register by 0.1"
    failure:
      description: Why there is no full answer, else null.
      returned: always
      type: dict
      contains:
        code:
          description: The kind of failure, for programs.
          returned: always
          type: str
          sample: CONNECTION_REFUSED
        error:
          description: The failure in one line.
          returned: always
          type: str
          sample: "CONNECTION_REFUSED: 192.168.10.20:502"
        cause:
          description: Its likely cause, and what to do.
          returned: always
          type: str
          sample: "the device is there but nothing listens on this port: check the port"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import _control, _probe


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_probe.METER_OPTIONS,
            "meters": {"type": "list", "elements": "dict", "options": _probe.METER_OPTIONS},
            "socket": {"type": "path", "default": _control.DEFAULT_SOCKET},
            "transport": {"type": "str", "choices": list(_probe.TRANSPORTS), "default": "auto"},
        },
        mutually_exclusive=[
            ("meters", option) for option in ("name", "meter", "bus", "host", "device", "unit", "address")
        ],
        required_one_of=[("meters", "meter", "unit")],
        supports_check_mode=True,
    )
    options = module.params
    given = options["meters"]
    if given is None:
        given = [{option: options[option] for option in _probe.METER_OPTIONS}]
    try:
        results = _probe.probe_all(
            [_probe.check(meter) for meter in given], options["socket"], options["transport"]
        )
    except _probe.OptionError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, reachable=all(result["reachable"] for result in results), results=results)


if __name__ == "__main__":
    main()

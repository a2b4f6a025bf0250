#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Tell the health of an energy gateway in one execution
version_added: 0.1.0
description:
  - Reads clock, certificate, services, collector, buffer, links, meters and counters of a gateway at once.
    Each further execution would cost a satellite site seconds of round trips.
  - What is missing or broken does not make the module fail; it is told where it belongs. Judge the result.
  - An action plugin of the same name adds the clock's offset from the controller, which only both ends
    together can know.
extends_documentation_fragment:
  - wattfleet.energy._attributes
options:
  meters:
    description:
      - The site's meters. Asked by O(meters[].meter) through the running collector, else at O(meters[].host)
        directly.
    type: list
    elements: dict
    default: []
    suboptions:
      meter:
        description:
          - Name of the meter in the collector's configuration.
        type: str
        required: true
      bus:
        description:
          - Name of its bus there.
        type: str
        required: true
      unit:
        description:
          - Modbus unit id.
        type: int
        required: true
      host:
        description:
          - Address of the device or of its Modbus gateway; none for a serial bus.
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
      timeout:
        description:
          - Seconds to wait for each answer, where no collector runs.
        type: float
        default: 1.0
  certificate:
    description:
      - The gateway's certificate. Its key is never read.
    type: path
    default: /etc/ssl/energy/gateway.crt
  services:
    description:
      - Units whose states are told.
    type: list
    elements: str
    default: [energy-gateway.service, energy-persistence.service]
  interfaces:
    description:
      - Network interfaces to look at. Defaults to all but the loopback.
    type: list
    elements: str
  speed_min:
    description:
      - Lowest speed of a link in Mb/s that is not a finding.
    type: int
  duplex:
    description:
      - Duplex of a link that is not a finding.
    type: str
    choices: [full, half]
  interval:
    description:
      - Seconds between the two looks at all counters. The other questions are asked in between.
    type: float
    default: 5
  limit:
    description:
      - How much an error counter may grow between the two looks.
    type: int
    default: 0
  socket:
    description:
      - Control socket of the running collector.
    type: path
    default: /run/energy/control.sock
seealso:
  - module: wattfleet.energy.modbus_probe
  - module: wattfleet.energy.modbus_counters
  - module: wattfleet.energy.link_counters
"""

EXAMPLES = r"""
- name: Look at a gateway
  wattfleet.energy.gateway_info:
    meters:
      - {meter: main, bus: hall, unit: 1, host: 192.168.10.20}
  register: gateway
  become: true

- name: The gateway is in order
  ansible.builtin.assert:
    that:
      - gateway.clock.offset | abs < 2
      - gateway.certificate.days_left > 30
      - gateway.services.values() | map(attribute='active') | unique == ['active']
      - gateway.meters | rejectattr('reachable') | length == 0
      - gateway.exceeded | length == 0
"""

RETURN = r"""
clock:
  description:
    - Seconds since 1970 by the gateway's clock when the module started and ended.
    - With the action plugin also the offset from the controller's clock and how far it may be off, both in
      seconds.
  returned: always
  type: dict
  sample: {received: 1763818800.1, answered: 1763818805.2, offset: 0.08, uncertainty: 0.31}
certificate:
  description: Subject, serial number and life of the certificate, or C(failure). Times are seconds since
    1970.
  returned: always
  type: dict
  sample:
    path: /etc/ssl/energy/gateway.crt
    failure: null
    subject: CN=plant-a
    issuer: CN=Wattfleet issuing CA
    common_name: plant-a
    serial: 1f3a
    not_before: 1763818800.0
    not_after: 1795354800.0
    days_left: 364.9
services:
  description: The states of the units, in systemd's words.
  returned: always
  type: dict
  sample:
    energy-gateway.service:
      {load: loaded, active: active, sub: running, enabled: enabled, result: success, restarts: 0, failure:
      null}
collector:
  description:
    - What the running collector tells of itself and its buses. C(heard) are the meters that report by radio, which
      nobody can ask.
  returned: always
  type: dict
  sample:
    running: true
    failure: null
    site: plant-a
    version: 0.1.0
    started: "2026-01-01T00:00:00.000Z"
    buses: [{name: hall, connected: true, last_error: null}]
    heard: []
buffer:
  description: What waits for delivery, null when no collector answers.
  returned: always
  type: dict
  sample: {readings: 120, batches: 2, bytes: 40960, dropped: 0, oldest: "2026-01-01T00:00:00.000Z"}
meters:
  description: One result for each meter, as M(wattfleet.energy.modbus_probe) returns it.
  returned: always
  type: list
  elements: dict
  sample: [{name: main, bus: hall, unit: 1, transport: collector, reachable: true, latency: 0.02, failure:
    null}]
links:
  description: State and counters of the links, as M(wattfleet.energy.link_counters) returns them.
  returned: always
  type: dict
  sample: {eth1: {present: true, kind: ethernet, operstate: up, carrier: true, speed: 100, duplex: full,
    mtu: 1500, counters: {rx_errors: 0}}}
link_findings:
  description: What is wrong with the links now.
  returned: always
  type: list
  elements: dict
  sample: [{interface: eth1, finding: no_carrier, message: "no link: check cable, plug, and the port of the
    switch"}]
counters:
  description: Communication counters, as M(wattfleet.energy.modbus_counters) returns them.
  returned: always
  type: dict
  sample: {buses: {hall: {requests: 5210, crc_errors: 0}}}
counter_failures:
  description: Counters that could not be read, with the likely cause.
  returned: always
  type: list
  elements: dict
  sample: []
growth:
  description: How much the counters of buses, meters, devices and links grew between the two looks.
  returned: always
  type: dict
  sample: {buses: {hall: {requests: 1, crc_errors: 0}}, links: {eth1: {rx_errors: 0}}}
exceeded:
  description: Error counters that grew by more than O(limit).
  returned: always
  type: list
  elements: dict
  sample: [{kind: buses, name: hall, counter: crc_errors, growth: 3, limit: 0}]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import _control, _gateway, _modbus, _probe


def main() -> None:
    received = time.time()
    module = AnsibleModule(
        argument_spec={
            "meters": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "meter": {"type": "str", "required": True},
                    "bus": {"type": "str", "required": True},
                    "unit": {"type": "int", "required": True},
                    "host": {"type": "str"},
                    "port": {"type": "int", "default": 502},
                    "framing": {
                        "type": "str",
                        "choices": [_modbus.TCP, _modbus.RTU_OVER_TCP],
                        "default": _modbus.TCP,
                    },
                    "timeout": {"type": "float", "default": 1.0},
                },
            },
            "certificate": {"type": "path", "default": "/etc/ssl/energy/gateway.crt"},
            "services": {
                "type": "list",
                "elements": "str",
                "default": ["energy-gateway.service", "energy-persistence.service"],
            },
            "interfaces": {"type": "list", "elements": "str"},
            "speed_min": {"type": "int"},
            "duplex": {"type": "str", "choices": ["full", "half"]},
            "interval": {"type": "float", "default": 5},
            "limit": {"type": "int", "default": 0},
            "socket": {"type": "path", "default": _control.DEFAULT_SOCKET},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["interval"] < 0:
        module.fail_json(msg=f"interval {options['interval']:g} must not be negative")
    try:
        result = _gateway.look(
            [_probe.with_defaults(meter) for meter in options["meters"]],
            run_command=module.run_command,
            socket_path=options["socket"],
            certificate=options["certificate"],
            services=options["services"],
            interfaces=options["interfaces"],
            speed_min=options["speed_min"],
            duplex=options["duplex"],
            interval=options["interval"],
            limit=options["limit"],
        )
    except _probe.OptionError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, clock={"received": received, "answered": time.time()}, **result)


if __name__ == "__main__":
    main()

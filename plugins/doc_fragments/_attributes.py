# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Documentation that the modules of this collection share. Private: it may change with any release."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
    details:
      - This module does not modify state.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check mode), when in
      diff mode.
    support: N/A
    details:
      - This module does not modify state.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates
        no change.
    support: full
    details:
      - This module does not modify state.
  platform:
    description: Target OS or families that can be operated against.
    platforms: linux
    support: full
requirements:
  - Python 3.10 or newer on the target. Nothing but its standard library is needed.
author:
  - Wattfleet contributors (@wattfleet)
"""

    COLLECTOR = r"""
options:
  socket:
    description:
      - Control socket of the running collector.
    type: path
    default: /run/energy/control.sock
  transport:
    description:
      - How the meters are asked.
      - V(auto) asks through the running collector where there is one, so that a bus never has two masters,
        and over connections of the module's own otherwise.
      - V(collector) fails when no collector runs.
      - V(direct) never asks the collector. Use it only for devices that are on none of the collector's buses.
    type: str
    choices: [auto, collector, direct]
    default: auto
"""

    METER = r"""
options:
  name:
    description:
      - Name under which the meter is reported.
      - Defaults to O(meter), or to the bus or host and the unit.
    type: str
  meter:
    description:
      - Name of the meter in the collector's configuration. Without O(address), the running collector reads
        every point of the meter's profile.
    type: str
  bus:
    description:
      - Name of the meter's bus in the collector's configuration. Needed to ask for a register through the
        collector.
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
      - Serial device of the host, for instance V(/dev/ttyUSB0), in place of O(host). Asked directly only while no
        collector runs, since a serial line has one master; through the collector the line is named by O(bus).
    type: path
  baudrate:
    description:
      - Speed of the line O(device).
    type: int
    choices: [1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200]
    default: 9600
  parity:
    description:
      - Parity of the line O(device), none, even or odd.
    type: str
    choices: [N, E, O]
    default: N
  stopbits:
    description:
      - Stop bits of the line O(device).
    type: int
    choices: [1, 2]
    default: 1
  unit:
    description:
      - Modbus unit id, 1 to 247; 0 and 255 are possible with O(framing=modbus-tcp).
    type: int
  function:
    description:
      - Function that reads, 1 coils, 2 discrete inputs, 3 holding registers, 4 input registers.
    type: int
    choices: [1, 2, 3, 4]
    default: 3
  address:
    description:
      - Address of the first register, counted from 0.
      - Without it, and without O(meter), register 0 is asked for, and any answer of the device counts, an
        exception too.
    type: int
  count:
    description:
      - How many registers (or bits) are read. Defaults to the width of O(type).
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
      - A reference for the value, for instance what the meter's display or a clamp meter shows.
      - Needs O(address). What differs is explained in RV(results[].findings).
    type: float
  tolerance:
    description:
      - Largest difference to O(expected), as a fraction of it (absolute when O(expected) is 0).
    type: float
    default: 0.05
  ct_ratio:
    description:
      - Ratio of the current transformers, primary to secondary, for instance V(200:5). It lets a ratio that
        is applied twice, or not at all, be told from a wrong scale.
    type: str
  search:
    description:
      - When the unit does not answer, or no single mistake explains its value, look for a wrong unit id and a
        wrong parity.
      - The units of O(search_units) are asked the same question. A unit that holds the O(expected) value is the
        finding, or, when this one is silent, those that answer.
      - A line O(device) is tried with the other parities. Each try that stays without an answer takes a time-out.
    type: bool
    default: false
  search_units:
    description:
      - The other unit ids that O(search) asks.
    type: list
    elements: int
    default: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  identify:
    description:
      - Also ask for the device's identification, function 43/14. Through the collector this needs O(bus) and
        O(unit).
    type: bool
    default: false
  timeout:
    description:
      - Seconds to wait for each answer, and for a connection if that is more than 4 s. The collector has
        time-outs of its own.
    type: float
    default: 1.0
"""

    GROWTH = r"""
options:
  interval:
    description:
      - Seconds between two looks of this execution. V(0) looks once.
    type: float
    default: 0
  before:
    description:
      - RV(counters) of an earlier execution, to compare with. Not together with O(interval).
    type: dict
  limit:
    description:
      - How much a watched counter may grow.
    type: int
    default: 0
"""

    GUARD = r"""
options:
  guard:
    description:
      - How the change is guarded, see M(wattfleet.energy.guard).
    type: dict
    suboptions:
      wait_min:
        description:
          - Seconds that the confirmation may take at least. The wait is three times the measured time of a new
            connection, where that is more.
        type: float
        default: 60
      probes:
        description:
          - TCP connections from the host. Those that could be made before the change have to be possible at its
            confirmation, or it is undone at once.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: Name or address.
            type: str
            required: true
          port:
            description: TCP port.
            type: int
            required: true
      phase:
        description: Set by the action plugin. Compare only, or begin the change.
        type: str
        choices: [compare, begin]
        default: compare
      digest:
        description: Set by the action plugin. SHA-256 of the nonce.
        type: str
      wait:
        description: Set by the action plugin. Seconds until the change is undone.
        type: float
"""

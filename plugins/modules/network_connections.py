#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""NetworkManager connections: the profile on disk and the live state of the device, put right together."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: network_connections
short_description: Make NetworkManager connections persistent, and their devices agree with them
version_added: "0.1.0"
description:
  - Writes one keyfile a connection (and one a port of a bond), and compares the live state of its device with
    it, in one execution for all connections. The names that must be found without a name server are kept in
    C(/etc/hosts) in the same execution.
  - A difference is put right as one guarded change, by the action plugin of the same name. It is undone by the
    gateway itself unless the controller confirms it over a new connection.
  - A device that differs is brought up to date in place (C(nmcli device reapply)), and its connection is
    activated only where that is not enough. A device whose live state is right is left alone, even when
    another profile brought it there; the written one has the higher priority and takes over at the next boot.
  - What is compared on the device are addresses, routes, name servers, and, where they were asked for, metric
    and MTU. What DHCP and router advertisements bring is not.
  - A bond or VLAN that the kernel cannot make, a modem that is not plugged in, and an interface without a link
    are kept as profiles only, with a warning. NetworkManager brings them up when it can.
  - Profiles that this module wrote and that are not asked for any more are removed. Profiles of others are left
    as they are.
  - Needs NetworkManager 1.36 or newer and C(ip) of iproute2 on the host.
extends_documentation_fragment:
  - wattfleet.energy._attributes.guard
options:
  connections:
    description: The connections, in the order in which they are brought up; bonds go first, VLANs last.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the connection, and of its file.
        type: str
        required: true
      interface:
        description: Interface that the connection is bound to. For a modem the one that carries its IP traffic.
        type: str
        required: true
      addresses:
        description: IPv4 and IPv6 addresses with their prefix lengths.
        type: list
        elements: str
        default: []
      ipv4:
        description:
          - V(auto) asks DHCP, for ever. Left out, it is V(manual) where there are IPv4 addresses, else
            V(disabled).
        type: str
        choices: [auto, manual, disabled]
      ipv6:
        description:
          - V(auto) follows router advertisements. Left out, it is V(manual) where there are IPv6 addresses, else
            V(disabled).
        type: str
        choices: [auto, manual, link-local, disabled]
      gateway:
        description:
          - Next hop of the IPv4 default route. Without one the connection never becomes the default route,
            unless DHCP brings it.
        type: str
      gateway6:
        description: Next hop of the IPv6 default route.
        type: str
      routes:
        description: Static routes.
        type: list
        elements: dict
        default: []
        suboptions:
          to:
            description: Network, IPv4 or IPv6.
            type: str
            required: true
          via:
            description: Next hop, in a network of this connection.
            type: str
            required: true
          metric:
            description: Metric of this route. Left out, it is the connection's.
            type: int
      dns:
        description: Addresses of name servers.
        type: list
        elements: str
        default: []
      metric:
        description:
          - Metric of the connection's routes. Of two default routes the lower one is used. Left out, it is
            NetworkManager's choice.
        type: int
      mtu:
        description: MTU in bytes; 0 leaves the device's own.
        type: int
        default: 0
      bond:
        description: Makes the interface a bond.
        type: dict
        suboptions:
          interfaces:
            description: The interfaces that it is made of; at least two.
            type: list
            elements: str
            required: true
          mode:
            description: The bond's mode. V(802.3ad) and V(balance-xor) need a switch that is set up for it.
            type: str
            choices: [active-backup, 802.3ad, balance-xor]
            default: active-backup
          primary:
            description: The port that is used while it has a link, in mode V(active-backup).
            type: str
      vlan:
        description: Makes the interface a VLAN.
        type: dict
        suboptions:
          id:
            description: VLAN id.
            type: int
            required: true
          parent:
            description: Interface that carries it, which may be a bond.
            type: str
            required: true
      modem:
        description: The connection is one of a mobile modem, which gets its address from the network.
        type: dict
        suboptions:
          apn:
            description: Access point name.
            type: str
            required: true
          user:
            description: User name, where the provider wants one.
            type: str
  hosts:
    description:
      - Names that must be found without a name server, as a block of ours at the top of C(/etc/hosts).
      - Left out, C(/etc/hosts) is left alone; empty, our block is removed.
    type: list
    elements: dict
    suboptions:
      name:
        description: Host name.
        type: str
        required: true
      address:
        description: IPv4 or IPv6 address.
        type: str
        required: true
  modem_password:
    description: Password of the modem's connection. Never shown.
    type: str
  modem_pin:
    description: PIN of the modem's SIM. Never shown.
    type: str
  keep:
    description:
      - Addresses that Ansible reaches the host by. A change that would take one of them off the host is refused
        before anything is written.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what would differ and changes nothing.
    support: full
  diff_mode:
    description: Shows the keyfiles, the names and the live state of the devices.
    support: full
  platform:
    description: Linux with NetworkManager.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.guard
"""

EXAMPLES = r"""
- name: Give a gateway its two networks, and the hub's name
  wattfleet.energy.network_connections:
    connections:
      - name: EnergyInternal
        interface: eth1
        addresses: [192.168.10.10/24]
      - name: EnergyWan
        interface: eth0
        addresses: [198.18.0.11/19, "fd00:12::b/64"]
        gateway: 198.18.0.1
    hosts:
      - {name: hub.energy.example, address: 198.18.0.2}
    keep: [198.18.0.11]
    guard:
      probes: [{host: 198.18.0.2, port: 8883}]

- name: Meters in a VLAN on a bond, and a modem as the second way out
  wattfleet.energy.network_connections:
    connections:
      - name: trunk
        interface: bond0
        bond: {interfaces: [eth1, eth2]}
      - name: EnergyInternal
        interface: bond0.20
        vlan: {id: 20, parent: bond0}
        addresses: [192.168.10.10/24]
      - name: mobile
        interface: wwan0
        ipv4: auto
        modem: {apn: iot.example}
        metric: 700
        mtu: 1430
    modem_pin: "{{ vaulted_pin }}"
"""

RETURN = r"""
msg:
  description: What has become of the change, in one line.
  returned: when a change was begun
  type: str
  sample: >-
    lab-01: the change of network was applied, and confirmed over a new connection after 1.3 s. It would have been
    undone after 60 s; a new connection took 0.4 s.
connections:
  description: What was done for each connection.
  returned: always
  type: list
  elements: dict
  sample:
    - name: EnergyInternal
      profile: written
      device: brought up
  contains:
    name:
      description: Name of the connection.
      type: str
    profile:
      description:
        - V(unchanged), V(written), V(loaded) (the file was right, but NetworkManager held something else) or
          V(removed).
      type: str
    device:
      description:
        - V(unchanged), V(brought up), or V(absent) (there is no device, and none to be expected now).
      type: str
names:
  description: What was done with C(/etc/hosts), V(unchanged) or V(written).
  returned: always
  type: str
  sample: unchanged
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.embed import GUARD_SPEC, conclude, settle
from ansible_collections.wattfleet.energy.plugins.module_utils.network import (
    connection,
    faults,
    hosts,
    live,
    plan,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connections": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": connection.OPTIONS,
            },
            "hosts": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                },
            },
            "modem_password": {"type": "str", "no_log": True},
            "modem_pin": {"type": "str", "no_log": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "guard": GUARD_SPEC,
        },
        supports_check_mode=True,
    )
    options = module.params
    secrets = {"password": options["modem_password"], "pin": options["modem_pin"]}
    found = faults.lines(options["connections"], secrets, plan.interfaces())
    found += hosts.faults(options["hosts"] or [])
    if found:
        module.fail_json(msg="; ".join(found))

    nmcli, modprobe = module.get_bin_path("nmcli"), module.get_bin_path("modprobe")
    if nmcli is None and not module.check_mode:
        module.fail_json(msg="nmcli is missing on the host; install NetworkManager")
    settle(module)

    def run(command: list[str]) -> str:
        code, out, err = module.run_command(command)
        if code != 0:
            module.fail_json(msg=f"{' '.join(command)}: {(err or out).strip()}")
        return str(out)

    try:
        made = plan.make(
            options["connections"],
            options["hosts"],
            secrets,
            options["keep"],
            live.Snapshot.take(module.get_bin_path("ip", required=True), nmcli, run),
            nmcli=nmcli,
            able=lambda kind: live.kernel_able(kind, modprobe, lambda line: int(module.run_command(line)[0])),
        )
    except plan.RefusedError as refused:
        module.fail_json(msg=str(refused))
    for warning in made.warnings:
        module.warn(warning)
    change = Change("network", files=made.files, apply=made.apply, keep={"network": True})
    conclude(
        module,
        change,
        changed=made.changed,
        diff=made.diff,
        connections=made.connections,
        names=made.names,
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The inventory plugin wattfleet.energy.sites."""

from __future__ import annotations

DOCUMENTATION = r"""
name: sites
short_description: A fleet of energy gateways, one file a site
version_added: 0.1.0
author: Wattfleet contributors (@wattfleet)
description:
  - Reads a fleet file, whose name ends with C(sites.yml), and the folder of site files beside it.
  - Every file is checked against one schema before any host is contacted. All faults of all files are
    reported at once, one line each, with the file, the line, the key, what was found and what would be right.
  - Each site becomes a host with the site's name. The hub becomes the host V(hub).
  - Hosts have the variables C(ansible_host), C(ansible_user) and C(ansible_python_interpreter). Sites have
    C(energy_site), the site file with defaults filled in. All hosts have C(energy_fleet), the fleet file
    without O(plugin) and with C(sites) as the list of the sites' names.
  - Groups are C(gateways), C(hubs), C(region_<region>), C(ring_<ring>), C(model_<model>) and C(link_<type>)
    (with C(_) for C(-)), C(critical), C(has_solar) (a meter has the role V(generation)) and C(has_storage)
    (a meter has the role V(storage)).
  - C(docs/reference/site-file.md) of the collection lists every key of a site file;
    C(docs/reference/schema/) has the JSON Schemas for editors.
options:
  plugin:
    description: Always V(wattfleet.energy.sites).
    type: str
    required: true
    choices: [wattfleet.energy.sites]
  fleet:
    description: The fleet's name.
    type: str
    required: true
  sites:
    description: The folder of site files, beside the fleet file. A site's file is C(<site>.yml).
    type: str
    default: sites
  rings:
    description:
      - The rollout rings, in the order in which a change reaches them.
      - The first is the canary ring and takes no critical site.
    type: list
    elements: str
    required: true
  management:
    description: How the controller reaches the gateways.
    type: dict
    required: true
    suboptions:
      networks:
        description: Who may reach the gateways and the hub by SSH, as IPv4 and IPv6 networks.
        type: list
        elements: str
        required: true
      rescue:
        description: Networks whose SSH is let through before every other rule of the packet filter.
        type: list
        elements: str
      user:
        description: The user that Ansible logs in as, with sudo without a password.
        type: str
        required: true
  hub:
    description: The machine that the gateways deliver to.
    type: dict
    required: true
    suboptions:
      name:
        description: The hub's host name.
        type: str
        required: true
      address:
        description: The hub's IPv4 address, as the sites reach it.
        type: str
        required: true
      port:
        description: The broker's port.
        type: int
        default: 8883
      brokers_domain:
        description: Domain of the names that gateways dial, as C(<site>.<domain>).
        type: str
      brokers:
        description: Machines of their own that the brokers run on, each with C(name) and C(address).
        type: list
        elements: dict
      databases:
        description: PostgreSQL clusters of the hub beside V(main), each with C(name) and C(port).
        type: list
        elements: dict
      accept:
        description: Ports that are open on the hub besides the broker's; as a site file's C(firewall.accept).
        type: list
        elements: dict
      hardening:
        description: What hardening leaves to you on the hub; as a site file's C(hardening).
        type: dict
  rollout:
    description: The limits of rollouts, and the machines that reach the sites.
    type: dict
    suboptions:
      max_offline:
        description: At most so many sites are at risk at the same time, those that failed or are silent included.
        type: int
      max_failed:
        description: More sites than this that have failed or are silent halt the rollout.
        type: int
      growth:
        description: How many times larger a wave is than the one before.
        type: float
      soak:
        description: Seconds that a site is watched before its gate is judged.
        type: float
      patience:
        description: Seconds after the soak in which a gate may be inconclusive before a person is asked for.
        type: float
      install_time:
        description: Seconds that a gateway takes for an installation, reboot included.
        type: float
      deadlines:
        description: Seconds for C(transfer), C(install) and C(reboot); silence past a deadline is a failure.
        type: dict
      forks:
        description: At most so many sites are asked at the same time.
        type: int
      nodes:
        description: Execution nodes, each with C(name) and C(host), and if need be C(ssh_config) and C(runner).
        type: list
        elements: dict
  defaults:
    description:
      - Keys of a site file that a site may leave out, with what they then are.
      - Mappings are merged key by key.
    type: dict
  gates:
    description: What is asked of a site that runs a new release before a rollout goes on.
    type: dict
notes:
  - Give Ansible the fleet file, not its folder.
  - Ansible tries the next inventory plugin after a fault and then only warns, unless
    C(any_unparsed_is_failed) is set in the section C([inventory]) of C(ansible.cfg), or
    E(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED) in the environment.
    Set it, as the configuration of this collection does.
  - Values are data. The schema refuses templates in site files.
seealso:
  - name: Site file
    description: Every key of a site file and of a fleet file.
    link: https://github.com/wattfleet/wattfleet/blob/main/docs/reference/site-file.md
"""

EXAMPLES = r"""
# inventory/northwind/fleet.sites.yml; the sites are in inventory/northwind/sites/
plugin: wattfleet.energy.sites
fleet: northwind
rings: [canary, early, main, critical]
management: {networks: [10.1.0.0/24], user: admin}
hub: {name: hub.energy.example, address: 10.1.0.2}
defaults:
  interval: 10
  network:
    wan: {interface: eth0}
    energy: {interface: eth1, address: 192.168.10.10/24}

# inventory/northwind/sites/plant-a.yml
# site: plant-a
# region: emea
# ring: early
# timezone: Europe/Paris
# gateway: {model: moxa-uc-8220, address: 10.20.4.11}
# link: {type: lan}
# network:
#   wan: {address: 10.20.4.11/24, gateway: 10.20.4.1}
# buses:
#   - {name: hall, type: modbus-tcp, host: 192.168.10.20}
# meters:
#   - {name: main, bus: hall, unit: 1, profile: eastron-sdm630, role: main, ct_ratio: "200:5"}

# All faults of all files, or the groups:
#   ansible-inventory -i inventory/northwind/fleet.sites.yml --graph
# One site:
#   ansible-inventory -i inventory/northwind/fleet.sites.yml --host plant-a
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.wattfleet.energy.plugins.module_utils.inventory.fleet import (
    FaultsFoundError,
    load_fleet,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.inventory.groups import groups_of

# Named plainly: discovery is fooled by Python version managers' shims.
INTERPRETER = "/usr/bin/python3"


class InventoryModule(BaseInventoryPlugin):
    """Hosts, groups and variables from a fleet file and its sites."""

    NAME = "wattfleet.energy.sites"
    # The schema lets no template through. Without trust `ansible-inventory --list` would wrap every string
    # as unsafe.
    trusted_by_default = True

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith("sites.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        try:
            fleet = load_fleet(Path(path))
        except FaultsFoundError as faults:
            # As help text Ansible shows the lines once; as the message it repeats them.
            raise AnsibleParserError(faults.headline, help_text=faults.lines) from None
        user = fleet.facts["management"]["user"]
        inventory.set_variable("all", "energy_fleet", fleet.facts)
        for group in ("gateways", "hubs"):
            inventory.add_group(group)
        self._add("hub", "hubs", fleet.facts["hub"]["address"], user)
        for broker in fleet.facts["hub"].get("brokers", ()):
            inventory.add_group("brokers")
            self._add(broker["name"], "brokers", broker["address"], user)
            inventory.set_variable(broker["name"], "energy_broker", broker)
        for name, site in fleet.sites.items():
            self._add(name, "gateways", site["gateway"]["address"], user)
            inventory.set_variable(name, "energy_site", site)
            for group in groups_of(site):
                inventory.add_child(inventory.add_group(group), name)

    def _add(self, name: str, group: str, address: str, user: str) -> None:
        self.inventory.add_host(name, group=group)
        self.inventory.set_variable(name, "ansible_host", address)
        self.inventory.set_variable(name, "ansible_user", user)
        self.inventory.set_variable(name, "ansible_python_interpreter", INTERPRETER)

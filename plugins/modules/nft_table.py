#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""One nftables table: compared as loaded, tried with packets, and replaced under the guard."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nft_table
short_description: Keep one nftables table as wanted, and undo a change that nobody confirms
version_added: "0.1.0"
description:
  - Compares the table that the kernel holds with the wanted one, not a file with a file, so that a rule added
    or removed by hand is found. The wanted table is loaded into an empty network namespace and listed there
    by the host's own C(nft), which makes both listings comparable whatever the spelling of the rules.
  - Touches no table but its own, and refuses a ruleset that would.
  - A ruleset that differs is tried first, in two network namespaces joined by virtual cables, with real
    packets. It is refused, and nothing is changed, when the controller could not open a new SSH connection,
    when one of O(guard.probes) that the host has a route to could not be reached, or when all of O(strangers)
    could log in.
  - What passes is applied in one transaction under the guard, which confirms it over a new connection by
    itself and puts the old table back, with its counters, where none comes through.
  - The file O(path) that the table is loaded from at boot is written with the confirmation, so a reboot
    before that brings the old table back, too.
  - O(unit), which loads that file at boot, is enabled with the change, and is as it was where the change is undone.
    So no confirmed table is without a unit that loads it.
extends_documentation_fragment:
  - wattfleet.energy._attributes.guard
options:
  name:
    description: Name of the table, of family C(inet).
    type: str
    default: wattfleet
  content:
    description: The table, in nftables' own language.
    type: str
    required: true
  path:
    description: File that the table is loaded from at boot.
    type: path
    default: /etc/nftables.d/wattfleet.nft
  unit:
    description:
      - Unit of systemd that loads O(path) at boot, and is to start at every boot. It has to be installed already.
      - Without it no unit is looked at.
    type: str
  strangers:
    description:
      - Addresses that stand for everybody. At least one of those that are of the controller's address family
        must not be able to open an SSH connection. The default are addresses of the documentation networks.
    type: list
    elements: str
    default: [192.0.2.254, 198.51.100.254, 203.0.113.254, "2001:db8:ffff::fffe"]
attributes:
  check_mode:
    description: Says what would differ, or why it would be refused, and changes nothing.
    support: full
  diff_mode:
    description: Shows the table as loaded and as wanted, without counter values.
    support: full
  platform:
    description: Linux with systemd and nftables. The trial needs C(ip) of iproute2 and virtual Ethernet.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Apply the table, and confirm it over a new connection
  wattfleet.energy.nft_table:
    content: "{{ lookup('ansible.builtin.template', 'wattfleet.nft.j2') }}"
    unit: energy-firewall.service
    guard:
      wait_min: 120
      probes:
        - host: 198.18.0.2
          port: 8883
"""

RETURN = r"""
msg:
  description: What has become of the change, in one line.
  returned: when a change was begun
  type: str
  sample: >-
    lab-01: the change of firewall was applied, and confirmed over a new connection after 1.3 s. It would have been
    undone after 60 s; a new connection took 0.4 s.
tried:
  description: What the trial of a ruleset that differs has found, a line a connection.
  returned: when the table differs
  type: list
  elements: str
  sample: ["from 198.18.0.1 to port 22: comes through", "from 192.0.2.254 to port 22: does not come through"]
guard:
  description: What has become of the change.
  returned: when a change was begun
  type: dict
  contains:
    outcome:
      description: V(confirmed), V(undone), or V(unknown) where the host has not said what became of it.
      type: str
    measured:
      description: Seconds that a new connection takes.
      type: float
    wait:
      description: Seconds in which a confirmation could come.
      type: float
    took:
      description: Seconds from the begin to the end.
      type: float
    reason:
      description: Why the change was undone, or what a host has said last that is still undoing it.
      type: str
    restored_exactly:
      description: Whether the host is exactly as it was.
      type: bool
  sample:
    outcome: confirmed
    measured: 0.4
    wait: 60.0
    took: 1.3
    reason: null
    restored_exactly: null
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils._ruleset_trial import NoTrialError
from ansible_collections.wattfleet.energy.plugins.module_utils._ruleset_verdict import verdict
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.embed import GUARD_SPEC, conclude, settle
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.errors import GuardError
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Host
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.tables import without_passing


def replacing(name: str, content: str) -> str:
    """A script that puts `content` in the place of table `name`, if there is one, as one transaction."""
    return f"table inet {name}\ndelete table inet {name}\n{content}"


def forbidden(name: str, content: str) -> str | None:
    """Why a ruleset may not be loaded, in one line; None if it concerns table `name` only."""
    code = re.sub(r"#.*", "", content)
    if re.search(r"\bflush\s+ruleset\b", code):
        return "it flushes the ruleset, and other programs keep their tables there"
    if re.search(r"^\s*include\b", code, re.MULTILINE):
        return "it includes other files, which are not checked"
    for family, table in re.findall(r"\btable\s+(ip6?|inet|arp|bridge|netdev)?\s*([A-Za-z_][\w./-]*)", code):
        if (family, table) != ("inet", name):
            return f"it concerns table {family or 'ip'} {table}; only inet {name} is this role's"
    return None


def first_fault(text: str) -> str:
    """The first of nft's complaints in one line, without the name of a file that is gone by then."""
    first = text.strip().partition("\n")[0]
    return re.sub(r"^\S+/wanted\.nft:(\d+):", r"line \1, columns ", first)


def unit_differences(module: AnsibleModule, units: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Where units are not as wanted, as --diff shows it."""
    try:
        return Change(subject="firewall", units=units).differences(Host())
    except GuardError as error:
        module.fail_json(msg=f"{error}; nothing has been changed")
        raise AssertionError from None  # fail_json does not return


class Table:
    """The table in the kernel, and the wanted one beside it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.name = module.params["name"]

    def loaded(self) -> str:
        """The table as the kernel holds it, without what packets have put into its sets; '' if there is none."""
        code, out, err = self.module.run_command(["nft", "--stateless", "list", "table", "inet", self.name])
        if code == 0:
            return without_passing(str(out))
        if "No such file or directory" in err:
            return ""
        self.module.fail_json(msg=f"nft cannot list table inet {self.name}: {err.strip()}")
        raise AssertionError  # fail_json does not return

    def canonical(self, script: Path) -> str:
        """The table of a script as this host would list it, found out in an empty network namespace."""
        there = 'nft --file "$0" && nft --stateless list table inet "$1"'
        command = ["unshare", "--net", "sh", "-c", there, str(script), self.name]
        code, out, err = self.module.run_command(command)
        if code != 0:
            self.module.fail_json(
                msg=f"the wanted ruleset does not load, nothing has been changed: {first_fault(err or out)}"
            )
        return without_passing(str(out))

    def tried(self, script: Path) -> list[str]:
        """What the trial has found. A ruleset that fails it ends the module."""
        guard = self.module.params["guard"] or {}
        try:
            lines, refusal = verdict(str(script), guard.get("probes") or [], self.module.params["strangers"])
        except NoTrialError as problem:
            # The guard is still there: a change that cuts us off is undone, it only takes longer.
            self.module.warn(f"the wanted ruleset could not be tried before it is applied: {problem}")
            return []
        if refusal:
            self.module.fail_json(
                msg=f"the wanted ruleset is refused, nothing has been changed: {refusal}", tried=lines
            )
        return lines


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "wattfleet"},
            "content": {"type": "str", "required": True},
            "path": {"type": "path", "default": "/etc/nftables.d/wattfleet.nft"},
            "unit": {"type": "str"},
            "strangers": {
                "type": "list",
                "elements": "str",
                "default": ["192.0.2.254", "198.51.100.254", "203.0.113.254", "2001:db8:ffff::fffe"],
            },
            "guard": GUARD_SPEC,
        },
        supports_check_mode=True,
    )
    name, path, unit = module.params["name"], module.params["path"], module.params["unit"]
    content = module.params["content"].rstrip("\n") + "\n"
    reason = forbidden(name, content)
    if reason:
        module.fail_json(msg=f"the wanted ruleset is refused: {reason}")
    script_text = replacing(name, content)
    table = Table(module)
    on_disk = Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
    units = [{"name": unit, "enabled": True}] if unit else []
    diff = []
    if on_disk != script_text:
        diff = [{"before_header": path, "after_header": path, "before": on_disk, "after": script_text}]
    if module.get_bin_path("nft") is None:
        if module.check_mode:
            module.exit_json(changed=True, diff=diff + unit_differences(module, units))
        module.fail_json(msg="nft is missing on the host; install nftables")

    settle(module)
    script_argument = f"{{staged:{path}}}"
    change = Change(
        subject="firewall",
        files=[{"path": path, "content": script_text, "mode": "0600", "late": True}],
        units=units,
        keep={"tables": [f"inet {name}"]},
    )
    extra = {}
    with tempfile.TemporaryDirectory(prefix="nft_table.") as directory:
        script = Path(directory, "wanted.nft")
        script.write_text(script_text, encoding="utf-8")
        wanted, before = table.canonical(script), table.loaded()
        if before != wanted:
            headers = {"before_header": "table, loaded", "after_header": "table, wanted"}
            diff = [{**headers, "before": before, "after": wanted}]
            extra["tried"] = table.tried(script)
            change.check = [["nft", "--check", "--file", script_argument]]
            change.apply = [["nft", "--file", script_argument]]
    diff += unit_differences(module, units)
    conclude(module, change, changed=bool(diff), diff=diff, **extra)


if __name__ == "__main__":
    main()

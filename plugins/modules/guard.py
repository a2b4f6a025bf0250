#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Changes of a host that are undone unless they are confirmed over a new connection."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: guard
short_description: Change a host from afar, and undo the change unless it is confirmed over a new connection
version_added: "0.3.0"
description:
  - Changes files, units and settings of the kernel that could lock everybody out, in one execution where nothing
    differs.
  - Before anything is changed, the wanted files are checked by the host's own programs, all that the change may touch
    is kept on the disk, and a timer of the host's systemd is armed. A unit of systemd applies the change, so that it
    does not depend on the session.
  - The action plugin of the same name comes back over new connections and confirms the change. Without a confirmation,
    after a restart, a power cut, a step that fails, or a probe that does not pass any more, the host puts everything
    back and compares it with what was kept, until it is exactly as it was.
  - A change after which the next boot would lack a way in is undone as well. The units of sshd, of the network and of
    the firewall that a boot starts have to be started by the next one, nothing may be masked, and the default target
    has to be the same, unless O(units) or O(files) say otherwise by name. The last unit that brings up sshd or the
    network stays in any case.
  - What a step of the change needs longer than a confirmation can wait for does not belong in here; install packages
    before.
  - A change that an earlier run has left unconfirmed is undone first, with a warning.
extends_documentation_fragment:
  - wattfleet.energy._attributes.guard
options:
  state:
    description:
      - V(applied) compares, and applies what differs as a guarded change.
      - V(confirmed) keeps the change that waits. Comes from the action plugin; a confirmation that is refused changes
        nothing and fails.
      - V(restored) undoes the change that waits, now.
      - V(reverted) puts back what was there before the first change of O(subject), as a guarded change, and forgets it
        then.
      - V(status) tells what waits and what has happened, and changes nothing.
    type: str
    choices: [applied, confirmed, restored, reverted, status]
    default: applied
  subject:
    description: Name of the change, of small letters and hyphens. Needed for V(applied) and V(reverted).
    type: str
  files:
    description:
      - Files as they are wanted. Directories that are missing above them are made.
      - Nothing below C(/dev), C(/proc), C(/sys) and C(/usr) is kept, but for C(/usr/local), nor files with extended
        attributes that take a privilege over the whole machine, as C(trusted.*) do. A change that names them is
        refused.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      state:
        description:
          - V(file) with O(files[].content), V(link) to O(files[].target), or V(absent).
          - V(directory) is one of its own O(files[].mode) and owner, whatever is in it.
        type: str
        choices: [file, directory, link, absent]
        default: file
      content:
        description: Content of a file.
        type: str
      target:
        description: What a link leads to.
        type: str
      mode:
        description: Mode of a file, octal.
        type: str
        default: "0644"
      owner:
        description: Owner, by name or number.
        type: str
        default: root
      group:
        description: Group, by name or number.
        type: str
        default: root
      late:
        description: Write the file at the confirmation only, for files that are read at boot and nowhere else.
        type: bool
        default: false
      sensitive:
        description: Show digests instead of contents in the difference.
        type: bool
        default: false
  units:
    description: Units as they are wanted. What is not said stays as it is.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit, with its suffix.
        type: str
        required: true
      active:
        description: Whether it runs.
        type: bool
      enabled:
        description: Whether it starts at boot.
        type: bool
      masked:
        description: Whether it can be started at all.
        type: bool
  sysctls:
    description:
      - Settings of the kernel, by name. They hold until the next boot; name a file below C(/etc/sysctl.d) in O(files)
        as well.
    type: dict
    default: {}
  check:
    description:
      - Commands that have to succeed before anything is changed, each a list of words.
      - In these and in O(apply), C({staged:/path}) stands for the place where the wanted content of that file lies
        already.
    type: list
    elements: list
    default: []
  apply:
    description:
      - Commands that are run once files, settings and units are in place, each a list of words.
      - They run as root without what a change of a host does not need. They cannot load modules of the kernel, mount,
        set the clock, make namespaces or talk over IP. What one of them cannot do makes it fail, and the change is
        undone; write it as two steps in two places then.
      - Each runs in one of three places. In V(files) it has all files, and systemd by C(systemctl), but a C(/dev) and
        a network of its own, and settings of the kernel cannot be written. In V(network) it has the host's links,
        tables, and settings below C(net), and NetworkManager, but writes nothing below C(/etc), C(/usr) and C(/boot),
        and sees nothing of C(/home) and C(/root). In V(kernel) it has all other settings of the kernel and C(/dev), no
        network, and writes as little. No place has sockets of IP.
      - Where it runs is told by its program. V(network) is for C(ip), C(nft), C(nmcli), C(tc), C(bridge),
        C(ethtool), C(ss), C(networkctl), C(resolvectl), C(iw), C(wg), C(conntrack), C(ipset) and C(iptables) with its
        kin, V(kernel) for C(sysctl) with settings that are none of the network, V(files) for all others. A
        dictionary with the keys C(command) and C(place) says otherwise.
      - A dictionary with the key C(bring_up), itself a dictionary of C(interface) and C(uuid), has NetworkManager bring
        the device in line with that connection.
      - Those that have units of systemd reload or restart are run again when the files are put back.
    type: list
    elements: raw
    default: []
  keep:
    description: What is kept and put back besides what is named above, since O(apply) changes it.
    type: dict
    default: {}
    suboptions:
      directories:
        description: Directories with all that is in them. Files that appear in them later are removed by a restore.
        type: list
        elements: str
        default: []
      network:
        description:
          - NetworkManager's profiles and active connections, and the kernel's links, addresses and routes.
        type: bool
        default: false
      tables:
        description: Tables of nftables with their families, such as V(inet wattfleet), with their counters.
        type: list
        elements: str
        default: []
      units:
        description: Units whose states are put back.
        type: list
        elements: str
        default: []
      sysctls:
        description: Settings of the kernel.
        type: list
        elements: str
        default: []
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
  wait_min:
    description:
      - Seconds that the confirmation may take at least. The wait is three times the measured time of a new connection
        with one execution, where that is more.
    type: float
    default: 60
  nonce:
    description: Proves that the confirmation is for this change. Comes from the action plugin.
    type: str
attributes:
  check_mode:
    description: Says what would differ and changes nothing.
    support: full
  diff_mode:
    description: Shows files, and the states of units and settings.
    support: full
  idempotent:
    description: The second run changes nothing, and costs one execution.
    support: full
  platform:
    description: Linux with systemd 249 or newer.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Let in keys only
  wattfleet.energy.guard:
    subject: sshd
    files:
      - path: /etc/ssh/sshd_config.d/10-energy.conf
        content: |
          PasswordAuthentication no
          PermitRootLogin no
    check: [[/usr/sbin/sshd, -t, -f, "{staged:/etc/ssh/sshd_config.d/10-energy.conf}"]]
    apply: [[systemctl, reload, ssh.service]]
    probes: [{host: 198.18.0.2, port: 8883}]
    wait_min: 120
  register: sshd
  become: true

- name: It was kept
  ansible.builtin.assert:
    that: sshd is not changed or sshd.guard.outcome == 'confirmed'

- name: Put back what was there before the first change
  wattfleet.energy.guard:
    state: reverted
    subject: sshd
  become: true
"""

RETURN = r"""
msg:
  description: What has become of the change, in one line.
  returned: when a change was begun
  type: str
  sample: >-
    lab-01: the change of sshd was applied, and confirmed over a new connection after 1.3 s. It would have been
    undone after 60 s; a new connection took 0.4 s.
guard:
  description: What became of the change.
  returned: when something differed, outside check mode
  type: dict
  sample: {outcome: confirmed, measured: 0.4, wait: 60, took: 2.1, reason: null, restored_exactly: null}
  contains:
    outcome:
      description: V(confirmed) or V(undone); V(unknown) if the host did not say which until 30 s after the wait.
      type: str
    measured:
      description: Seconds that a new connection with one execution took.
      type: float
    wait:
      description: Seconds that the host would have waited for the confirmation.
      type: float
    took:
      description: Seconds from the beginning of the change until its outcome was known.
      type: float
    reason:
      description: Why it was undone, or what a host has said last that is still undoing it.
      type: str
    restored_exactly:
      description: Whether the host has compared itself with what was kept, and found no difference.
      type: bool
status:
  description: What waits and what has happened.
  returned: when O(state=status)
  type: dict
  contains:
    phase:
      description: V(none) if nothing waits, V(armed), V(applying), V(applied), V(failed) or V(restoring).
      type: str
    subject:
      description: Subject of the change that waits.
      type: str
    remaining:
      description: Seconds until its deadline.
      type: float
    last:
      description: The last change that has ended.
      type: dict
    history:
      description: The last changes and refusals, the oldest first.
      type: list
      elements: dict
    originals:
      description: Subjects that can be reverted.
      type: list
      elements: str
    peer:
      description: Address that the controller comes from; null where it does not come by SSH.
      type: str
refusal:
  description: Why a confirmation was refused, in one word.
  returned: when O(state=confirmed) fails
  type: str
  sample: wrong_nonce
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import engine, originals
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.change import Change
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.embed import (
    GUARD_SPEC,
    PROBES,
    conclude,
    ended,
    refuse_others,
    settle,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.errors import GuardError, RefusedError
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.host import Host
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.peer import (
    connection_age,
    controller_address,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.store import Store

FILE = {
    "path": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
    "content": {"type": "str"},
    "target": {"type": "str"},
    "mode": {"type": "str", "default": "0644"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "late": {"type": "bool", "default": False},
    "sensitive": {"type": "bool", "default": False},
}
UNIT = {
    "name": {"type": "str", "required": True},
    "active": {"type": "bool"},
    "enabled": {"type": "bool"},
    "masked": {"type": "bool"},
}
NAMES = {"type": "list", "elements": "str", "default": []}
KEEP = {
    "directories": NAMES,
    "network": {"type": "bool", "default": False},
    "tables": NAMES,
    "units": NAMES,
    "sysctls": NAMES,
}
SPEC = {
    "state": {
        "type": "str",
        "choices": ["applied", "confirmed", "restored", "reverted", "status"],
        "default": "applied",
    },
    "subject": {"type": "str"},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
    "units": {"type": "list", "elements": "dict", "default": [], "options": UNIT},
    "sysctls": {"type": "dict", "default": {}},
    "check": {"type": "list", "elements": "list", "default": []},
    "apply": {"type": "list", "elements": "raw", "default": []},
    "keep": {"type": "dict", "default": {}, "options": KEEP},
    "probes": PROBES,
    "wait_min": {"type": "float", "default": 60},
    "nonce": {"type": "str", "no_log": True},
    "guard": GUARD_SPEC,
}
WANTED = ("subject", "files", "units", "sysctls", "check", "apply", "keep", "probes", "wait_min")


def apply(module: AnsibleModule, host: Host) -> None:
    """Compare, and begin what differs."""
    change = Change.from_dict({key: module.params[key] for key in WANTED})
    settle(module, host)
    diff = change.differences(host)
    conclude(module, change, changed=bool(diff), diff=diff, host=host)


def revert(module: AnsibleModule, host: Host) -> None:
    """Compare with the originals, and begin to put them back."""
    settle(module, host)
    store, subject = Store(host), module.params["subject"]
    lines = originals.differences(host, store, subject)
    if lines is None:
        module.exit_json(changed=False, diff=[])
    if not lines and not module.check_mode:
        with store.lock():
            originals.forget(store, subject)
    change = originals.change_of(store, subject, probes=module.params["probes"]) if lines else Change(subject)
    header = f"{subject}, before its first change"
    diff = [
        {
            "before_header": header,
            "after_header": header,
            "before": "".join(f"{line}\n" for line in lines),
            "after": "",
        }
    ]
    conclude(module, change, changed=bool(lines), diff=diff if lines else [], host=host)


def confirm(module: AnsibleModule, host: Host) -> None:
    """Keep the change that waits, or say why not."""
    try:
        done = engine.confirm(host, module.params["nonce"], connection_age())
    except RefusedError as refusal:
        found = (
            ended(Store(host), engine.digest_of(module.params["nonce"]))
            if refusal.kind in ("late", "probe", "boot")
            else {}
        )
        module.fail_json(
            msg=str(refusal),
            refusal=refusal.kind,
            **{**found, "outcome": refusal.outcome or found.get("outcome")},
        )
    module.exit_json(changed=True, **done)


def restore(module: AnsibleModule, host: Host) -> None:
    """Undo the change that waits."""
    store = Store(host)
    record = store.change()
    if record is None or module.check_mode:
        module.exit_json(changed=record is not None)
    engine.request_restore(host, "it was asked for")
    found = ended(store, record["digest"])
    if found.get("outcome") != "undone":
        module.fail_json(
            msg=f"the change of {record['subject']} is not undone yet; see journalctl -t energy-guard"
        )
    module.exit_json(changed=True, **found)


def main() -> None:
    module = AnsibleModule(
        argument_spec=SPEC,
        required_if=[("state", "applied", ["subject"]), ("state", "reverted", ["subject"])],
        supports_check_mode=True,
    )
    refuse_others(module)
    host = Host()
    state = module.params["state"]
    try:
        if state == "status":
            found: dict[str, Any] = {**engine.status(host), "peer": controller_address()}
            module.exit_json(changed=False, status=found)
        elif state == "confirmed":
            if module.check_mode:
                module.exit_json(changed=Store(host).change() is not None)
            confirm(module, host)
        else:
            {"applied": apply, "reverted": revert, "restored": restore}[state](module, host)
    except GuardError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

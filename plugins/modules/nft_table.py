#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""One nftables table: compared as loaded, replaced in one transaction, undone unless it is confirmed."""

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
  - A change is applied in one transaction after a timer of the host's systemd was armed that puts the
    old table back. It is written to O(path) only when it is confirmed, so a reboot before that brings the old
    table back, too.
  - Confirm with O(state=confirmed) over a new connection; a session that was open before the change proves
    nothing, since established connections are let through.
options:
  name:
    description: Name of the table, of family C(inet).
    type: str
    default: wattfleet
  state:
    description:
      - V(present) compares, and applies what differs with the timer armed.
      - V(confirmed) stops the timer and makes the change persistent.
    type: str
    choices: [present, confirmed]
    default: present
  content:
    description: The table, in nftables' own language. Needed for O(state=present).
    type: str
  path:
    description: File that the table is loaded from at boot.
    type: path
    default: /etc/nftables.d/wattfleet.nft
  revert_after:
    description: Time without a confirmation after which the old table is put back, in seconds.
    type: int
    default: 60
  nonce:
    description: RV(nonce) of the change to confirm. Needed for O(state=confirmed).
    type: str
attributes:
  check_mode:
    description: Says what would differ and changes nothing.
    support: full
  diff_mode:
    description: Shows the table as loaded and as wanted, without counter values.
    support: full
  platform:
    description: Linux with systemd and nftables.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Apply the table
  wattfleet.energy.nft_table:
    content: "{{ lookup('ansible.builtin.template', 'wattfleet.nft.j2') }}"
  register: table

- name: Come back over a new connection
  ansible.builtin.wait_for_connection:
    timeout: 50

- name: Confirm it
  wattfleet.energy.nft_table:
    state: confirmed
    nonce: "{{ table.nonce }}"
  when: table.nonce is defined
"""

RETURN = r"""
nonce:
  description: Names the change that waits for its confirmation.
  returned: when a change was applied that needs one
  type: str
  sample: 5f0c1b3e9a7d4c21
"""

import json
import re
import secrets
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import replace_file

RUN = Path("/run/energy-firewall")
UNIT = "energy-firewall-revert"
PENDING = RUN / "pending.json"
REVERT = RUN / "revert.nft"


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


def comparable(listing: str) -> str:
    """A listing without what packets have put into it: the elements of dynamic sets."""
    return re.sub(
        r"(\n\t\tflags [^\n]*\bdynamic\b[^\n]*(?:\n\t\t(?!elements)[^\n]*)*)\n\t\telements = \{[^}]*\}", r"\1", listing
    )


class Table:
    """The table in the kernel, the timer beside it, and the file it comes back from."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.name = module.params["name"]
        self.path = Path(module.params["path"])

    def run(self, *command: str, problem: str) -> str:
        """Output of a command; if it fails, the module ends with `problem` and the command's own words."""
        code, out, err = self.module.run_command(list(command))
        if code != 0:
            self.module.fail_json(msg=f"{problem}: {(err or out).strip()}")
        return str(out)

    def loaded(self, *, counters: bool = False) -> str:
        """The table as the kernel holds it; '' if there is none."""
        options = [] if counters else ["--stateless"]
        code, out, err = self.module.run_command(["nft", *options, "list", "table", "inet", self.name])
        if code == 0:
            return str(out) if counters else comparable(str(out))
        if "No such file or directory" in err:
            return ""
        self.module.fail_json(msg=f"nft cannot list table inet {self.name}: {err.strip()}")
        raise AssertionError  # fail_json does not return

    def canonical(self, script: Path) -> str:
        """The table of a script as this host would list it, found out in an empty network namespace."""
        return self.run(
            "unshare", "--net", "sh", "-c", 'nft --file "$0" && nft --stateless list table inet "$1"',
            str(script), self.name,
            problem="the wanted ruleset does not load, nothing has been changed",
        )  # fmt: skip

    def armed(self) -> bool:
        code, _out, _err = self.module.run_command(["systemctl", "is-active", "--quiet", f"{UNIT}.timer"])
        return bool(code == 0)

    def undo_unconfirmed(self) -> None:
        """Finish what a run that never confirmed has left: put its old table back now instead of later."""
        if self.armed():
            self.disarm()
            self.run(
                "nft",
                "--file",
                str(REVERT),
                problem="the table before an unconfirmed change cannot be put back",
            )
            self.module.warn(
                "an earlier change of the firewall was never confirmed; it was undone before this one"
            )
        PENDING.unlink(missing_ok=True)

    def arm(self, nonce: str, content: str, wanted: str) -> None:
        """Start the clock: without a confirmation the host puts back the table that it has now."""
        seconds = self.module.params["revert_after"]
        replace_file(REVERT, replacing(self.name, self.loaded(counters=True)), 0o600)
        replace_file(PENDING, json.dumps({"nonce": nonce, "content": content, "wanted": wanted}), 0o600)
        self.run(
            "nft",
            "--check",
            "--file",
            str(REVERT),
            problem="the table that is loaded now could not be put back, nothing has been changed",
        )
        restore = (
            f"nft --file {REVERT} && rm -f {PENDING} && "
            f"echo 'no confirmation within {seconds} s: the old table inet {self.name} is back'"
        )
        self.run(
            "systemd-run", "--quiet", "--collect", f"--unit={UNIT}",
            f"--on-active={seconds}s", "--timer-property=AccuracySec=100ms",
            "--description=Undo an unconfirmed change of the firewall", "/bin/sh", "-c", restore,
            problem="the timer that would undo the change could not be armed, nothing has been changed",
        )  # fmt: skip

    def disarm(self) -> None:
        """Stop the timer, and the undoing itself if it has just begun."""
        self.module.run_command(["systemctl", "stop", f"{UNIT}.timer", f"{UNIT}.service"])
        if self.armed():
            self.module.fail_json(
                msg=f"{UNIT}.timer cannot be stopped, so the change will be undone; see systemctl status"
            )

    def apply(self, content: str, script: Path, wanted: str) -> str:
        """Apply the wanted table with the timer armed; returns the nonce that confirms it."""
        self.undo_unconfirmed()
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.run(
            "nft",
            "--check",
            "--file",
            str(script),
            problem="nft refuses the wanted ruleset, nothing has been changed",
        )
        nonce = secrets.token_hex(8)
        self.arm(nonce, content, wanted)
        code, _out, err = self.module.run_command(["nft", "--file", str(script)])
        if code != 0:
            self.disarm()
            self.module.fail_json(
                msg=f"nft did not load the wanted ruleset, the old one is still in force: {err.strip()}"
            )
        return nonce

    def confirm(self, nonce: str) -> None:
        """Keep an applied table. Fails when the nonce is another's, or the old table is back already."""
        try:
            pending = json.loads(PENDING.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.module.fail_json(
                msg="there is no change to confirm: no confirmation came in time, or the host was rebooted. "
                f"See journalctl -u {UNIT}."
            )
        if pending["nonce"] != nonce:
            self.module.fail_json(
                msg="this confirmation is for another change than the one that waits; nothing is confirmed"
            )
        self.disarm()
        # The timer may have fired before that: what counts is what is loaded now that it can no longer fire.
        if self.loaded() != pending["wanted"]:
            self.module.fail_json(
                msg=f"the change was undone before its confirmation came. See journalctl -u {UNIT}."
            )
        replace_file(self.path, replacing(self.name, pending["content"]), 0o600)
        PENDING.unlink()
        REVERT.unlink()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "wattfleet"},
            "state": {"type": "str", "choices": ["present", "confirmed"], "default": "present"},
            "content": {"type": "str"},
            "path": {"type": "path", "default": "/etc/nftables.d/wattfleet.nft"},
            "revert_after": {"type": "int", "default": 60},
            "nonce": {"type": "str"},
        },
        required_if=[("state", "present", ["content"]), ("state", "confirmed", ["nonce"])],
        supports_check_mode=True,
    )
    table = Table(module)
    if module.params["state"] == "confirmed":
        if not module.check_mode:
            table.confirm(module.params["nonce"])
        module.exit_json(changed=True)

    content = module.params["content"].rstrip("\n") + "\n"
    reason = forbidden(table.name, content)
    if reason:
        module.fail_json(msg=f"the wanted ruleset is refused: {reason}")
    script_text = replacing(table.name, content)
    on_disk = table.path.read_text(encoding="utf-8") if table.path.exists() else ""
    file_diff = {
        "before_header": str(table.path),
        "after_header": str(table.path),
        "before": on_disk,
        "after": script_text,
    }

    if module.get_bin_path("nft") is None:
        if module.check_mode:
            module.exit_json(changed=True, diff=[file_diff])
        module.fail_json(msg="nft is missing on the host; install nftables")

    with tempfile.TemporaryDirectory(prefix="nft_table.") as directory:
        script = Path(directory, "wanted.nft")
        script.write_text(script_text, encoding="utf-8")
        wanted, before = table.canonical(script), table.loaded()
        if before != wanted:
            diff = [
                {
                    "before_header": "table, loaded",
                    "after_header": "table, wanted",
                    "before": before,
                    "after": wanted,
                }
            ]
        else:
            diff = [file_diff] if on_disk != script_text else []
        if module.check_mode or not diff:
            module.exit_json(changed=bool(diff), diff=diff)
        if before != wanted:
            RUN.mkdir(mode=0o700, exist_ok=True)
            module.exit_json(changed=True, diff=diff, nonce=table.apply(content, script, wanted))
    # What is loaded is what is wanted, so there is nothing that could cut anybody off.
    table.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    replace_file(table.path, script_text, 0o600)
    module.exit_json(changed=True, diff=diff)


if __name__ == "__main__":
    main()

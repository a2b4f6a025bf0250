#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Services that run from the files as they are now, whoever changed those and whenever."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: service_current
short_description: Keep services running, and not older than the files they run from
version_added: "0.2.0"
description:
  - Makes sure that systemd units start at boot, are active, and have been started after the last change of the
    files they run from.
  - What counts is the host, not what an earlier task of the same run has done. A run that was stopped between
    the change of a file and the restart of its service is thereby finished by the next run, which a handler
    would not do.
  - Has systemd read its unit files again before a start or restart, and where it says that they have changed.
  - A file is as old as the last change of its content, name, owner or mode (C(ctime)), which nobody can set back.
  - A service is as old as the moment at which systemd began to start it. Where the clock was set since then, that
    moment has two readings, the one of then and the one that follows from the time passed (C(CLOCK_MONOTONIC)).
    The earlier one counts, so that a step of the clock may cost one restart too many and never one too few.
  - A file from the future, which a clock that was ahead has left, gets the present time before the service is
    started, so that it is not taken for changed again.
options:
  units:
    description: The services. Those that need the same are started, restarted or reloaded together.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit, with its suffix.
        type: str
        required: true
      files:
        description:
          - Absolute paths of files or directories whose change needs a restart, the unit's own file among them.
          - Of a symbolic link both the link itself and what it leads to count.
        type: list
        elements: path
        default: []
      reload_for:
        description: The same for files that the service reads again when it is reloaded.
        type: list
        elements: path
        default: []
attributes:
  check_mode:
    description: Says what would be done for the files as they are. Files that are missing do not count then.
    support: full
  diff_mode:
    description: Shows for each unit what it was found as and what was done, and because of which file.
    support: full
  idempotent:
    description: The second run changes nothing.
    support: full
  platform:
    description: Linux with systemd 247 or newer.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Run the broker
  wattfleet.energy.service_current:
    units:
      - name: mosquitto.service
        files: [/etc/mosquitto/mosquitto.conf, /etc/ssl/energy/ca.crt]
        reload_for: [/etc/ssl/energy/server.crt]
  register: broker

- name: Tell why it was touched
  ansible.builtin.debug:
    var: broker.reason
  when: broker is changed
"""

RETURN = r"""
reason:
  description: What was done and why, in one line; empty when nothing was.
  returned: always
  type: str
  sample: "mosquitto.service restarted: /etc/mosquitto/mosquitto.conf is newer"
units:
  description: The units, in the order of O(units).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the unit.
      type: str
      sample: mosquitto.service
    action:
      description: What was done with the process, V(none), V(start), V(restart) or V(reload).
      type: str
      sample: restart
    enabled:
      description: Whether it had to be enabled.
      type: bool
      sample: false
    reasons:
      description: Why, one text a reason.
      type: list
      elements: str
      sample: [/etc/mosquitto/mosquitto.conf is newer]
"""

import os
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PROPERTIES = (
    "LoadState,ActiveState,UnitFileState,NeedDaemonReload,"
    "InactiveExitTimestamp,InactiveExitTimestampMonotonic,"
    "ActiveEnterTimestampMonotonic,StateChangeTimestamp,StateChangeTimestampMonotonic"
)
# What `systemctl is-enabled` takes for enabled.
ENABLED = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")


@dataclass
class Unit:
    """A unit as systemd knows it. Moments are µs since 1970, 0 for never."""

    name: str
    load: str
    active: str
    enabled: str
    outdated: bool  # systemd has not read its files since they changed
    started: int
    loaded: int  # when it last read what a reload reads


@dataclass
class Step:
    """What a unit needs."""

    unit: Unit
    action: str = "none"
    enable: bool = False
    reasons: list[str] = field(default_factory=list)


def moment(block: dict[str, str], name: str, booted: int) -> int:
    """The earlier of two readings of a time stamp; `booted` is when CLOCK_MONOTONIC was 0 by today's clock, in µs."""
    passed = int(block.get(f"{name}Monotonic") or 0)
    if passed == 0:
        return 0
    # Such as "Sun 2026-11-22 14:47:52.012345 UTC".
    _weekday, _space, text = block[name].partition(" ")
    read = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=timezone.utc)
    since_1970 = read - datetime(1970, 1, 1, tzinfo=timezone.utc)
    microseconds = (since_1970.days * 86400 + since_1970.seconds) * 1_000_000 + since_1970.microseconds
    return min(microseconds, booted + passed)


def parse(name: str, text: str, booted: int) -> Unit:
    """One block of `systemctl show`."""
    block = dict(line.partition("=")[::2] for line in text.splitlines())
    started = moment(block, "InactiveExitTimestamp", booted)
    # A running service changes its state when it is reloaded, and its start is no reload.
    changed, entered = (
        int(block.get(f"{stamp}TimestampMonotonic") or 0) for stamp in ("StateChange", "ActiveEnter")
    )
    return Unit(
        name=name,
        load=block.get("LoadState", ""),
        active=block.get("ActiveState", ""),
        enabled=block.get("UnitFileState", ""),
        outdated=block.get("NeedDaemonReload") == "yes",
        started=started,
        loaded=moment(block, "StateChangeTimestamp", booted) if changed > entered > 0 else started,
    )


def way(path: Path) -> list[Path]:
    """A path, each symbolic link that it leads over, and what it leads to."""
    path.stat()  # refuses a link that leads nowhere, or in circles
    found = [path]
    while found[-1].is_symlink():
        found.append(found[-1].parent / found[-1].readlink())
    return found


def changed_at(path: Path) -> int:
    """When a path last changed, a link on its way included, in µs since 1970."""
    return max(part.lstat().st_ctime_ns for part in way(path)) // 1000


def leave_future(path: Path) -> None:
    """Give a path that changed later than now the present time of change; the times of its content stay."""
    if changed_at(path) > time.time_ns() // 1000:
        for part in way(path):
            found = part.lstat()
            os.utime(part, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def judge(unit: Unit, files: dict[str, int], reload_for: dict[str, int]) -> Step:
    """What a unit needs for files that changed at the given times."""
    step = Step(unit)
    if unit.outdated:
        step.reasons.append("systemd had not read its files since they changed")
    if unit.enabled not in ENABLED:
        step.enable = True
        step.reasons.append("it did not start at boot")
    newer = sorted(path for path, changed in files.items() if changed > unit.started)
    unread = sorted(path for path, changed in reload_for.items() if changed > unit.loaded)
    if unit.active not in ("active", "reloading"):
        step.action = "start"
        step.reasons.append(f"it was {unit.active or 'unknown'}")
        # One that comes up again and again, and never with the files as they are, has to be stopped first.
        if unit.active == "activating" and newer:
            step.action = "restart"
    elif newer:
        step.action = "restart"
    elif unread:
        step.action = "reload"
    step.reasons += [f"{path} is newer" for path in newer + unread if step.action in ("restart", "reload")]
    return step


def text_of(steps: list[Step], done: bool) -> str:
    """The units before and after, a line each, for people."""
    lines = []
    for step in steps:
        state = f"{step.unit.active or 'unknown'}, {step.unit.enabled or 'not enabled'}"
        if done and step.reasons:
            verbs = [word for word in (step.action, "enable" if step.enable else "none") if word != "none"]
            state = f"{' and '.join(verbs) or 'read its files'}: {', '.join(step.reasons)}"
        lines.append(f"{step.unit.name}: {state}\n")
    return "".join(lines)


class Host:
    """systemd and the files, with every fault told in one line."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.systemctl = module.get_bin_path("systemctl", required=True)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code, out, err = self.module.run_command([self.systemctl, *arguments])
        return int(code), str(out), str(err)

    def look(self, names: list[str]) -> list[Unit]:
        """The units as they are."""
        booted = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        code, out, err = self.run("show", "--timestamp=us+utc", f"--property={PROPERTIES}", "--", *names)
        blocks = out.strip().split("\n\n")
        if code != 0 or len(blocks) != len(names):
            self.module.fail_json(
                msg=f"systemd does not tell of {', '.join(names)}: {err.strip() or out.strip()}"
            )
        return [parse(name, block, booted) for name, block in zip(names, blocks, strict=True)]

    def times(self, name: str, paths: list[str]) -> dict[str, int]:
        """When each path last changed. In a check run a file that an earlier task would make may be missing."""
        result = {}
        for path in paths:
            try:
                result[path] = changed_at(Path(path))
            except OSError as error:
                if not (self.module.check_mode and isinstance(error, FileNotFoundError)):
                    self.module.fail_json(msg=f"{name} cannot run from {path}: {error.strerror}")
        return result

    def bring(self, action: str, *names: str) -> None:
        """Have systemd do something with units, all of them together."""
        code, _out, err = self.run(action, "--", *names)
        if code != 0:
            units = [word for name in names for word in ("--unit", name)]
            journal = self.module.run_command(
                ["journalctl", "--no-pager", "--quiet", "--lines=8", "--output=cat", *units]
            )[1]
            self.module.fail_json(
                msg=f"systemctl {action} {' '.join(names)}: {err.strip()} The journal ends with: "
                + " | ".join(str(journal).strip().splitlines())
            )


def main() -> None:
    paths = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "files": paths,
                    "reload_for": paths,
                },
            },
        },
        supports_check_mode=True,
    )
    wanted = module.params["units"]
    relative = [path for unit in wanted for path in unit["files"] + unit["reload_for"] if path[:1] != "/"]
    if relative:
        module.fail_json(msg=f"absolute paths are needed, not {', '.join(relative)}")
    host = Host(module)
    names = [unit["name"] for unit in wanted]
    found = host.look(names)
    if not module.check_mode:
        # A unit whose file is new may still be known as missing.
        if any(unit.load == "not-found" for unit in found):
            host.bring("daemon-reload")
            found = host.look(names)
        unusable = [f"{unit.name} is {unit.load}" for unit in found if unit.load != "loaded"]
        if unusable:
            module.fail_json(msg=f"systemd cannot run it: {', '.join(unusable)}")

    steps = [
        judge(unit, host.times(unit.name, item["files"]), host.times(unit.name, item["reload_for"]))
        for unit, item in zip(found, wanted, strict=True)
    ]
    if not module.check_mode:
        # Not only where systemd asks for it: version 252 misses a drop-in that is the first one of its unit.
        if any(step.unit.outdated or step.action in ("start", "restart") for step in steps):
            host.bring("daemon-reload")
        disabled = [step.unit.name for step in steps if step.enable]
        if disabled:
            host.bring("enable", *disabled)
        for action in ("start", "restart", "reload"):
            chosen = [step.unit.name for step in steps if step.action == action]
            if chosen:
                for item in wanted:
                    if item["name"] in chosen:
                        for path in item["files"] + item["reload_for"]:
                            leave_future(Path(path))
                host.bring(action, *chosen)

    reason = "; ".join(
        f"{step.unit.name} {step.action if step.action != 'none' else 'kept'}: {', '.join(step.reasons)}"
        for step in steps
        if step.reasons
    )
    module.exit_json(
        changed=bool(reason),
        reason=reason,
        units=[
            {
                "name": step.unit.name,
                "action": step.action,
                "enabled": step.enable,
                "reasons": step.reasons,
            }
            for step in steps
        ],
        diff={"before": text_of(steps, False), "after": text_of(steps, True)},
    )


if __name__ == "__main__":
    main()

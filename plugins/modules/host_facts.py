#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""All that must be known of a host before anything on it is touched, read in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_facts
short_description: Read what a host must offer before it is touched
version_added: "0.1.0"
description:
  - Reads operating system, kernel, Python, OpenSSL, free disk space, programs and clock of a host in one
    execution.
  - The result is the fact C(energy_host), which the roles of this collection compare with and which later
    roles of a run use again.
  - The clock is compared with the controller's by the action plugin of the same name. The gateway reads its
    clock at some moment between the start and the end of the execution, so the true offset is known to lie
    between two bounds.
options:
  disks:
    description:
      - Directories whose file systems are measured. Of one that does not exist yet, its nearest existing
        parent is measured.
    type: list
    elements: path
    default: [/var, /opt]
  programs:
    description:
      - Programs to look for, as keys, and package names that bring each (distributions disagree), as values.
      - Packages are only asked about when their program is missing.
    type: dict
    default: {nmcli: [network-manager, NetworkManager], nft: [nftables]}
attributes:
  check_mode:
    description: Reads only, so check mode makes no difference.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  platform:
    description: Linux.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Read the host
  wattfleet.energy.host_facts:
    disks: [/var]

- name: Stop when its clock is certainly wrong
  ansible.builtin.assert:
    that:
      - ansible_facts.energy_host.clock.offset_min <= 5
      - ansible_facts.energy_host.clock.offset_max >= -5
"""

RETURN = r"""
ansible_facts:
  description: The fact C(energy_host).
  returned: always
  type: dict
  contains:
    energy_host:
      description: What was read.
      type: dict
      sample:
        os: {id: debian, id_like: [], version: "12", name: "Debian GNU/Linux 12 (bookworm)"}
        kernel: 6.1.0-18-amd64
        python: {version: 3.11.2, executable: /usr/bin/python3}
        openssl: {version: "OpenSSL 3.0.11 19 Sep 2023", tls13: true, ciphers: [TLS_AES_256_GCM_SHA384]}
        controller:
          openssl: {version: "OpenSSL 3.0.11 19 Sep 2023", tls13: true, ciphers: [TLS_AES_256_GCM_SHA384]}
        disks: {/var: {measured: /var, free: 20480, total: 40960}}
        programs: {nft: {path: /usr/sbin/nft, package: null}, nmcli: {path: null, package: network-manager}}
        clock: {time: 1700000000.0, offset_min: -0.2, offset_max: 0.3}
"""

import os
import platform
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.tls_facts import tls_facts

MEBI = 1024 * 1024
PROGRAMS = {"nmcli": ["network-manager", "NetworkManager"], "nft": ["nftables"]}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def os_facts(text: str) -> dict[str, Any]:
    """Id, likenesses, version and name out of an os-release file (os-release(5): shell assignments)."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            values[key.strip()] = " ".join(shlex.split(value))
    return {
        "id": values.get("ID", "linux"),
        "id_like": values.get("ID_LIKE", "").split(),
        "version": values.get("VERSION_ID", ""),
        "name": values.get("PRETTY_NAME", values.get("ID", "unknown")),
    }


def disk_facts(path: str) -> dict[str, Any]:
    """Free (for an ordinary user) and total MiB of the file system that holds `path` or will hold it."""
    measured = Path(path)
    while not measured.exists():
        measured = measured.parent
    usage = os.statvfs(measured)
    return {
        "measured": str(measured),
        "free": usage.f_bavail * usage.f_frsize // MEBI,
        "total": usage.f_blocks * usage.f_frsize // MEBI,
    }


def installable(module: AnsibleModule, package: str) -> bool:
    """Whether the host's package manager knows a version of `package` that it could install."""
    if shutil.which("apt-cache", path=SYSTEM_PATH):
        code, out, _err = module.run_command(["apt-cache", "policy", package])
        candidates = [line.split()[-1] for line in out.splitlines() if line.strip().startswith("Candidate:")]
        return code == 0 and bool(candidates) and candidates[0] != "(none)"
    if shutil.which("dnf", path=SYSTEM_PATH):
        code, _out, _err = module.run_command(
            ["dnf", "--quiet", "--cacheonly", "list", "--available", package]
        )
        return code == 0
    return False


def program_facts(module: AnsibleModule, program: str, packages: list[str]) -> dict[str, Any]:
    """Where a program is and, when it is missing, which of `packages` would bring it (None: none would)."""
    path = shutil.which(program, path=SYSTEM_PATH)
    offered = next((name for name in packages if installable(module, name)), None) if path is None else None
    return {"path": path, "package": offered}


def main() -> None:
    now = time.time()  # first of all: everything read before it would widen the bounds of the offset
    module = AnsibleModule(
        argument_spec={
            "disks": {"type": "list", "elements": "path", "default": ["/var", "/opt"]},
            "programs": {"type": "dict", "default": PROGRAMS},
        },
        supports_check_mode=True,
    )
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except FileNotFoundError:
        release = ""
    facts = {
        "os": os_facts(release),
        "kernel": platform.release(),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "openssl": tls_facts(),
        "disks": {path: disk_facts(path) for path in module.params["disks"]},
        "programs": {
            program: program_facts(module, program, packages)
            for program, packages in module.params["programs"].items()
        },
        "clock": {"time": now},
    }
    module.exit_json(changed=False, ansible_facts={"energy_host": facts})


if __name__ == "__main__":
    main()

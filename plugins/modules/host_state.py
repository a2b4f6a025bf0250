#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""All that the roles compare with, read in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_state
short_description: Read the whole state of a host that the roles compare with, in one execution
version_added: "0.3.0"
description:
  - Reads operating system, disks, clock, programs, packages, accounts, files, units, listeners, links and sensors of a
    host at once, and shakes hands with the hub where it is told whom to trust. A role that asked for each of these by
    a task of its own would cost a satellite site seconds for every one.
  - The result is the fact C(energy_host). Roles compute on the controller what differs from it, and run tasks only for
    that. A change that is made in the same run makes the fact stale.
  - The clock is compared with the controller's by the action plugin of the same name. The gateway reads its
    clock at some moment between the start and the end of the execution, so the true offset is known to lie
    between two bounds.
  - The content of a private key is never read, neither as text nor for a digest. Whether it belongs to the certificate
    beside it, OpenSSL says.
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
  packages:
    description:
      - Names of packages whose versions are told. Defaults to those that the roles of this collection install.
    type: list
    elements: str
  accounts:
    description:
      - Names of users and groups that are told. Defaults to those that the roles of this collection make.
    type: list
    elements: str
  files:
    description:
      - Paths and patterns of files and directories that are described. Defaults to all that the roles of this
        collection write.
    type: list
    elements: str
  texts:
    description:
      - Paths and patterns of public files whose content is told, up to 256 KiB each.
      - Defaults to C(/etc/hosts), C(/etc/login.defs) and what C(/etc/ssl/energy) has of certificates and requests.
    type: list
    elements: str
  units:
    description:
      - systemd units whose states are told. Defaults to those that the roles of this collection run.
    type: list
    elements: str
  sysctls:
    description:
      - Settings of the kernel that are told. Defaults to those that the roles of this collection set.
    type: list
    elements: str
  hub:
    description:
      - A broker to shake hands with by TLS 1.3. Without it, none is tried.
    type: dict
    suboptions:
      host:
        description:
          - Address or name of the broker. The name may not be known to a new host yet; the address is.
        type: str
        required: true
      port:
        description:
          - TCP port of the broker.
        type: int
        default: 8883
      server_name:
        description:
          - Name that the broker's certificate has to be for. Defaults to the host.
        type: str
      ca_content:
        description:
          - The authorities that are trusted, PEM.
        type: str
        required: true
      client_certificate:
        description:
          - File on the host with the client's certificate. Shown where it and its key exist.
        type: path
        default: /etc/ssl/energy/gateway.crt
      client_key:
        description:
          - File on the host with its key.
        type: path
        default: /etc/ssl/energy/gateway.key
      timeout:
        description:
          - Seconds that connecting may take, and the handshake.
        type: float
        default: 10.0
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
requirements:
  - Python 3.10 or newer on the target. Nothing but its standard library is needed.
seealso:
  - module: wattfleet.energy.mqtt_probe
  - plugin: wattfleet.energy.file_differences
    plugin_type: filter
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Read the host
  wattfleet.energy.host_state:
  when: ansible_facts.energy_host is not defined

- name: Stop when its clock is certainly wrong
  ansible.builtin.assert:
    that:
      - ansible_facts.energy_host.clock.offset_min <= 5
      - ansible_facts.energy_host.clock.offset_max >= -5

- name: Write the settings only where they differ, since copy costs an execution even when nothing does
  ansible.builtin.copy:
    content: "{{ settings }}"
    dest: /etc/energy/config.yaml
    owner: energy
    group: energy
    mode: "0600"
  when: ansible_facts.energy_host.files | wattfleet.energy.file_differences(wanted)
  vars:
    wanted: {/etc/energy/config.yaml: {content: "{{ settings }}", owner: energy, group: energy, mode: "0600"}}
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
      contains:
        os:
          description: Who the system says it is.
          type: dict
          sample: {id: debian, id_like: [], version: "12", name: "Debian GNU/Linux 12 (bookworm)"}
        kernel:
          description: Release of the kernel.
          type: str
          sample: 6.1.0-18-amd64
        python:
          description: The Python that runs modules.
          type: dict
          sample: {version: 3.11.2, executable: /usr/bin/python3}
        openssl:
          description: OpenSSL of that Python, and its TLS 1.3 cipher suites as far as the system allows them.
          type: dict
          sample: {version: "OpenSSL 3.0.11 19 Sep 2023", tls13: true, ciphers: [TLS_AES_256_GCM_SHA384]}
        controller:
          description: The same of the controller.
          type: dict
          sample:
            openssl: {version: "OpenSSL 3.0.11 19 Sep 2023", tls13: true, ciphers: [TLS_AES_256_GCM_SHA384]}
        disks:
          description: Free and total space by directory, in MiB.
          type: dict
          sample: {/var: {measured: /var, free: 20480, total: 40960}}
        programs:
          description: Where each program is and, when it is missing, the package that would bring it.
          type: dict
          sample: {nft: {path: /usr/sbin/nft, package: null}, nmcli: {path: null, package: network-manager}}
        packages:
          description: Installed versions; null for a package that is not installed.
          type: dict
          sample: {nftables: 1.0.6-2+deb12u2, fail2ban: null}
        users:
          description: Users by name, null for one that does not exist.
          type: dict
          sample: {energy: {uid: 995, gid: 995, shell: /usr/sbin/nologin, home: /var/lib/energy}}
        groups:
          description: Groups by name, null for one that does not exist.
          type: dict
          sample: {energy: {gid: 995}, energy-tls: null}
        files:
          description:
            - Each path, and each file that a pattern matches. C(type) is V(file), V(directory), V(link), V(absent) or
              V(other); C(sha256) is null for what is no file, for private keys and for files above 64 MiB.
          type: dict
          sample:
            /etc/energy/config.yaml: {type: file, mode: "0600", owner: energy, group: energy, size: 812,
              sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, target: null}
        texts:
          description: Contents of public files; null for one that is missing, too large, or holds a private key.
          type: dict
          sample: {/etc/hosts: "127.0.0.1 localhost\n"}
        key_pairs:
          description: For each certificate in O(texts) with a key beside it, whether the two belong together.
          type: dict
          sample: {/etc/ssl/energy/gateway.crt: true}
        units:
          description: States of units in systemd's own words. C(failure) tells why systemd could not be asked.
          type: dict
          sample:
            energy-gateway.service: {load: loaded, active: active, sub: running, enabled: enabled, result: success,
              restarts: 0, failure: null}
        listeners:
          description: Listening TCP and unconnected UDP sockets, and the units that hold them.
          type: list
          elements: dict
          sample: [{protocol: tcp, address: 0.0.0.0, port: 22, process: sshd, units: [ssh.service]}]
        sysctls:
          description:
            - Settings of the kernel, and whether this host may set them; null for one that it does not have.
          type: dict
          sample: {net.ipv4.tcp_syncookies: {value: "1", settable: true}, kernel.yama.ptrace_scope: null}
        links:
          description: Network links but the loopback, as M(wattfleet.energy.link_counters) tells them.
          type: dict
          sample: {eth0: {present: true, kind: ethernet, operstate: up, carrier: true, speed: 1000, duplex: full,
            mtu: 1500, counters: {rx_errors: 0}}}
        managers:
          description:
            - Links that another service than NetworkManager configures, now or at the next boot; C(file) is its file
              that says so.
          type: dict
          sample: {eth0: {service: systemd-networkd.service, file: /etc/systemd/network/10-wan.network}}
        sshd:
          description:
            - C(session) is the connection that this was read over, as C(sshd -C) takes it; null where it is none of
              SSH.
            - C(overruled) tells in one line what sshd does not follow of the file of the role hardening, for everybody
              or for such a connection; null if it follows all of it, or the file is missing.
          type: dict
          sample: {session: "user=admin,host=198.18.0.1,addr=198.18.0.1,laddr=198.18.0.11,lport=22", overruled: null}
        hwmon:
          description: Sensors of the board, in °C, V, A, W, rpm, % or J.
          type: list
          elements: dict
          sample: [{name: coretemp, label: Core 0, value: 47.0}]
        hub:
          description: The handshake with O(hub), as M(wattfleet.energy.mqtt_probe) tells it. Null when none was tried.
          type: dict
          sample: {ok: true, version: TLSv1.3, cipher: TLS_AES_256_GCM_SHA384, failure: null}
        clock:
          description: The host's clock, and the bounds of its offset from the controller's, in seconds.
          type: dict
          sample: {time: 1700000000.0, offset_min: -0.2, offset_max: 0.3}
"""

import os
import platform
import pwd
import sys
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _links,
    _services,
    _sshd_in_force,
    _state_defaults,
    _state_files,
    _state_listeners,
    _state_managers,
    _state_system,
    _tls_probe,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import peer
from ansible_collections.wattfleet.energy.plugins.module_utils.tls_facts import tls_facts

PROGRAMS = {"nmcli": ["network-manager", "NetworkManager"], "nft": ["nftables"]}


def hub_facts(hub: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
    """The handshake with the hub; the client's certificate is shown where the host has one already."""
    if hub is None:
        return None
    known = all(Path(hub[name]).exists() for name in ("client_certificate", "client_key"))
    target = _tls_probe.Target(
        host=hub["host"],
        port=hub["port"],
        server_name=hub["server_name"] or hub["host"],
        authorities=hub["ca_content"],
        certificate=hub["client_certificate"] if known else None,
        key=hub["client_key"] if known else None,
        timeout=hub["timeout"],
    )
    return _tls_probe.probe(target)


def sshd_facts(run: _services.RunCommand) -> dict[str, str | None]:
    """What sshd follows, asked for whoever reads this: the management user, from the controller."""
    ours, session = peer.connection(), None
    if ours is not None:
        user = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
        # A link-local address has its link behind a percent sign.
        source, here = (address.partition("%")[0] for address in (ours.controller, ours.address))
        session = f"user={user},host={source},addr={source},laddr={here},lport={ours.port}"
    return {"session": session, "overruled": _sshd_in_force.overruled(session, run)}


def main() -> None:
    now = time.time()  # first of all: everything read before it would widen the bounds of the offset
    names = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "disks": {"type": "list", "elements": "path", "default": ["/var", "/opt"]},
            "programs": {"type": "dict", "default": PROGRAMS},
            "packages": names,
            "accounts": names,
            "files": names,
            "texts": names,
            "units": names,
            "sysctls": names,
            "hub": {
                "type": "dict",
                "options": {
                    "host": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 8883},
                    "server_name": {"type": "str"},
                    "ca_content": {"type": "str", "required": True},
                    "client_certificate": {"type": "path", "default": "/etc/ssl/energy/gateway.crt"},
                    # A path, and no secret itself.
                    "client_key": {"type": "path", "default": "/etc/ssl/energy/gateway.key", "no_log": False},
                    "timeout": {"type": "float", "default": 10.0},
                },
            },
        },
        supports_check_mode=True,
    )

    def wanted(option: str, default: list[str]) -> list[str]:
        given: list[str] | None = module.params[option]
        return default if given is None else given

    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except FileNotFoundError:
        release = ""
    run = module.run_command
    accounts = wanted("accounts", _state_defaults.ACCOUNTS)
    units = wanted("units", _state_defaults.UNITS)
    facts = {
        "os": _state_system.os_facts(release),
        "kernel": platform.release(),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "openssl": tls_facts(),
        "disks": {path: _state_system.disk_facts(path) for path in module.params["disks"]},
        "programs": {
            program: _state_system.program_facts(program, packages, run)
            for program, packages in module.params["programs"].items()
        },
        "packages": _state_system.package_versions(wanted("packages", _state_defaults.PACKAGES), run),
        "users": _state_system.user_facts(accounts),
        "groups": _state_system.group_facts(accounts),
        "files": _state_files.describe(wanted("files", _state_defaults.FILES)),
        "texts": _state_files.read_texts(wanted("texts", _state_defaults.TEXTS)),
        "key_pairs": _state_files.key_pairs(wanted("texts", _state_defaults.TEXTS)),
        "units": _services.read(units, run) if units else {},
        "listeners": _state_listeners.listeners(run),
        "sysctls": _state_system.sysctl_facts(wanted("sysctls", _state_defaults.SYSCTLS)),
        "links": _links.read(_links.DEFAULT_PATH, None),
        "managers": _state_managers.managers(run),
        "sshd": sshd_facts(run),
        "hwmon": _state_system.sensors(),
        "hub": hub_facts(module.params["hub"]),
        "clock": {"time": now},
    }
    module.exit_json(changed=False, ansible_facts={"energy_host": facts})


if __name__ == "__main__":
    main()

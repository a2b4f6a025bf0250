#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""NetworkManager connections: the profile on disk and the live state of the device, put right together."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: network_connections
short_description: Make wired NetworkManager connections persistent, and their devices agree with them
version_added: "0.1.0"
description:
  - Writes one keyfile a connection, and compares the live state of its device with it, in one execution
    for all connections.
  - A profile that differs is written and loaded. A device that differs is brought up to date in place
    (C(nmcli device reapply)), and its connection is activated only where that is not enough. A device whose
    live state is right is left alone, even when another profile brought it there; the written one has the
    higher priority and takes over at the next boot.
  - Profiles that were not named are left as they are.
  - Needs NetworkManager 1.36 or newer and C(ip) of iproute2 on the host.
options:
  connections:
    description: The connections, in the order in which they are brought up.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the connection, and of its file.
        type: str
        required: true
      interface:
        description: Interface that the connection is bound to.
        type: str
        required: true
      address:
        description: IPv4 address with its prefix length.
        type: str
        required: true
      gateway:
        description:
          - Next hop of the default route. Without one the connection never becomes the default route.
        type: str
      dns:
        description: IPv4 addresses of name servers.
        type: list
        elements: str
        default: []
      mtu:
        description: MTU in bytes; 0 leaves the device's own.
        type: int
        default: 0
      ipv6:
        description: IPv6 on the interface; V(auto) follows router advertisements.
        type: str
        choices: [auto, link-local, disabled]
        default: disabled
  keep:
    description:
      - Addresses that Ansible reaches the host by. A change that would take one of them off its interface is
        refused before anything is written.
    type: list
    elements: str
    default: []
  wait:
    description: Time for a connection to come up, in seconds.
    type: int
    default: 20
attributes:
  check_mode:
    description: Says what would differ and changes nothing.
    support: full
  diff_mode:
    description: Shows the keyfiles and the live state of the devices.
    support: full
  platform:
    description: Linux with NetworkManager.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Give a gateway its two networks
  wattfleet.energy.network_connections:
    connections:
      - name: EnergyInternal
        interface: eth1
        address: 192.168.10.10/24
      - name: EnergyWan
        interface: eth0
        address: 198.18.0.11/19
        gateway: 198.18.0.1
        ipv6: auto
    keep: [198.18.0.11]
"""

RETURN = r"""
connections:
  description: What was done for each connection.
  returned: always
  type: list
  elements: dict
  sample:
    - name: EnergyInternal
      profile: written
      device: reapplied
  contains:
    name:
      description: Name of the connection.
      type: str
    profile:
      description:
        - V(unchanged), V(written) or V(loaded) (the file was right, but NetworkManager held something else).
      type: str
    device:
      description: V(unchanged), V(reapplied) or V(activated).
      type: str
"""

import ipaddress
import json
import time
import uuid
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import replace_file

DIRECTORY = Path("/etc/NetworkManager/system-connections")
# A fixed namespace makes the profile's UUID a function of its name, on every host and at every run.
NAMESPACE = uuid.UUID("6f1de1cc-8a53-5d0e-9d0b-b0d1b5b6f4aa")
HEADER = "# Written by Ansible. What is changed here or with nmcli is undone by the next run.\n"


def connection_uuid(name: str) -> str:
    """The UUID that the profile called `name` has on every host."""
    return str(uuid.uuid5(NAMESPACE, name))


def keyfile(connection: dict[str, Any]) -> str:
    """The profile as nm-settings-keyfile(5) wants it."""
    gateway = connection.get("gateway")
    lines = [
        "[connection]",
        f"id={connection['name']}",
        f"uuid={connection_uuid(connection['name'])}",
        "type=ethernet",
        f"interface-name={connection['interface']}",
        "autoconnect=true",
        # Above any profile that came with the image, and never giving up: nobody is there to type nmcli.
        "autoconnect-priority=100",
        "autoconnect-retries=0",
        "",
        "[ethernet]",
    ]
    if connection["mtu"]:
        lines.append(f"mtu={connection['mtu']}")
    lines += ["", "[ipv4]", "method=manual", f"address1={connection['address']}"]
    if gateway:
        lines.append(f"gateway={gateway}")
    else:
        lines.append("never-default=true")
    if connection["dns"]:
        lines.append("dns=" + "".join(f"{server};" for server in connection["dns"]))
    lines += ["may-fail=false", "", "[ipv6]", f"method={connection['ipv6']}"]
    if not gateway:
        lines.append("never-default=true")
    return HEADER + "\n".join(lines) + "\n"


def fault(connection: dict[str, Any]) -> str | None:
    """What is wrong with a connection as it was asked for, in one line; None if nothing is."""
    name = connection["name"]
    if not name or "/" in name or name.startswith("."):
        return f"connection {name!r}: a name becomes a file name, so no slash in it and no dot before it"
    try:
        address = ipaddress.IPv4Interface(connection["address"])
    except ValueError:
        return f"connection {name}: address {connection['address']!r} is no IPv4 address, such as 10.0.0.2/24"
    if "/" not in connection["address"]:
        return f"connection {name}: address {connection['address']} lacks its prefix length, such as /24"
    for key, value in [
        ("gateway", connection.get("gateway")),
        *(("dns", server) for server in connection["dns"]),
    ]:
        if not value:
            continue
        try:
            parsed = ipaddress.IPv4Address(value)
        except ValueError:
            return f"connection {name}: {key} {value!r} is not an IPv4 address"
        if key == "gateway" and parsed not in address.network:
            return f"connection {name}: gateway {value} is not in the network of {connection['address']}"
    return None


def wanted_live(connection: dict[str, Any]) -> dict[str, Any]:
    """The live state that the device of a connection should be in, in the form of `read_live`."""
    live: dict[str, Any] = {
        "state": "connected",
        "addresses": [connection["address"]],
        "default route": connection.get("gateway") or "none",
    }
    if connection["mtu"]:
        live["mtu"] = connection["mtu"]
    if connection["dns"]:
        live["dns"] = connection["dns"]
    return live


def as_text(interface: str, live: dict[str, Any]) -> str:
    """A live state as lines that a diff can show."""
    lines = []
    for key, value in live.items():
        shown = (", ".join(value) or "none") if isinstance(value, list) else value
        lines.append(f"{interface}: {key} {shown}\n")
    return "".join(lines)


class NetworkManager:
    """What this module asks of NetworkManager and of the kernel, through nmcli and ip."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.nmcli = module.get_bin_path("nmcli")
        self.ip = module.get_bin_path("ip", required=True)

    def run(self, *arguments: str) -> str:
        """Output of nmcli; a failure ends the module with nmcli's own words."""
        code, out, err = self.module.run_command([self.nmcli, *arguments])
        if code != 0:
            self.module.fail_json(msg=f"nmcli {' '.join(arguments)}: {(err or out).strip()}")
        return str(out)

    def ip_json(self, *arguments: str) -> list[dict[str, Any]]:
        code, out, err = self.module.run_command([self.ip, "-json", *arguments])
        if code != 0:
            self.module.fail_json(msg=f"ip {' '.join(arguments)}: {err.strip()}")
        return list(json.loads(out or "[]"))

    def files(self) -> dict[str, str]:
        """UUID of every profile that NetworkManager holds, with the file it is held from."""
        lines = self.run(
            "--terse", "--escape", "no", "--fields", "UUID,FILENAME", "connection", "show"
        ).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def load(self, path: Path, held: str | None) -> None:
        """Make NetworkManager hold a profile from `path`, whatever file it holds it from now."""
        if held and held.startswith("/run/"):
            # A profile changed with `nmcli --temporary` lies there and would hide the file on disk.
            Path(held).unlink(missing_ok=True)
        self.run("connection", "load", str(path))

    def device(self, interface: str) -> dict[str, str]:
        """State, active profile and name servers of a device. State is the number of NMDeviceState."""
        fields = "GENERAL.STATE,GENERAL.CON-UUID,IP4.DNS"
        values: dict[str, str] = {}
        for line in self.run(
            "--terse", "--escape", "no", "--fields", fields, "device", "show", interface
        ).splitlines():
            key, _colon, value = line.partition(":")
            values[key] = value
        return values

    def read_live(self, connection: dict[str, Any]) -> dict[str, Any]:
        """Live state of a connection's device, with the keys that matter to this connection."""
        interface = connection["interface"]
        device = self.device(interface)
        (link,) = self.ip_json("address", "show", "dev", interface)
        routes = self.ip_json("-4", "route", "show", "default", "dev", interface)
        live: dict[str, Any] = {
            # 100 is NM_DEVICE_STATE_ACTIVATED; 10 is unmanaged
            "state": "connected"
            if device.get("GENERAL.STATE", "").startswith("100")
            else device.get("GENERAL.STATE", "unknown"),
            "addresses": [
                f"{entry['local']}/{entry['prefixlen']}"
                for entry in link.get("addr_info", [])
                if entry["family"] == "inet" and entry["scope"] == "global"
            ],
            "default route": ", ".join(route.get("gateway", "direct") for route in routes) or "none",
        }
        if connection["mtu"]:
            live["mtu"] = link["mtu"]
        if connection["dns"]:
            live["dns"] = [value for key, value in device.items() if key.startswith("IP4.DNS")]
        return live

    def settle(self, connection: dict[str, Any], wait: float) -> dict[str, Any]:
        """Live state once it is as wanted, or as it is after `wait` seconds."""
        deadline = time.monotonic() + wait
        while True:
            live = self.read_live(connection)
            if live == wanted_live(connection) or time.monotonic() >= deadline:
                return live
            time.sleep(0.2)

    def put_right(self, connection: dict[str, Any], wait: int) -> str:
        """Bring a device to its connection: in place if its own profile is active, else by activating it."""
        interface, wanted = connection["interface"], connection_uuid(connection["name"])
        if self.device(interface).get("GENERAL.CON-UUID") == wanted:
            code, _out, _err = self.module.run_command([self.nmcli, "device", "reapply", interface])
            if code == 0 and self.settle(connection, 2) == wanted_live(connection):
                return "reapplied"
        self.run("--wait", str(wait), "connection", "up", "uuid", wanted, "ifname", interface)
        live = self.settle(connection, 5)
        if live != wanted_live(connection):
            self.module.fail_json(
                msg=f"connection {connection['name']} is up, but its device differs from what it asks for. "
                f"Found:\n{as_text(interface, live)}Wanted:\n{as_text(interface, wanted_live(connection))}"
                "Something else configures this interface; look at journalctl -u NetworkManager."
            )
        return "activated"


def read_profile(path: Path) -> tuple[str, bool]:
    """Text of a profile ('' if there is none), and whether NetworkManager accepts its owner and mode."""
    try:
        status = path.stat()
        return path.read_text(encoding="utf-8"), (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (
            0o600,
            0,
            0,
        )
    except FileNotFoundError:
        return "", False


def diff_of(path: Path, before: str, mode_ok: bool, text: str) -> list[dict[str, str]]:
    """What --diff shows for a profile."""
    if before and not mode_ok:
        before = f"mode and owner: not 0600 root:root\n{before}"
        text = f"mode and owner: 0600 root:root\n{text}"
    return [{"before_header": str(path), "after_header": str(path), "before": before, "after": text}]


def refuse_cutting_off(module: AnsibleModule, connection: dict[str, Any], live: dict[str, Any]) -> None:
    """End the module if the connection would take away an address that Ansible comes in by."""
    for address in live["addresses"]:
        host = address.split("/")[0]
        if host in module.params["keep"] and not connection["address"].startswith(f"{host}/"):
            module.fail_json(
                msg=f"connection {connection['name']} would replace {host} on {connection['interface']}, the "
                f"address that this host is reached by, with {connection['address']}. Nothing is changed. "
                "Correct the site file, or give the host its new address on site first."
            )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connections": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "interface": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "gateway": {"type": "str"},
                    "dns": {"type": "list", "elements": "str", "default": []},
                    "mtu": {"type": "int", "default": 0},
                    "ipv6": {
                        "type": "str",
                        "choices": ["auto", "link-local", "disabled"],
                        "default": "disabled",
                    },
                },
            },
            "keep": {"type": "list", "elements": "str", "default": []},
            "wait": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    connections = module.params["connections"]
    faults = [text for text in map(fault, connections) if text]
    present = sorted(path.name for path in Path("/sys/class/net").iterdir())
    faults += [
        f"connection {item['name']}: no interface {item['interface']} on the host, only {', '.join(present)}"
        for item in connections
        if item["interface"] not in present
    ]
    if faults:
        module.fail_json(msg="; ".join(faults))

    manager = NetworkManager(module)
    if manager.nmcli is None and not module.check_mode:
        module.fail_json(msg="nmcli is missing on the host; install NetworkManager")
    files = manager.files() if manager.nmcli else {}

    plans = []
    for connection in connections:
        path = DIRECTORY / f"{connection['name']}.nmconnection"
        before, mode_ok = read_profile(path)
        live = manager.read_live(connection) if manager.nmcli else {}
        if live.get("state", "").startswith("10 "):
            module.fail_json(
                msg=f"NetworkManager does not manage {connection['interface']} (unmanaged). Take it out of "
                "/etc/network/interfaces and of unmanaged-devices in /etc/NetworkManager, restart "
                "NetworkManager, and run again."
            )
        if live:
            refuse_cutting_off(module, connection, live)
        plans.append((connection, path, before, mode_ok, live))

    done, diff = [], []
    # All profiles first: whatever happens while devices are brought up, a reboot ends in the wanted state.
    for connection, path, before, mode_ok, live in plans:
        text = keyfile(connection)
        result = {"name": connection["name"], "profile": "unchanged", "device": "unchanged"}
        if before != text or not mode_ok:
            result["profile"] = "written"
            diff += diff_of(path, before, mode_ok, text)
            if not module.check_mode:
                replace_file(path, text, 0o600)
        elif manager.nmcli and files.get(connection_uuid(connection["name"])) != str(path):
            result["profile"] = "loaded"
            held = files.get(connection_uuid(connection["name"]), "nowhere")
            diff.append(
                {
                    "before": f"{connection['name']} held from {held}\n",
                    "after": f"{connection['name']} held from {path}\n",
                }
            )
        if result["profile"] != "unchanged" and not module.check_mode:
            manager.load(path, files.get(connection_uuid(connection["name"])))
        wanted = wanted_live(connection)
        if live != wanted:
            diff.append(
                {
                    "before": as_text(connection["interface"], live),
                    "after": as_text(connection["interface"], wanted),
                }
            )
            result["device"] = "activated"
        done.append(result)
    if not module.check_mode:
        for result, (connection, *_rest) in zip(done, plans, strict=True):
            if result["device"] != "unchanged":
                result["device"] = manager.put_right(connection, module.params["wait"])

    changed = any(value != "unchanged" for result in done for key, value in result.items() if key != "name")
    module.exit_json(changed=changed, connections=done, diff=diff)


if __name__ == "__main__":
    main()

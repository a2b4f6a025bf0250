# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""NetworkManager: which connection is active on which device, and how it becomes that again.

NetworkManager may be dead, stopped or hanging when it is needed most. So each question has a time-out, and nothing here
is the last means: the kernel's state is set without it (see network.py).
"""

from __future__ import annotations

import time
from typing import Any

from . import durable, units
from .errors import GuardError, StepError
from .host import Done, Host

UNIT = "NetworkManager.service"
QUICK = 4.0
BRING_UP = 8
# Profiles on disk, and those that nmcli --temporary has made.
DIRECTORIES = ("/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections")
# What `nmcli networking off` writes: NetworkManager obeys it at every start, and then manages nothing.
STATE = "/var/lib/NetworkManager/NetworkManager.state"
OFF, ON = "NetworkingEnabled=false", "NetworkingEnabled=true"


def generated(content: bytes) -> bool:
    """Whether a profile is one that NetworkManager writes by itself for what it found, such as lo."""
    return b"nm-generated=true" in content


def nmcli(host: Host, *arguments: str, timeout: float = QUICK) -> Done:
    return host.run(["nmcli", *arguments], timeout=timeout)


def _connections(host: Host) -> list[tuple[str, str, str]] | None:
    """Device, UUID and state of the active connections; None where NetworkManager does not answer."""
    done = nmcli(host, "--terse", "--fields", "DEVICE,UUID,TYPE,STATE", "connection", "show", "--active")
    if done.code != 0:
        return None
    lines = [line.rsplit(":", 3) for line in done.out.splitlines()]
    return [(device, uuid, state) for device, uuid, kind, state in lines if device and kind != "loopback"]


def active(host: Host) -> dict[str, str] | None:
    """Device -> UUID of its connection, where that is up; None where NetworkManager does not answer."""
    found = _connections(host)
    return None if found is None else {device: uuid for device, uuid, state in found if state == "activated"}


def _profiles(host: Host) -> dict[str, str]:
    """UUID -> device of the profiles that somebody wrote, '' for those that name none."""
    profiles = {}
    for directory in DIRECTORIES:
        for path in host.at(directory).glob("*.nmconnection"):
            content = path.read_bytes()
            if generated(content):
                continue
            lines = content.decode(errors="replace").splitlines()
            words = dict(
                line.split("=", 1) for line in lines if line.startswith(("uuid=", "interface-name="))
            )
            profiles[words.get("uuid", "")] = words.get("interface-name", "")
    return profiles


def _on(host: Host) -> bool:
    """Whether NetworkManager manages anything at all, as it keeps it on disk."""
    try:
        return OFF not in host.at(STATE).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return True


def switch_on(host: Host) -> None:
    """Take back a `networking off` before NetworkManager starts: by its file, which it reads only then."""
    path = host.at(STATE)
    if not _on(host):
        durable.write(path, path.read_bytes().replace(OFF.encode(), ON.encode()), mode=0o644)


def look(host: Host) -> dict[str, Any]:
    """Whether NetworkManager runs, what is active, and which devices are just coming or going, as a modem may do."""
    if not units.is_active(units.look(host, [UNIT])[UNIT]):
        return {"running": False, "on": _on(host), "active": {}, "moving": [], "profiled": []}
    found = _connections(host)
    if found is None:
        raise GuardError(
            "NetworkManager runs but does not answer, so the network could not be put back; nothing is changed"
        )
    profiles = _profiles(host)
    return {
        "running": True,
        "on": _on(host),
        "active": {device: uuid for device, uuid, state in found if state == "activated"},
        "moving": [device for device, _uuid, state in found if state != "activated"],
        "profiled": [device for device, uuid, state in found if state == "activated" and uuid in profiles],
    }


def without_profile(host: Host, was: dict[str, Any]) -> list[str]:
    """Devices that a profile brought up, and none would at the next boot; until then they may be as they were.

    NetworkManager that is started anew leaves a device whose profile is gone what it has, under a connection that it
    makes for that. One that does not answer may not have seen yet that a profile is gone.
    """
    profiles = _profiles(host)
    now = active(host) or {}
    lost = []
    for device in was["profiled"]:
        follows = now.get(device)
        waits = was["active"][device] in profiles or device in profiles.values()
        if follows not in profiles and (follows is not None or not waits):
            lost.append(device)
    return lost


def _more(found: dict[str, str], was: dict[str, Any]) -> list[str]:
    """Devices that have a connection and had none."""
    return [device for device in found if device not in was["active"] and device not in was["moving"]]


def differences(host: Host, was: dict[str, Any]) -> list[str]:
    if not was["running"]:
        return []
    found = active(host)
    if found is None:
        return ["NetworkManager does not answer"]
    lines = [
        f"{device} has connection {found.get(device, 'none')} instead of {uuid}"
        for device, uuid in was["active"].items()
        if found.get(device) != uuid
    ]
    if was["on"] and not _on(host):
        lines.append("NetworkManager is told to manage nothing (nmcli networking off)")
    return lines + [f"{device} has connection {found[device]}" for device in _more(found, was)]


def restart(host: Host) -> None:
    """Start NetworkManager anew, whatever it is doing. Links and addresses stay as they are meanwhile."""
    host.run(["systemctl", "kill", "--signal=KILL", UNIT], timeout=QUICK)
    host.run(["systemctl", "reset-failed", UNIT], timeout=QUICK)
    host.run(["systemctl", "restart", "--no-block", UNIT], timeout=QUICK)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and active(host) is None:
        time.sleep(0.2)


def read_profiles(host: Host) -> bool:
    """Have NetworkManager read the profiles again; whether it answered."""
    return nmcli(host, "connection", "reload").code == 0


def put_back(host: Host, was: dict[str, Any]) -> bool:
    """Have NetworkManager activate what was active, and nothing else; whether it answered."""
    if was["on"] and not _on(host):
        nmcli(host, "networking", "on")
    found = active(host)
    if found is None:
        return False
    for device in _more(found, was):
        nmcli(host, "--wait", "4", "connection", "down", "uuid", found[device], timeout=QUICK + 1)
    for device, uuid in was["active"].items():
        if found.get(device) == uuid and nmcli(host, "device", "reapply", device).code == 0:
            continue
        words = ("connection", "up", "uuid", uuid, "ifname", device)
        nmcli(host, "--wait", str(BRING_UP), *words, timeout=BRING_UP + 1)
    return True


def _values(host: Host, fields: str, *arguments: str) -> list[str]:
    done = nmcli(host, "--terse", "--escape", "no", "--get-values", fields, *arguments)
    return [line.strip() for line in done.out.splitlines()] if done.code == 0 else []


def _is_live(host: Host, interface: str, uuid: str) -> bool:
    """Whether the device has the addresses and the MTU of its profile."""
    profile = _values(host, "ipv4.addresses,802-3-ethernet.mtu", "connection", "show", "uuid", uuid)
    done = host.run(["ip", "-oneline", "address", "show", "dev", interface], timeout=QUICK)
    if len(profile) < 2 or done.code != 0:
        return False
    addresses = [word.strip() for word in profile[0].split(",") if word.strip()]
    mtu = profile[1] if profile[1] not in ("", "auto", "0") else None
    links = host.run(["ip", "-oneline", "link", "show", "dev", interface], timeout=QUICK).out
    return all(f" {word} " in done.out for word in addresses) and (mtu is None or f" mtu {mtu} " in links)


def bring_up(host: Host, interface: str, uuid: str) -> None:
    """Have a device follow a profile that has been written: in place where that is enough, else by activating it."""
    done = nmcli(host, "connection", "reload")
    if done.code != 0:
        raise StepError("nmcli connection reload", done.words)
    if (active(host) or {}).get(interface) == uuid and nmcli(host, "device", "reapply", interface).code == 0:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            if _is_live(host, interface, uuid):
                return
            time.sleep(0.2)
    done = nmcli(host, "--wait", "20", "connection", "up", "uuid", uuid, "ifname", interface, timeout=25)
    if done.code != 0:
        raise StepError(f"bring up {interface}", done.words)

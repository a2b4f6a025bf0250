# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What a vendor's tool needs beyond what our units leave to every tool, and the limits of the units that follow.

The client of a daemon, as rauc and swupdate-client are, needs nothing: the daemon writes the flash, in its own unit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .host import LIMITED, FirmwareError

EXPECTED = (
    "what the tool needs of write, devices, capabilities and network: {} for the client of a daemon such as rauc, "
    "{everything: true} for a tool without limits"
)
PATH = r"(?!.*/\.\.?(?:/|$))(?:/[A-Za-z0-9._@:+-]+)+"
# A node, or a driver's nodes as /proc/devices names them: those of loop devices come and go.
DEVICE = r"(?!.*/\.\.?(?:/|$))/dev(?:/[A-Za-z0-9._@:+-]+)+|(?:block|char)-[a-z0-9_-]+"
# As capabilities(7) has them.
_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = frozenset(f"CAP_{name}" for name in _NAMES.split())
# The kernel's calls that a capability is of no use without.
CALLS = {
    "CAP_SYS_ADMIN": "@mount",
    "CAP_SYS_BOOT": "@reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "@module",
    "CAP_SYS_RAWIO": "@raw-io",
    "CAP_SYS_TIME": "@clock",
}
# Limits that take a capability away again, or what it is for.
AGAINST = {
    "PrivateDevices": ("CAP_MKNOD", "CAP_SYS_RAWIO"),
    "ProtectClock": ("CAP_SYS_TIME", "CAP_WAKE_ALARM"),
    "ProtectKernelLogs": ("CAP_SYSLOG",),
    "ProtectKernelModules": ("CAP_SYS_MODULE",),
    "RestrictRealtime": ("CAP_SYS_NICE",),
    "RestrictSUIDSGID": ("CAP_FSETID",),
}
# Ours: the collector's configuration is read, and its owner is another than root.
OWN_CAPABILITY = "CAP_DAC_READ_SEARCH"
# Locks (fw_setenv has one) and temporary files. /tmp is the host's: a daemon has its socket there, and reads the image.
SHARED = ("/run/lock", "/tmp", "/var/tmp")  # noqa: S108  (folders that are opened to the tool, nothing is made there)
HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True)
class Needs:
    """`write` are files and folders, `devices` nodes below /dev or drivers, `network` is IP, `everything` no limit."""

    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    network: bool = False
    everything: bool = False


def needs_of(content: Any, where: str) -> Needs:
    """The needs out of their mapping. Raises FirmwareError."""
    if not isinstance(content, dict):
        raise FirmwareError(f"{where}: found {shown(content)}, expected {EXPECTED}")
    known = Needs.__dataclass_fields__
    for key in sorted(set(content) - set(known)):
        raise FirmwareError(f"{where}: {key} is not known, expected {', '.join(sorted(known))}")
    content = {key: value for key, value in content.items() if value is not None}
    for key in ("network", "everything"):
        if not isinstance(content.get(key, False), bool):
            raise FirmwareError(f"{where}: {key}: found {shown(content[key])}, expected true or false")
    for key, is_right, expected in WORDS:
        value = content.get(key, ())
        if not isinstance(value, (list, tuple)):
            raise FirmwareError(f"{where}: {key}: found {shown(value)}, expected a list")
        for one in value:
            if not isinstance(one, str) or not is_right(one):
                raise FirmwareError(f"{where}: {key}: found {shown(one)}, expected {expected}")
        content[key] = tuple(value)
    found = Needs(**content)
    if found.everything and found != Needs(everything=True):
        raise FirmwareError(f"{where}: everything: found something beside it, expected nothing")
    return found


def limits(needs: Needs, folders: Iterable[str]) -> str:
    """The lines of a unit. `folders` are those of ours, which the tool's are added to.

    No limit here gives the unit a /proc of its own (ProtectProc=, ProtectKernelTunables=, ProtectControlGroups=): in a
    container that has another boot_id. And no path keeps it from starting: what is not there is passed over.
    """
    if needs.everything:
        return ""
    capabilities = sorted({OWN_CAPABILITY, *needs.capabilities})
    writable = sorted({*folders, *SHARED, *needs.write})
    at_home = any(f"{path}/".startswith(f"{home}/") for path in writable for home in HOMES)
    families = ["AF_UNIX", *(["AF_INET", "AF_INET6", "AF_NETLINK"] if needs.network else [])]
    calls = ["@system-service", *(CALLS[name] for name in capabilities if name in CALLS)]
    lines = [
        f"Environment={LIMITED}=yes",
        f"CapabilityBoundingSet={' '.join(capabilities)}",
        "NoNewPrivileges=yes",
        "DevicePolicy=closed",
        *(f"DeviceAllow={device} rw" for device in dict.fromkeys(needs.devices)),
        "KeyringMode=private",
        "LockPersonality=yes",
        "PrivateMounts=yes",
        f"ProtectHome={'read-only' if at_home else 'yes'}",
        "ProtectHostname=yes",
        "ProtectSystem=strict",
        "ReadOnlyPaths=-/proc/sys -/proc/sysrq-trigger -/sys",
        f"ReadWritePaths={' '.join(f'-{path}' for path in writable)}",
        f"RestrictAddressFamilies={' '.join(families)}",
        "RestrictNamespaces=yes",
        "SystemCallArchitectures=native",
        "SystemCallErrorNumber=EPERM",
        f"SystemCallFilter={' '.join(calls)}",
    ]
    if not needs.network:
        lines += ["IPAddressDeny=any", "PrivateNetwork=yes"]
    for limit, against in AGAINST.items():
        if not set(against) & set(capabilities) and not (limit == "PrivateDevices" and needs.devices):
            lines.append(f"{limit}=yes")
    return "\n".join(lines) + "\n"


def _is_path(text: str) -> bool:
    return re.fullmatch(PATH, text) is not None


def _is_device(text: str) -> bool:
    return re.fullmatch(DEVICE, text) is not None


def _is_capability(text: str) -> bool:
    return text in CAPABILITIES


WORDS: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    ("write", _is_path, "a file or folder such as /boot, not / itself"),
    ("devices", _is_device, "a device such as /dev/mtd0 or block-loop"),
    ("capabilities", _is_capability, "a capability such as CAP_SYS_ADMIN"),
)


def shown(value: Any) -> str:
    """A value in a message: short, and in one line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Settings of the kernel."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import GuardError, StepError
from .host import Host

# The hands that have live state of the kernel; see hands.py.
NETWORK, KERNEL, BPF = HANDS = ("network", "kernel", "bpf")
# Settings that only the host's network shows, and only the administrator of the whole machine sets.
BPF_SETTINGS = "net/core/bpf_jit_"


def path_of(host: Host, name: str) -> Path:
    """The file of a setting. As in sysctl(8), the separator is whichever of . and / comes first."""
    separator = min((mark for mark in "./" if mark in name), key=name.index, default=".")
    if separator == ".":
        name = name.translate(str.maketrans("./", "/."))
    if ".." in name.split("/"):
        raise GuardError(f"sysctl {name!r} is no setting of the kernel")
    return host.at(f"/proc/sys/{name}")


def hand_of(name: str) -> str:
    """Which hand has a setting: those of the network belong to the network that a process is in."""
    parts = re.split("[./=]", name)
    if "/".join(parts).startswith(BPF_SETTINGS):
        return BPF
    return NETWORK if parts[0] == "net" else KERNEL


def look(host: Host, names: list[str]) -> dict[str, str | None]:
    """Values of settings, with single spaces; None for one that this kernel does not have."""
    values: dict[str, str | None] = {}
    for name in names:
        try:
            values[name] = " ".join(path_of(host, name).read_text(encoding="utf-8").split())
        except OSError:
            values[name] = None
    return values


def write(host: Host, name: str, value: str) -> None:
    try:
        path_of(host, name).write_text(f"{value}\n", encoding="utf-8")
    except OSError as error:
        raise StepError(f"sysctl {name}={value}", error.strerror or str(error)) from error


def differences(host: Host, values: dict[str, str | None]) -> list[str]:
    found = look(host, list(values))
    return [
        f"sysctl {name} is {found[name]} instead of {value}"
        for name, value in values.items()
        if value is not None and found[name] != value
    ]


def put_back(host: Host, values: dict[str, str | None]) -> None:
    found = look(host, list(values))
    for name, value in values.items():
        if value is not None and found[name] != value:
            write(host, name, value)

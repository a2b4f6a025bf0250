# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The machine and what is installed on it: release, disks, programs, packages, accounts, sensors."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re
import shlex
import shutil
import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils._services import RunCommand

_MEBI = 1024 * 1024
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SENSOR_INPUT = re.compile(r"(temp|in|curr|power|fan|humidity|energy)\d+_input")
# Documentation/hwmon/sysfs-interface of the kernel: what a sensor counts in, as °C, V, A, W, rpm, %, J.
_SENSOR_SCALES = {
    "temp": 1e-3,
    "in": 1e-3,
    "curr": 1e-3,
    "power": 1e-6,
    "fan": 1.0,
    "humidity": 1e-3,
    "energy": 1e-6,
}


def os_facts(text: str) -> dict[str, t.Any]:
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


def disk_facts(path: str) -> dict[str, t.Any]:
    """Free (for an ordinary user) and total MiB of the file system that holds `path` or will hold it."""
    measured = pathlib.Path(path)
    while not measured.exists():
        measured = measured.parent
    usage = os.statvfs(measured)
    return {
        "measured": str(measured),
        "free": usage.f_bavail * usage.f_frsize // _MEBI,
        "total": usage.f_blocks * usage.f_frsize // _MEBI,
    }


def program_facts(program: str, packages: list[str], run_command: RunCommand) -> dict[str, t.Any]:
    """Where a program is and, when it is missing, which of `packages` would bring it (None: none would)."""
    path = which(program)
    offered = None
    if path is None:
        offered = next((name for name in packages if _installable(name, run_command)), None)
    return {"path": path, "package": offered}


def which(program: str) -> str | None:
    """Where a program is, whatever the PATH of the session."""
    return shutil.which(program, path=_SYSTEM_PATH)


def _installable(package: str, run_command: RunCommand) -> bool:
    """Whether the host's package manager knows a version of `package` that it could install."""
    if which("apt-cache"):
        code, out, _err = run_command(["apt-cache", "policy", package])
        candidates = [line.split()[-1] for line in out.splitlines() if line.strip().startswith("Candidate:")]
        return code == 0 and bool(candidates) and candidates[0] != "(none)"
    if which("dnf"):
        return run_command(["dnf", "--quiet", "--cacheonly", "list", "--available", package])[0] == 0
    return False


def package_versions(names: list[str], run_command: RunCommand) -> dict[str, str | None]:
    """The installed version of each package, None where it is not installed (removed with its settings kept, too)."""
    found: dict[str, str] = {}
    if names and which("dpkg-query"):
        form = "${Package}\t${Version}\t${db:Status-Status}\n"
        # Ends with 1 when it knows one of the names not, and tells of the others nevertheless.
        _code, out, _err = run_command(["dpkg-query", "--show", f"--showformat={form}", *names])
        rows = (line.split("\t") for line in out.splitlines())
        found = {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}
    elif names and which("rpm"):
        form = "%{NAME}\t%{VERSION}-%{RELEASE}\n"
        _code, out, _err = run_command(["rpm", "--query", f"--queryformat={form}", *names])
        rows = (line.split("\t") for line in out.splitlines())
        found = {row[0]: row[1] for row in rows if len(row) == 2}
    return {name: found.get(name) for name in names}


def user_facts(names: list[str]) -> dict[str, dict[str, t.Any] | None]:
    """uid, gid, shell and home of each user, None where there is none."""
    told: dict[str, dict[str, t.Any] | None] = {}
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            told[name] = None
        else:
            told[name] = {
                "uid": entry.pw_uid,
                "gid": entry.pw_gid,
                "shell": entry.pw_shell,
                "home": entry.pw_dir,
            }
    return told


def group_facts(names: list[str]) -> dict[str, dict[str, t.Any] | None]:
    """gid of each group, None where there is none."""
    told: dict[str, dict[str, t.Any] | None] = {}
    for name in names:
        try:
            told[name] = {"gid": grp.getgrnam(name).gr_gid}
        except KeyError:
            told[name] = None
    return told


def sysctl_facts(names: list[str], proc: str = "/proc/sys") -> dict[str, dict[str, t.Any] | None]:
    """Value of each setting of the kernel, and whether this host may set it: a container may not set what is the whole
    machine's. None for one that this kernel does not have."""
    told: dict[str, dict[str, t.Any] | None] = {}
    for name in names:
        path = pathlib.Path(proc, name.replace(".", "/"))
        text = _text(path)
        told[name] = (
            None if text is None else {"value": " ".join(text.split()), "settable": os.access(path, os.W_OK)}
        )
    return told


def sensors(path: str = "/sys/class/hwmon") -> list[dict[str, t.Any]]:
    """What the board's own sensors read: chip, label, and value in °C, V, A, W, rpm, % or J."""
    found = []
    for chip in sorted(pathlib.Path(path).glob("hwmon*")):
        name = _text(chip / "name") or chip.name
        for file in sorted(chip.glob("*_input")):
            match = _SENSOR_INPUT.fullmatch(file.name)
            text = _text(file)
            # A sensor that is not plugged in refuses to be read.
            if match is None or text is None or not text.lstrip("-").isdigit():
                continue
            input_name = file.name[: -len("_input")]
            label = _text(chip / f"{input_name}_label") or input_name
            value = round(int(text) * _SENSOR_SCALES[match[1]], 6)
            found.append({"name": name, "label": label, "value": value})
    return found


def _text(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The program, its units and its settings on the gateway: what they are to be, and bringing them there."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..guard import durable, errors, lock, units
from ..guard import host as guard_host
from ..guard import timer as guard_timer
from . import (
    device,
    engine,
    host,
    incoming,
    manifest,
    needs,
    program,
    settings,
    store,
    timer,
    verdict,
    versions,
)

PROGRAM = "/usr/local/lib/energy-firmware/energy-firmware.pyz"
PACKAGE = "energy"
# The files that the program is made of, in the places that they have here: they name each other by them. They are
# imported so that Ansible ships them with the module.
PARTS: Mapping[str, tuple[ModuleType, ...]] = {
    "firmware": (
        device,
        engine,
        host,
        incoming,
        manifest,
        needs,
        program,
        settings,
        store,
        timer,
        verdict,
        versions,
    ),
    "guard": (durable, errors, guard_host, guard_timer, lock),
}
MAIN = f"import sys\n\nfrom {PACKAGE}.firmware.program import main\n\nsys.exit(main())\n"

COMMON = """Environment=PATH={path}
SyslogIdentifier=energy-firmware
OOMScoreAdjust=-900
{limits}"""
SETTLE_UNIT = """# Written by Ansible (role firmware); what is changed here is undone by the next run.
[Unit]
Description=Bring an update of this gateway to its end: confirmed, or taken back
RequiresMountsFor={base}
StartLimitIntervalSec=0

[Service]
Type=exec
{common}ExecStart={python} -I -B {program} settle
# It is tried again until the update has ended in one way or the other.
Restart=on-failure
RestartSec=15

[Install]
WantedBy=multi-user.target
"""
INSTALL_UNIT = """# Written by Ansible (role firmware); what is changed here is undone by the next run.
[Unit]
Description=Install what this gateway has accepted
# However it ends: the device is asked what it runs, and nothing is installed again.
OnFailure={settle}
# It is started to rehearse as well, and two runs of a controller may follow each other.
StartLimitIntervalSec=60
StartLimitBurst=20

[Service]
Type=oneshot
{common}ExecStart={python} -I -B {program} install
# The tool has a time-out of its own, by the adapter; this is for all that comes after it.
TimeoutStartSec={timeout:.0f}
KillMode=control-group
"""
# Seconds beside the tool's own time-out: to copy the image and read it, and to wait for a restart.
BESIDE = 900.0
# The collector's releases, and the link to the one that runs.
OPT = str(Path(device.RELEASES).parent)


def archive() -> bytes:
    """The program as one file, the same bytes for the same sources, on whatever machine: nothing is compressed."""
    files = {"__main__.py": MAIN, f"{PACKAGE}/__init__.py": ""}
    for folder, parts in PARTS.items():
        files[f"{PACKAGE}/{folder}/__init__.py"] = ""
        for part in parts:
            spec = part.__spec__
            source = spec.loader.get_source(part.__name__) if spec and spec.loader else None  # type: ignore[attr-defined]  # of zipimport's and the file system's loaders
            if source is None:
                raise host.FirmwareError(f"the source of {part.__name__} cannot be read; nothing is changed")
            files[f"{PACKAGE}/{folder}/{part.__name__.rpartition('.')[2]}.py"] = source
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted(files):
            packed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files[name])
    return stream.getvalue()


def wanted(
    python: str, model: str, trust: Mapping[str, Any], adapter: Mapping[str, Any] | None
) -> dict[str, bytes]:
    """Every file by its path, for a gateway with these settings. Raises FirmwareError for settings that are wrong."""
    texts = settings.files_of(model, trust, adapter)
    tool = settings.adapter_of(dict(adapter), "adapter") if adapter else None
    # Ours, and where the image has to lie. One text for both units: what the installation could do, the way back can.
    folders = [store.BASE, OPT, *([tool.folder] if tool else [])]
    limits = needs.limits((tool and tool.needs) or needs.Needs(), folders)
    words = {
        "base": store.BASE,
        "python": python,
        "program": PROGRAM,
        "settle": engine.SETTLE,
        "common": COMMON.format(path=host.PATH, limits=limits),
        "timeout": (tool.timeout if tool else settings.TIMEOUT) + BESIDE,
    }
    for name, text in ((engine.SETTLE, SETTLE_UNIT), (engine.INSTALL, INSTALL_UNIT)):
        texts[f"{units.LINKS}/{name}"] = text.format(**words)
    return {PROGRAM: archive(), **{path: text.encode() for path, text in texts.items()}}


def described(files: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """The same as the filter file_differences takes it."""
    found = {
        path: {
            "sha256": hashlib.sha256(content).hexdigest(),
            "owner": "root",
            "group": "root",
            "mode": "0644",
        }
        for path, content in files.items()
    }
    if settings.ADAPTER not in files:
        found[settings.ADAPTER] = {"type": "absent"}
    return found


def install(there: host.Host, files: Mapping[str, bytes], *, check: bool = False) -> list[str]:
    """Bring files and units up to date; what differed. With `check` nothing is changed."""
    differing = []
    for path, content in files.items():
        place = there.at(path)
        if _is(place, content):
            continue
        differing.append(path)
        if not check:
            durable.make_directory(place.parent)
            durable.write(place, content, mode=0o644, owner=(0, 0))
    if settings.ADAPTER not in files and there.at(settings.ADAPTER).exists():
        differing.append(settings.ADAPTER)
        if not check:
            durable.remove(there.at(settings.ADAPTER))
    if check:
        return differing
    if any(path.startswith(units.LINKS) for path in differing):
        units.reload_manager(there)
    state = units.look(there, [engine.SETTLE, engine.INSTALL])
    if units.is_masked(state[engine.SETTLE]) or state[engine.SETTLE]["enabled"] != "enabled":
        units.bring(there, "enable", engine.SETTLE)
        differing.append(f"{engine.SETTLE} at boot")
    unusable = [name for name, words in units.look(there, list(state)).items() if words["load"] != "loaded"]
    if unusable:
        raise host.FirmwareError(f"systemd does not load {', '.join(unusable)}")
    return differing


def _is(place: Path, content: bytes) -> bool:
    try:
        found = place.stat()
        there = place.read_bytes()
    except OSError:
        return False
    return there == content and (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 0, 0o644)

# SPDX-License-Identifier: Apache-2.0
"""The firmware of a lab host: a vendor's tool with two slots, and images for it, good and bad ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from wattfleet_lab import paths
from wattfleet_lab.errors import LabError
from wattfleet_lab.files import write_json

TOOL = "usr/sbin/firmware-update"
UNITS = {"firmware-slot.service": "sysinit.target", "firmware-slot-late.service": "multi-user.target"}
MAGIC = b"wattfleet lab firmware 1\n"
MODEL = "wattfleet-lab"
FIRST = "2.3.0"
BEHAVIOURS = {
    "good": "runs",
    "fails": "the tool ends with an error halfway",
    "hangs": "the tool never ends",
    "lies": "the tool reports success, and the old version starts",
    "breaks-network": "runs, and nobody reaches the gateway any more",
    "breaks-polling": "runs, and no question reaches a meter any more",
}
UNITS_OF_SIZE = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def give(root: Path, model: str) -> None:
    """Put the tool, its units and a first version into a host's tree."""
    vendor = paths.PACKAGE / "vendor"
    shutil.copyfile(vendor / "firmware-update", root / TOOL)
    (root / TOOL).chmod(0o755)
    for name, target in UNITS.items():
        shutil.copyfile(vendor / name, root / "usr/lib/systemd/system" / name)
        link = root / f"etc/systemd/system/{target}.wants" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"/usr/lib/systemd/system/{name}")
    (root / "etc/firmware-model").write_text(f"{model}\n")
    slot = {"version": FIRST, "models": [model], "behaviour": "good"}
    (root / "var/lib/firmware").mkdir(mode=0o700)
    write_json(
        root / "var/lib/firmware/state.json",
        {"slots": {"a": slot, "b": None}, "active": "a", "next": None, "confirmed": True, "writes": 0},
    )


def make(output: Path, *, version: str, models: Sequence[str], behaviour: str, length: int) -> None:
    """Write an image. What fills it is the same for the same image, and compresses badly, as firmware does."""
    head = (
        MAGIC
        + json.dumps({"version": version, "models": list(models), "behaviour": behaviour}).encode()
        + b"\n"
    )
    if length < len(head):
        raise LabError(f"--size: an image has at least {len(head)} bytes")
    with output.open("wb") as stream:
        stream.write(head)
        left, value = length - len(head), sum(head)
        while left > 0:
            # A linear congruence (Numerical Recipes), eight thousand numbers a block.
            block = bytearray()
            for _number in range(2048):
                value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
                block += value.to_bytes(4, "big")
            stream.write(block[:left])
            left -= len(block)


def size_of(text: str) -> int:
    """4M and the like as bytes. Raises LabError."""
    number, unit = (text[:-1], UNITS_OF_SIZE[text[-1]]) if text[-1:] in UNITS_OF_SIZE else (text, 1)
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise LabError(f"--size: found {text!r}, expected a number of bytes such as 4M, 600K or 4194304")
    return int(number) * unit

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The states of systemd units, by one `systemctl show`."""

from __future__ import annotations

import typing as t

# AnsibleModule.run_command, or a function that behaves like it.
RunCommand = t.Callable[..., t.Tuple[int, str, str]]

_PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts")


def read(units: list[str], run_command: RunCommand) -> dict[str, dict[str, t.Any]]:
    """`load`, `active`, `sub`, `enabled`, `result`, `restarts` of each of `units`, all as systemd words, and
    `failure`: one line when systemd could not be asked, else None."""
    command = ["systemctl", "show", "--no-pager", "--property=" + ",".join(_PROPERTIES), "--", *units]
    try:
        code, output, errors = run_command(command, handle_exceptions=False)
    except OSError as error:
        return _unknown(units, f"systemctl: {error.strerror}")
    if code != 0:
        return _unknown(units, (errors.strip().splitlines() or [f"systemctl show ended with {code}"])[0])
    return parse(units, output)


def parse(units: list[str], output: str) -> dict[str, dict[str, t.Any]]:
    """The output of `systemctl show` for `units`: one block a unit, in the order they were asked for."""
    blocks = [
        dict(line.partition("=")[::2] for line in block.splitlines())
        for block in output.strip().split("\n\n")
    ]
    if len(blocks) != len(units):
        return _unknown(units, f"systemctl show told of {len(blocks)} units in place of {len(units)}")
    return {
        unit: {
            "load": block.get("LoadState"),
            "active": block.get("ActiveState"),
            "sub": block.get("SubState"),
            "enabled": block.get("UnitFileState"),
            "result": block.get("Result"),
            "restarts": int(block["NRestarts"]) if block.get("NRestarts", "").isdigit() else None,
            "failure": None,
        }
        for unit, block in zip(units, blocks, strict=True)
    }


def _unknown(units: list[str], failure: str) -> dict[str, dict[str, t.Any]]:
    nothing = dict.fromkeys(("load", "active", "sub", "enabled", "result", "restarts"))
    return {unit: {**nothing, "failure": failure} for unit in units}

# SPDX-License-Identifier: Apache-2.0
"""Running the programs that do the kernel work (ip, nft, mount), with one clear line when one fails."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from wattfleet_lab.errors import LabError


def run(*command: str, stdin: str | None = None) -> str:
    """Standard output of a command. LabError when it is missing or fails."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LabError(f"the program {command[0]} is not installed: run tools/bootstrap.sh") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise LabError(f"{' '.join(command)}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout


def succeeds(*command: str) -> bool:
    """Whether a command exits with 0; its output is not shown."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def ip_batch(lines: Sequence[str], namespace: str | None = None) -> None:
    """Several ``ip`` commands in one process, optionally inside a named network namespace."""
    within = ("-n", namespace) if namespace else ()
    run("ip", *within, "-batch", "-", stdin="\n".join(lines) + "\n")

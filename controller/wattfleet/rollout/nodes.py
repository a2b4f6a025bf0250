# SPDX-License-Identifier: Apache-2.0
"""Execution nodes: machines that reach the sites for the controller, over SSH."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from wattfleet.errors import WattfleetError
from wattfleet.rollout.fleet import Node

# On the node, below the home of the user that ssh logs in as. Named by the content: a release is sent once.
CACHE = ".cache/wattfleet/releases"
CONNECT_TIMEOUT = 20  # s


class NodeError(WattfleetError):
    """A node cannot be used; one line says why."""


def ssh(node: Node) -> list[str]:
    """The command that runs another one on the node."""
    config = ["-F", node.ssh_config] if node.ssh_config else []
    alive = [
        "-o",
        f"ConnectTimeout={CONNECT_TIMEOUT}",
        "-o",
        "ServerAliveInterval=10",
        "-o",
        "ServerAliveCountMax=3",
    ]
    return ["ssh", *config, "-o", "BatchMode=yes", *alive, node.host]


def bring(node: Node, files: Iterable[Path]) -> dict[str, str]:
    """Have the files on the node; where each is there, by its path here. Raises NodeError."""
    found = {}
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        place = f"{CACHE}/{digest}"
        home = _run(node, f'test -f "$HOME/{place}" || echo missing; echo "$HOME"', None).split()
        if home[0] == "missing":
            # Several plays may bring it at once; a name of its own for each, and the last rename wins.
            script = (
                f'mkdir -p "$HOME/{CACHE}" && part=$(mktemp "$HOME/{place}.XXXXXX") && cat > "$part" && '
                f'echo "{digest}  $part" | sha256sum -c --quiet && mv "$part" "$HOME/{place}"'
            )
            _run(node, script, file)
        found[str(file)] = f"{home[-1]}/{place}"
    return found


def _run(node: Node, script: str, content: Path | None) -> str:
    with (content or Path("/dev/null")).open("rb") as given:
        done = subprocess.run([*ssh(node), script], stdin=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise NodeError(f"node {node.name}: {said[-1] if said else f'ssh ended with {done.returncode}'}")
    return done.stdout


def copy(source: Path, target: Path) -> None:
    """A file or a folder, with what links lead to and without what Python has compiled."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)

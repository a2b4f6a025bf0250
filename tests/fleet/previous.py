# SPDX-License-Identifier: Apache-2.0
"""The release before this one, taken out of the repository's history and built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from wattfleet.paths import BUILD, ROOT

FILE = Path(__file__).with_name("previous-release")


@dataclass(frozen=True)
class Release:
    """A version, its commit, and where its tree lies once it was taken out."""

    version: str
    commit: str

    @property
    def tree(self) -> Path:
        return BUILD / "previous" / self.version

    @property
    def is_known(self) -> bool:
        """Whether the clone reaches back so far; a shallow one does not."""
        command = ["git", "-C", str(ROOT), "cat-file", "-e", f"{self.commit}^{{commit}}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def take_out(self) -> None:
        """Its tree, with its releases of collector and hub built from its own sources and locks."""
        shutil.rmtree(self.tree, ignore_errors=True)  # there is none the first time
        self.tree.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", self.commit], capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as packed:
            packed.extractall(self.tree, filter="fully_trusted")  # our own history
        for part in ("collector", "hub"):
            subprocess.run(
                [sys.executable, "tools/build_release.py", part],
                cwd=self.tree,
                check=True,
                capture_output=True,
            )

    def play(self, playbook: str, inventory: str) -> subprocess.CompletedProcess[str]:
        """Run one of its playbooks with its own code."""
        return subprocess.run(
            ["ansible-playbook", "-i", inventory, f"playbooks/{playbook}.yml"],
            cwd=self.tree,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(self.tree / "ansible.cfg"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def previous_release() -> Release:
    """The one that tests/fleet/previous-release names."""
    line = next(line for line in FILE.read_text().splitlines() if not line.startswith("#"))
    return Release(*line.split())

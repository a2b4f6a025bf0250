# SPDX-License-Identifier: Apache-2.0
"""ansible-playbook as an operator runs it, and everything of it that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from wattfleet.paths import ROOT
from wattfleet_lab.state import State


class Play:
    """One playbook with one task for one host. `folder` keeps what it was and what it said."""

    def __init__(self, state: State, host: str, tasks: list[dict[str, Any]], folder: Path) -> None:
        self.host = host
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)  # there is none the first time
        folder.mkdir(parents=True)
        # Short, since sockets are made in it; of its own, so that its sessions can be told from all others.
        self.control = Path(tempfile.mkdtemp(prefix="wf-cp-", dir="/tmp"))
        self.playbook = folder / "play.yml"
        play = {"hosts": host, "gather_facts": False, "become": True, "tasks": tasks}
        self.playbook.write_text(yaml.safe_dump([play], sort_keys=False))
        address = state.host(host).address
        facts = {
            "ansible_host": address,
            "ansible_user": "admin",
            "ansible_ssh_common_args": f"-F {state.ssh_config}",
        }
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {host: facts}}}))
        self._process: subprocess.Popen[bytes] | None = None
        self.killed = False

    def start(self) -> None:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.control),
            # The last result of the host, as JSON.
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.tree",
            "ANSIBLE_CALLBACK_TREE_DIR": str(self.folder / "result"),
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
        }
        with (self.folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                ["ansible-playbook", "-i", str(self.folder / "hosts.yml"), str(self.playbook)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def ok(self) -> bool:
        return self._process is not None and self._process.poll() == 0

    def result(self) -> dict[str, Any] | None:
        """What the task returned; None when the play never came that far."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "result" / self.host).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return found

    def words(self) -> str:
        """What a person reads who looks at the play's result."""
        return str(
            (self.result() or {}).get("msg") or ("ok" if self.ok else "killed, or failed without a word")
        )

    def kill_sessions(self) -> None:
        """Every ssh client of this play, the one that keeps the connection open included."""
        for pid in _with_word(str(self.control)):
            _kill(pid)

    def kill(self) -> None:
        """The whole play at once, as a closed laptop does."""
        self.killed = True
        if self._process is not None and self._process.poll() is None:
            # Ansible's workers lead groups of their own.
            for pid in [self._process.pid, *_descendants(self._process.pid)]:
                _kill(pid)
            self._process.wait()
        self.kill_sessions()

    def close(self) -> None:
        """Nothing of the play stays behind."""
        if not self.ended:
            self.kill()
        self.kill_sessions()
        shutil.rmtree(self.control, ignore_errors=True)  # sockets go by themselves meanwhile


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _with_word(word: str) -> list[int]:
    found = []
    for pid in _processes():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        # A master that lives on calls itself `ssh: <socket> [mux]`.
        if word.encode() in command and command.partition(b"\0")[0].rpartition(b"/")[2].startswith(b"ssh"):
            found.append(pid)
    return found


def _descendants(top: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for pid in _processes():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    waiting = [top]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

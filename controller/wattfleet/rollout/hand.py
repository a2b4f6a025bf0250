# SPDX-License-Identifier: Apache-2.0
"""One play of `firmware_step.yml` in a process of its own: `python -m wattfleet.rollout.hand`.

The first line of standard input is the order; standard output gets a line of JSON for each site as soon as it is
heard: `{"site", "seen"}` or `{"site", "trouble"}`, and `{"error"}` for the play as a whole. Standard input stays open
as long as the driver lives: at its end, by kill -9 too, this process takes all of Ansible with it, so that a driver
that begins again never finds a play of its predecessor under way.

On an execution node the play runs by ansible-runner's transmit, worker and process (its "remote jobs"): the node gets
this order's inventory and the collection's plugins with it, and has the release's files from `nodes.bring`.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import ansible_runner

from wattfleet.paths import PLAYBOOKS, ROOT
from wattfleet.rollout import nodes
from wattfleet.rollout.fleet import Node, ansible_environment

PLAYBOOK = "firmware_step.yml"
PR_SET_CHILD_SUBREAPER = 36
# Parts of the collection that the play needs.
PARTS = (
    "plugins/action",
    "plugins/module_utils",
    "plugins/modules",
    "plugins/plugin_utils",
    "meta",
    "galaxy.yml",
)
CONFIGURATION = """\
[defaults]
collections_path = collections
interpreter_python = /usr/bin/python3
host_key_checking = true
[inventory]
enable_plugins = ansible.builtin.yaml
[connection]
pipelining = true
[ssh_connection]
ssh_args = -o ControlMaster=auto -o ControlPersist=120s -o ServerAliveInterval=10 -o ServerAliveCountMax=6
"""


def main() -> int:
    """Carry out the order on standard input; 0 when the play ran, whatever its sites said."""
    order = json.loads(sys.stdin.readline())
    # What Ansible leaves behind when it is killed becomes ours, and is found below us.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    folder = Path(tempfile.mkdtemp(prefix="wattfleet-play-"))
    try:
        (folder / "inventory").mkdir(mode=0o700)
        node = Node(**order["node"]) if order.get("node") else None
        problem = _there(folder, order, node) if node else _here(folder, order)
    except (OSError, nodes.NodeError) as error:
        problem = str(error)
    finally:
        # What is left of a temporary folder harms nobody.
        shutil.rmtree(folder, ignore_errors=True)
    if problem:
        _tell(error=problem)
    return 0


def _here(folder: Path, order: dict[str, Any]) -> str | None:
    _write_inventory(folder, order["inventory"])
    lines: list[str] = []
    environment = {
        key: value
        for key, value in ansible_environment().items()
        if key.startswith(("ANSIBLE_", "PATH", "WATTFLEET_"))
    }
    run = ansible_runner.run(
        private_data_dir=str(folder),
        project_dir=str(ROOT),
        playbook=str(PLAYBOOKS / PLAYBOOK),
        inventory=str(folder / "inventory"),
        envvars={
            **environment,
            "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml",
            "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner would switch it off
        },
        forks=order["forks"],
        event_handler=lambda event: _on_event(event, lines),
        quiet=True,
    )
    return _problem(run.status, lines)


def _there(folder: Path, order: dict[str, Any], node: Node) -> str | None:
    """On an execution node. What the node says is data: the events of a play, and nothing is carried out here."""
    inventory = order["inventory"]
    files = [Path(order[key]) for key in ("image", "manifest") if order.get(key)]
    places = nodes.bring(node, files) if files else {}
    for host in inventory["all"]["hosts"].values():
        told = host["rollout_order"]
        for key in ("image", "manifest"):
            told[key] = places.get(told[key], told[key])
    _write_inventory(folder, inventory)
    project = folder / "project"
    project.mkdir()
    shutil.copy(PLAYBOOKS / PLAYBOOK, project)
    (project / "ansible.cfg").write_text(CONFIGURATION, encoding="utf-8")
    collection = project / "collections" / "ansible_collections" / "wattfleet" / "energy"
    for part in PARTS:
        nodes.copy(_collection() / part, collection / part)
    lines: list[str] = []
    received = folder / "received"
    received.mkdir()
    ssh = subprocess.Popen(
        [*nodes.ssh(node), node.runner, "worker", "--keepalive-seconds", "5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ssh.stdin is not None
    assert ssh.stdout is not None
    assert ssh.stderr is not None

    def send() -> None:
        try:
            ansible_runner.run(
                streamer="transmit",
                _output=ssh.stdin,
                private_data_dir=str(folder),
                playbook=PLAYBOOK,
                forks=order["forks"],
                envvars={"ANSIBLE_HOST_KEY_CHECKING": "True"},
                quiet=True,
            )
            ssh.stdin.close()  # type: ignore[union-attr]  # it was opened with a pipe
        except BrokenPipeError:
            pass  # ssh ends, and tells why itself

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    run = ansible_runner.run(
        streamer="process",
        _input=ssh.stdout,
        private_data_dir=str(received),
        event_handler=lambda event: _on_event(event, lines),
        quiet=True,
    )
    said = ssh.stderr.read().decode(errors="replace").strip().splitlines()
    if ssh.wait() != 0:
        return f"node {node.name}: {said[-1] if said else f'ssh ended with {ssh.returncode}'}"
    problem = _problem(run.status, lines)
    return f"node {node.name}: {problem}" if problem else None


def _collection() -> Path:
    """Where Ansible itself would take the collection from."""
    for folder in os.environ.get("ANSIBLE_COLLECTIONS_PATH", "").split(os.pathsep):
        path = Path(folder, "ansible_collections", "wattfleet", "energy")
        if folder and path.is_dir():
            return path
    return ROOT


def _write_inventory(folder: Path, inventory: dict[str, Any]) -> None:
    path = folder / "inventory" / "sites.yml"
    # JSON is YAML.
    path.write_text(json.dumps(inventory), encoding="utf-8")


def _on_event(event: dict[str, Any], lines: list[str]) -> bool:
    data = event.get("event_data") or {}
    if event.get("stdout"):
        lines.append(event["stdout"])
        print(event["stdout"], file=sys.stderr)
    site, kind = data.get("host"), event.get("event", "")
    result = data.get("res") or {}
    if site and kind in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
        seen = result.get("seen")
        if kind == "runner_on_ok" and isinstance(seen, dict):
            _tell(site=site, seen=seen)
        else:
            text = str(result.get("msg") or result.get("module_stderr") or "no answer that can be understood")
            where = "unreachable" if kind == "runner_on_unreachable" else "error"
            _tell(site=site, trouble=f"{where}: {first_line(text)}")
    return False  # nothing is kept on disk


def first_line(text: str) -> str:
    """Of a message that may be a whole page."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]


def _problem(status: str, lines: list[str]) -> str | None:
    if status in ("successful", "failed"):  # with failed sites, which have said so
        return None
    last = [line for text in lines for line in text.splitlines() if line.strip()][-3:]
    return f"ansible-runner ended as '{status}'" + (f": {' '.join(last)}" if last else "")


def _tell(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def _end_with_the_driver() -> None:
    """Wait for the end of standard input, then kill all that was begun here."""
    sys.stdin.read()
    for process in _below(os.getpid()):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os._exit(1)


def _below(top: int) -> list[int]:
    """All processes below `top`, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name of the program may hold blanks and brackets.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
    found, grown = {top}, True
    while grown:
        more = {process for process, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return sorted(found - {top})


if __name__ == "__main__":
    sys.exit(main())

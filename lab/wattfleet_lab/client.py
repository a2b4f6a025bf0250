# SPDX-License-Identifier: Apache-2.0
"""Talking to a lab's supervisor, and starting it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from wattfleet_lab import paths
from wattfleet_lab.addresses import Plan
from wattfleet_lab.errors import LabError
from wattfleet_lab.processes import Process
from wattfleet_lab.state import State

START_TIMEOUT = 15.0  # s


def exchange(path: Path, message: dict[str, Any], timeout: float) -> str:
    """One JSON line to a unix socket and the line that comes back. OSError when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(json.dumps(message).encode() + b"\n")
        with connection.makefile("r", encoding="utf-8") as stream:
            return stream.readline()


def request(state: State, operation: str, timeout: float = 60.0, **arguments: Any) -> dict[str, Any]:
    """One request to the supervisor and its answer. LabError when it refuses or does not run."""
    try:
        line = exchange(state.socket, {"op": operation, **arguments}, timeout)
    except (FileNotFoundError, ConnectionError):
        raise LabError(f"lab {state.name!r} is not up: start it with `wattfleet lab up`") from None
    except PermissionError:
        raise LabError(f"lab {state.name!r} was started by root: use sudo") from None
    except TimeoutError:
        raise LabError(
            f"the supervisor of lab {state.name!r} did not answer {operation!r} within {timeout:.0f} s; "
            f"see {state.supervisor_log}"
        ) from None
    if not line:
        raise LabError(
            f"the supervisor of lab {state.name!r} ended while it was asked; see {state.supervisor_log}"
        )
    answer: dict[str, Any] = json.loads(line)
    if not answer.pop("ok"):
        raise LabError(answer["error"])
    return answer


def simulated_sites(state: State) -> set[str]:
    """Sites whose meters the simulator serves at the moment."""
    try:
        line = exchange(state.meters_socket, {"op": "status"}, timeout=5)
        return set(json.loads(line)["sites"])
    except (OSError, ValueError, KeyError):
        return set()


def supervisor(state: State) -> Process | None:
    """The supervisor's process if it is alive."""
    try:
        process = Process(*json.loads(state.supervisor.read_text()))
    except FileNotFoundError:
        return None
    return process if process.alive else None


def ensure_supervisor(state: State, plan: Plan) -> None:
    """Starts the supervisor unless it is there, and waits until it listens."""
    if supervisor(state) is not None:
        return
    command = [sys.executable, "-m", "wattfleet_lab.supervisor", str(state.path), state.name, str(plan.index)]
    if Path("/run/systemd/system").is_dir():
        # Where systemd runs the machine, a part of the control group tree has to be asked for.
        command = [
            "systemd-run",
            "--quiet",
            "--scope",
            "--collect",
            "--property=Delegate=yes",
            "--",
            *command,
        ]
    search = [str(paths.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with state.supervisor_log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        if state.supervisor.exists() and supervisor(state) is not None:
            return
        time.sleep(0.05)
    lines = state.supervisor_log.read_text().strip().splitlines()
    raise LabError(f"the lab's supervisor did not start: {lines[-1] if lines else 'it said nothing'}")

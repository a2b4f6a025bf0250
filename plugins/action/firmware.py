# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Runs the module of the same name. For a transfer it sends the image over the open connection, chunk by chunk."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.wattfleet.energy.plugins.plugin_utils._connection import ConnectionAction
from ansible_collections.wattfleet.energy.plugins.plugin_utils._transfer import Pace

ALIVE = 10  # s, see _notice_cuts
# Seconds without any connection after which the transfer is left to the next execution.
PATIENCE = 90.0
# Chunks that are lost one after the other, none of them brought anything: that is no weak link any more.
HOPELESS = 20
AGAIN = (0.5, 1.0, 2.0, 4.0, 8.0)


class ActionModule(ConnectionAction):
    """The controller's side of firmware; see the module for its documentation."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        step = arguments.get("step")
        if step in ("transfer", "install") and arguments.get("image") and arguments.get("manifest"):
            arguments["image"] = self._find_needle("files", arguments["image"])
            manifest = self._find_needle("files", arguments["manifest"])
            try:
                arguments["envelope"] = Path(manifest).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise AnsibleError(f"{manifest}: {error}") from None
        # A gateway that restarts leaves its old sessions hanging.
        self._notice_cuts(ALIVE)
        begun = time.monotonic()
        answer = self._ask(arguments, task_vars)
        after = time.time()
        receiver, clock = answer.pop("receiver", None), answer.pop("clock", None)
        result.update(answer)
        if clock is not None and "seen" in result:
            # The gateway read its clock last of all, so what is between is only the answer's way.
            result["seen"]["data"]["clock"] = round(clock - after, 3)
        if receiver is not None and not result.get("failed"):
            self._transfer(result, arguments, receiver, begun)
        if step == "transfer" and "seen" in result:
            result["seen"]["data"]["seconds"] = round(time.monotonic() - begun, 2)
        return result

    def _ask(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """One execution of the module. A connection that died since the last one is opened anew, once."""
        try:
            answer: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure:
            self._reconnect()
            answer = self._execute_module(module_args=arguments, task_vars=task_vars)
        return answer

    # The transfer

    def _transfer(
        self, result: dict[str, Any], arguments: dict[str, Any], receiver: dict[str, str], begun: float
    ) -> None:
        seen = result["seen"]
        data = seen["data"]
        image = Path(arguments["image"])
        wrong = _differs(image, receiver["sha256"], data["length"])
        if wrong:
            seen.update(kind="refused", why=wrong)
            return
        budget, seconds = int(arguments.get("budget") or 0), float(arguments.get("seconds") or 0)
        pace = Pace(int(arguments.get("rate") or 0), time.monotonic)
        data["drops"], started, away, in_vain = 0, data["offset"], None, 0
        with image.open("rb") as stream:
            while True:
                size = min(pace.next(), data["length"] - data["offset"])
                if budget:
                    size = min(size, budget - data["sent"])
                if size <= 0:
                    seen["why"] = f"the budget of {budget} bytes is spent"
                    break
                wait = pace.wait(size)
                if seconds and time.monotonic() + wait - begun >= seconds:
                    seen["why"] = f"{seconds:g} s have passed"
                    break
                time.sleep(wait)
                stream.seek(data["offset"])
                chunk = stream.read(size)
                # Counted before it is known what has come of it: what was lost on the way was paid for as well.
                data["sent"] += len(chunk)
                at = time.monotonic()
                told = self._send(receiver, data, chunk)
                if told is None:
                    data["drops"] += 1
                    pace.lost()
                    told = self._where(receiver)
                    if told is None:
                        away = time.monotonic() - at
                        break
                else:
                    pace.took(len(chunk), time.monotonic() - at)
                in_vain = in_vain + 1 if told.get("offset") == data["offset"] else 0
                if in_vain == HOPELESS:
                    seen["why"] = f"{in_vain} chunks in a row were lost; {data['offset']} bytes are there"
                    break
                if "error" in told:
                    result.update(failed=True, msg=told["error"])
                    return
                data["offset"] = told["offset"]
                if told.get("refused"):
                    seen.update(kind="refused", why=told["refused"])
                    break
                if told.get("whole"):
                    seen.update(kind="transferred", why="verified from the gateway's disk")
                    break
        if away is not None:
            seen["why"] = f"no connection for {away:.0f} s; {data['offset']} bytes are there"
        result["changed"] = data["offset"] != started or seen["kind"] == "refused"

    def _send(self, receiver: dict[str, str], data: dict[str, Any], chunk: bytes) -> dict[str, Any] | None:
        """Pipe a chunk into the gateway's program; its answer, or None where the connection was lost."""
        return self._program(receiver, "receive", [str(data["length"]), str(data["offset"])], chunk)

    def _where(self, receiver: dict[str, str]) -> dict[str, Any] | None:
        """How much the gateway has, over a new connection; None where there is none for too long."""
        begun, tries = time.monotonic(), 0
        while time.monotonic() - begun < PATIENCE:
            self._reconnect()
            told = self._program(receiver, "offset", [], None)
            if told is not None:
                return told
            time.sleep(AGAIN[min(tries, len(AGAIN) - 1)])
            tries += 1
        return None

    def _program(
        self, receiver: dict[str, str], command: str, words: list[str], data: bytes | None
    ) -> dict[str, Any] | None:
        argv = [
            receiver["python"],
            "-I",
            "-B",
            receiver["program"],
            command,
            receiver["sha256"],
            *words,
        ]
        try:
            done = self._low_level_execute_command(shlex.join(argv), in_data=data)
        except AnsibleConnectionFailure:
            return None
        lines = [line for line in done["stdout"].splitlines() if line.startswith("{")]
        if done["rc"] == 0 and lines:
            told: dict[str, Any] = json.loads(lines[-1])
            return told
        words_of = done["stderr"].strip().splitlines()
        # The program's own words; anything else is a session that ended in the middle.
        own = [line for line in words_of if line.startswith("energy-firmware: ")]
        return {"error": own[-1]} if own else None


def _differs(image: Path, sha256: str, length: int) -> str:
    """Why the controller's image is not the one that the manifest is for, before it is sent for nothing."""
    hashed = hashlib.sha256()
    found = 0
    try:
        with image.open("rb") as stream:
            while block := stream.read(1 << 20):
                hashed.update(block)
                found += len(block)
    except OSError as error:
        raise AnsibleError(f"{image}: {error.strerror}") from None
    if found != length:
        return f"{image.name} has {found} bytes, and the manifest says {length}: nothing was sent"
    if hashed.hexdigest() != sha256:
        return f"{image.name} is not what was signed: nothing was sent"
    return ""

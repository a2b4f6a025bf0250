# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The controller's side of a guarded change: compare, begin, come back over a new connection, confirm."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.wattfleet.energy.plugins.plugin_utils._connection import ConnectionAction

GUARD = "wattfleet.energy.guard"
# Seconds after the wait within which a host that undoes a change by itself has to be back.
GRACE = 30.0
ALIVE = 5  # s, see _notice_cuts
WAIT_MIN = 60.0
# Seconds within which a module that is cut off has begun its change, if it ever does; more on a link that is slow.
BEGIN = 15.0
NEVER = "it was never begun"
PAGE = "See docs/how-to/change-was-undone.md."


class GuardedAction(ConnectionAction):
    """Runs the module of the same name as a guarded change. One execution where nothing differs."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        options = dict(arguments.get("guard") or {})
        compared = self._execute_module(
            module_args={**arguments, "guard": {**options, "phase": "compare"}}, task_vars=task_vars
        )
        needed = (compared.pop("guard", None) or {}).get("needed")
        result.update(compared)
        if result.get("failed") or not needed:
            return result
        measured = self._measure(task_vars)
        wait_min = float(options.get("wait_min") or arguments.get("wait_min") or WAIT_MIN)
        wait = round(max(wait_min, 3 * measured), 1)
        return self._change(
            result, {**arguments, "guard": {**options, "wait": wait}}, measured, wait, task_vars
        )

    # Connections: one from before the change would prove nothing.

    def _measure(self, task_vars: dict[str, Any] | None) -> float:
        """Seconds that a new connection with one execution takes."""
        self._notice_cuts(ALIVE)
        self._reconnect()
        begun = time.monotonic()
        told = self._execute_module(module_name=GUARD, module_args={"state": "status"}, task_vars=task_vars)
        if told.get("failed"):
            raise AnsibleError(f"the guard does not run on the host: {told.get('msg')}")
        return round(time.monotonic() - begun, 2)

    def _ask(
        self, module_name: str | None, module_args: dict[str, Any], task_vars: Any
    ) -> dict[str, Any] | None:
        """The module's answer; None if the connection has failed, or has been cut within the answer.

        Or if nobody may become root any more: that is a change that locks us out as well, and it is undone.
        """
        try:
            answer: dict[str, Any] = self._execute_module(
                module_name=module_name, module_args=module_args, task_vars=task_vars
            )
        except AnsibleError:
            return None
        return None if answer.get("unreachable") else answer

    # The change

    def _change(
        self, result: dict[str, Any], arguments: dict[str, Any], measured: float, wait: float, task_vars: Any
    ) -> dict[str, Any]:
        nonce = secrets.token_hex(32)
        digest = hashlib.sha256(nonce.encode()).hexdigest()
        arguments["guard"].update(phase="begin", digest=digest)
        begun = time.monotonic()
        told = {"measured": measured, "wait": wait, "reason": None, "restored_exactly": None}
        subject = arguments.get("subject")
        answer = self._ask(None, arguments, task_vars)
        crash = _crash(answer)
        if answer is not None and "guard" in answer:
            result.update({key: value for key, value in answer.items() if key != "guard"})
            subject = answer["guard"].get("subject") or subject
            end = answer["guard"] if answer["guard"].get("outcome") else None
        elif answer is not None and answer.get("failed") and not crash:
            # The module has refused, so nothing has begun.
            result.update(answer, changed=False)
            return result
        else:
            end = None
        if end is None:
            # A session that was cut early may still be about to begin; a module that has crashed is not.
            within = 0.0 if crash else max(BEGIN, 3 * measured)
            end = self._confirm(nonce, begun, wait, within, task_vars)
            if crash and end.get("exact") and end.get("reason") == NEVER:
                end["reason"] = f"{NEVER}: the module has crashed: {crash}"
        took = round(time.monotonic() - begun, 2)
        told.update(outcome=end["outcome"], took=took)
        if end["outcome"] != "confirmed":
            told.update(reason=end.get("reason"), restored_exactly=end.get("exact"))
            result.update(failed=True, changed=False)
        host = str((task_vars or {}).get("inventory_hostname", "the host"))
        result.update(guard=told, msg=self._words(host, end.get("subject") or subject, told))
        self._reconnect()
        return result

    @staticmethod
    def _words(host: str, subject: str | None, told: dict[str, Any]) -> str:
        if told["outcome"] == "confirmed":
            what = f" of {subject}" if subject else ""  # the answers that name it may have been lost
            return (
                f"{host}: the change{what} was applied, and confirmed over a new connection after {told['took']:g} s. "
                f"It would have been undone after {told['wait']:g} s; a new connection took {told['measured']:g} s."
            )
        if told["outcome"] == "undone":
            exactly = "exactly as it was" if told["restored_exactly"] else "back"
            return f"The change of {host} was undone, because {told['reason']}. The host is {exactly}. {PAGE}"
        if told["reason"]:
            return (
                f"{host} is not as it was {told['took']:g} s after the change was begun. It answers: {told['reason']}. "
                f"It goes on by itself until nothing differs. {PAGE}"
            )
        return (
            f"{host} has not answered over a new connection for {told['took']:g} s since the change was begun. It "
            "undoes the change by itself; whether it has is not known. See journalctl -t energy-guard on the host, "
            f"and {PAGE.removeprefix('See ')}"
        )

    def _confirm(
        self, nonce: str, begun: float, wait: float, within: float, task_vars: Any
    ) -> dict[str, Any]:
        """Confirm over new connections, again and again, until the host says what has become of the change. It begins
        `within` so many seconds, if it ever does."""
        while True:
            self._reconnect()
            answer = self._ask(GUARD, {"state": "confirmed", "nonce": nonce}, task_vars)
            # Confirmed twice means that the answer to the first time was lost.
            if answer is not None and answer.get("outcome"):
                return answer
            late = time.monotonic() - begun > within
            if late and answer is not None and answer.get("refusal") in ("nothing", "wrong_nonce"):
                return {"outcome": "undone", "reason": NEVER, "exact": True}
            if time.monotonic() >= begun + wait + GRACE:
                # A host that refuses the confirmation and names no outcome is still undoing the change.
                refused = answer is not None and answer.get("refusal")
                return {"outcome": "unknown", "reason": answer["msg"] if answer and refused else None}
            time.sleep(0.5)


def _crash(answer: dict[str, Any] | None) -> str:
    """In one line what a module has left behind that has crashed; nothing if it has not, or has not answered. Nobody
    knows how far it has come, unlike one that has refused, which always says why in `msg`."""
    if answer is None or not answer.get("failed") or ("msg" in answer and "module_stdout" not in answer):
        return ""
    # ansible-core 2.19 and newer carry the exception, older ones what the interpreter has printed.
    summary = getattr(answer.get("exception"), "event", None)
    for found in (getattr(summary, "msg", ""), answer.get("module_stderr"), answer.get("module_stdout")):
        lines = str(found or "").strip().splitlines()
        if lines:
            return lines[-1].strip()[:300]
    return "without a word"

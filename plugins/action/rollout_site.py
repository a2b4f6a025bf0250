# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Takes one site through a rollout; see module wattfleet.energy.rollout_site.

The engine decides, by the ledger that all sites and the command share; this is its arm for one host. A host that does
not answer is not unreachable to Ansible, which would forget it: its silence counts, and its deadline decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _rollout
from ansible_collections.wattfleet.energy.plugins.plugin_utils._connection import ConnectionAction

FIRMWARE = "wattfleet.energy.firmware"
TURN = 2.0  # s between two turns
QUESTION = 10.0  # s between two questions to the gateway; a short soak is looked at more often
LOOKS_IN_A_SOAK = 20
GATE = 30.0  # s between two questions to the gate
# Turns without any step after which a wave that has not come will not come in this run.
PATIENCE = 5


class ActionModule(ConnectionAction):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("rollout", "state"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        folder = _rollout.folder_of(self._task.args, self._vars.get("ansible_inventory_sources", []))
        from wattfleet.errors import WattfleetError

        self._site = str(self._vars["inventory_hostname"])
        self._rollout = str(self._task.args["rollout"])
        try:
            if self._task.check_mode:
                result.update(changed=True, msg=f"{self._site} would be taken through {self._rollout}")
                return result
            with folder.driving_site(self._rollout, self._site):
                result.update(self._drive(folder))
        except WattfleetError as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def _drive(self, folder: Any) -> dict[str, Any]:
        """Turn after turn, until the site is settled or cannot go on in this run."""
        from wattfleet.rollout.driver import Driver
        from wattfleet.rollout.states import SETTLED

        ledger = folder.ledger()
        driver = Driver(ledger, self._rollout, self, _rollout.who(), here=frozenset((self._site,)))
        self._command: Any = None
        self._heard: Any = None
        self._look: Mapping[str, Any] = {}
        self._gate: Any = None
        self._verdict: Any = None
        self._over = False
        self._asked = {"site": -QUESTION, "gate": -GATE}
        changed, quiet, last, said, settled = False, 0, 0, "", 0
        try:
            while True:
                rollout = driver.turn(int(time.time() * 1000))
                record = rollout.sites[self._site]
                changed = changed or record.state == "installing"
                quiet, last = (quiet + 1 if rollout.number == last else 0), rollout.number
                # One turn more than its own: the last site of a wave closes it, and the last of all the rollout.
                settled += record.state in SETTLED
                ended = settled != 1 and self._ended(ledger, rollout, record.state, quiet)
                if ended:
                    return {**ended, "changed": changed, "rollout_state": rollout.state.value}
                if rollout.state.value != said and rollout.state.value in ("paused", "holding"):
                    why = ledger.reasons(self._rollout).get("", "")
                    self._display.display(f"{self._rollout} is {rollout.state.value}: {why}")
                said = rollout.state.value
                time.sleep(TURN)
        finally:
            ledger.close()

    def _ended(self, ledger: Any, rollout: Any, state: str, quiet: int) -> dict[str, Any] | None:
        """How it ended here; None when it goes on."""
        from wattfleet.rollout.states import ACTIVE, OVER, SETTLED

        reasons = ledger.reasons(self._rollout)
        told = {"site_state": state, "msg": f"{state}: {reasons.get(self._site, '')}"}
        if state in SETTLED:
            return {**told, "failed": state in ("failed", "silent")}
        if state in ACTIVE and not (state == "verified" and rollout.state in OVER):
            return None
        if rollout.state in OVER:
            why = f"not begun, {self._rollout} is {rollout.state.value}: {reasons.get('', '')}"
            return {**told, "msg": why, "failed": True}
        if state == "parked" and quiet >= PATIENCE:
            return {**told, "msg": f"{reasons.get(self._site, '')}: run again when it is open"}
        if rollout.places[self._site][0] > rollout.wave and quiet >= PATIENCE:
            return {**told, "msg": "not begun: the wave before it is not done; run again when it is"}
        return None

    # The driver's arm (wattfleet.rollout.driver.Arm).

    def carry_out(self, rollout: Any, wanted: Iterable[Any]) -> None:
        from wattfleet.rollout import orders
        from wattfleet.rollout.engine import Kind, Seen

        self._command = next((command for command in wanted if command.site == self._site), None)
        pace = min(QUESTION, max(1.0, rollout.settings.soak / LOOKS_IN_A_SOAK))
        if self._command is None or time.monotonic() < self._asked["site"] + pace:
            return
        self._heard = orders.needs_nobody(self._command)
        if self._heard is not None:
            return
        order = orders.order_of(rollout, self._command, int(time.time() * 1000))
        if order is None:
            return
        try:
            answer = self._ask(order)
        except AnsibleConnectionFailure as error:
            self._reconnect()
            self._heard = Seen(Kind.TROUBLE, f"unreachable: {_first_line(str(error))}")
        except AnsibleError as error:
            self._heard = Seen(Kind.TROUBLE, f"error: {_first_line(str(error))}")
        else:
            if not answer.get("failed") and isinstance(answer.get("seen"), dict):
                self._heard = orders.seen_of(answer["seen"])
            else:
                text = str(
                    answer.get("msg") or answer.get("module_stderr") or "no answer that can be understood"
                )
                where = "unreachable" if answer.get("unreachable") else "error"
                self._heard = Seen(Kind.TROUBLE, f"{where}: {_first_line(text)}")
        if self._heard.kind is Kind.RUNNING:
            self._look = self._heard.data
        goes_on = self._heard.kind in (Kind.TRANSFERRING, Kind.TRANSFERRED, Kind.BEGUN)
        self._asked["site"] = time.monotonic() - (pace if goes_on else 0.0)

    def seen(self) -> Mapping[str, Any]:
        heard, self._heard = self._heard, None
        return {self._site: heard} if heard is not None else {}

    def verdicts(self, rollout: Any, names: Iterable[str]) -> Mapping[str, Any]:
        from dataclasses import replace

        from wattfleet.rollout import gate

        if self._site not in names or not self._look:
            return {}
        if self._gate is None:
            hub = self._vars.get("hostvars", {}).get("hub", {})
            self._gate = gate.gate_of(self._vars["energy_fleet"], hub)
        record = rollout.sites[self._site]
        # What was said before the end of the soak is not the last word.
        over = time.time() * 1000 >= record.data.get("soak_until", float("inf"))
        if self._verdict is None or over is not self._over or time.monotonic() >= self._asked["gate"] + GATE:
            self._over = over
            told = replace(record, data={**record.data, "look": dict(self._look)})
            self._verdict = gate.ask(self._gate, {self._site: told}).get(self._site)
            self._asked["gate"] = time.monotonic()
        return {self._site: self._verdict} if self._verdict is not None else {}

    def open_windows(self, rollout: Any, now: int) -> Iterable[str]:
        from wattfleet.rollout import orders

        return orders.open_windows(rollout, now)

    # The host.

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """One execution of module firmware, by its own action plugin."""
        task = self._task.copy()
        task.action = FIRMWARE
        task.args = {key: value for key, value in order.items() if value != ""}
        tools = {
            "task": task,
            "connection": self._connection,
            "play_context": self._play_context,
            "loader": self._loader,
            "templar": self._templar,
            "shared_loader_obj": self._shared_loader_obj,
        }
        loader = self._shared_loader_obj.action_loader
        handler = loader.get(FIRMWARE, **tools) or loader.get("ansible.legacy.normal", **tools)
        answer: dict[str, Any] = handler.run(task_vars=self._vars)
        return answer

    def _reconnect(self) -> None:
        """A gateway that restarts leaves its old sessions hanging."""
        with suppress(AnsibleError):
            # It is the connection that failed; the next question opens another one.
            super()._reconnect()


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Plans a rollout, begins it by its digest, or takes one up that was begun; see module wattfleet.energy.rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _rollout


def _told(rollout: Any, reasons: dict[str, str]) -> list[str]:
    """The rollout's state, and a line for each site that does not have the release."""
    lines = [f"{rollout.name} is {rollout.state.value}: {reasons.get('', '')}"]
    for site, record in rollout.sites.items():
        if record.state not in ("ok", "skipped"):
            lines.append(f"{site}: {record.state}: {record.data.get('trouble') or reasons.get(site, '')}")
    return lines


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False
    _VALID_ARGS = frozenset(("name", "digest", "image", "manifest", "limit", "ask", "state"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        inventories = (task_vars or {}).get("ansible_inventory_sources", [])
        folder = _rollout.folder_of(arguments, inventories)
        from wattfleet.errors import WattfleetError

        try:
            result.update(self._take_up(folder, arguments, _rollout.fleet_file(inventories)))
        except WattfleetError as error:
            raise AnsibleActionFail(str(error)) from None
        return result

    def _take_up(self, folder: Any, arguments: dict[str, Any], inventory: Path) -> dict[str, Any]:
        from wattfleet.rollout import operations, plan_file, preparing, status

        ledger = folder.ledger()
        name = plan_file.check_name(str(arguments["name"]))
        digest = arguments.get("digest") or ""
        changed = False
        state = ledger.rollout(name).state if name in ledger.rollouts() else ""
        if state in ("", "planned"):
            if not digest:
                return self._plan(folder, ledger, name, arguments, inventory)
            changed = True
            if not self._task.check_mode:
                preparing.begin(folder, ledger, name, digest, _rollout.who())
        if self._task.check_mode and changed:
            waves = plan_file.load(folder.plan(name)).plan.waves
            return {"changed": True, "begun": True, "rollout": name, "waves": [list(wave) for wave in waves]}
        rollout = operations.load(ledger, name)
        unsettled = frozenset().union(*(rollout.by_state[state] for state in status.UNSETTLED))
        waves = [[site for site in wave if site in unsettled] for wave in rollout.waves]
        return {
            "changed": changed,
            "begun": True,
            "rollout": name,
            "state": rollout.state.value,
            "waves": [wave for wave in waves if wave],
            "sites": {site: record.state for site, record in rollout.sites.items()},
            "told": _told(rollout, ledger.reasons(name)),
        }

    def _plan(
        self, folder: Any, ledger: Any, name: str, arguments: dict[str, Any], inventory: Path
    ) -> dict[str, Any]:
        """Nobody has read it yet, so that nothing begins."""
        from wattfleet.rollout import preparing, show

        for key in ("image", "manifest"):
            if not arguments.get(key):
                raise AnsibleActionFail(f"{key}: missing, expected a file: there is no rollout {name} yet")
        made = preparing.make(
            folder,
            ledger,
            name,
            inventory,
            image=Path(arguments["image"]),
            manifest=Path(arguments["manifest"]),
            limit=arguments.get("limit") or None,
            ask=arguments.get("ask") or "unknown",
        )
        return {
            "changed": False,
            "begun": False,
            "rollout": name,
            "digest": made.plan.digest,
            "waves": [],
            "plan": show.as_text(show.plan(made)).splitlines(),
        }

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Runs the module of the same name as a guarded change, and looks once more whether the devices follow."""

from __future__ import annotations

from typing import Any

from ansible_collections.wattfleet.energy.plugins.plugin_utils._guarded import GuardedAction


class ActionModule(GuardedAction):
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if (result.get("guard") or {}).get("outcome") == "confirmed":
            # Only a change costs this: that NetworkManager accepted a profile does not mean that its device follows.
            again = self._execute_module(module_args=dict(self._task.args), task_vars=task_vars)
            if again.get("failed"):
                result.update(failed=True, msg=again.get("msg"))
            elif again.get("changed"):
                result.update(failed=True, msg=_words(again))
        return result


def _words(again: dict[str, Any]) -> str:
    names = [item["name"] for item in again.get("connections", []) if item["device"] == "brought up"]
    parts = "".join(f"Found:\n{part['before']}Wanted:\n{part['after']}" for part in again.get("diff", []))
    return (
        f"{', '.join(names) or 'The profiles'}: the change is confirmed, yet the host still differs. {parts}"
        "Something else configures it; see journalctl -u NetworkManager."
    )

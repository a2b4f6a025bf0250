# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Runs the module of the same name; a change of it is confirmed over a new connection."""

from __future__ import annotations

from typing import Any

from ansible_collections.wattfleet.energy.plugins.plugin_utils._guarded import GuardedAction


class ActionModule(GuardedAction):
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._task.args.get("state", "applied") in ("applied", "reverted"):
            return super().run(tmp, task_vars)
        result: dict[str, Any] = super(GuardedAction, self).run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        return result

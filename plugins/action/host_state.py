# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Runs the module host_state and adds what only the controller knows: its own clock and its own OpenSSL."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.wattfleet.energy.plugins.module_utils.tls_facts import tls_facts


class ActionModule(ActionBase):
    """The controller's side of host_state; see the module for its documentation."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        before = time.time()
        result.update(self._execute_module(task_vars=task_vars))
        after = time.time()
        host = result.get("ansible_facts", {}).get("energy_host")
        if host:
            clock = host["clock"]
            # The gateway read its clock at a moment of ours between `before` and `after`.
            clock["offset_min"] = round(clock["time"] - after, 3)
            clock["offset_max"] = round(clock["time"] - before, 3)
            host["controller"] = {"openssl": tls_facts()}
        return result

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Runs the module of the same name and adds the offset between the gateway's clock and the controller's."""

from __future__ import annotations

import time
import typing as t

from ansible.plugins.action import ActionBase


def clock_offset(sent: float, received: float, answered: float, got: float) -> tuple[float, float]:
    """Offset of the far clock and its uncertainty, both in seconds, from four times as NTP takes them (RFC
    5905, section 8).

    `sent` and `got` are by the near clock, `received` and `answered` by the far one. How the travel time
    divides between the two ways is unknown, so the true offset lies within the uncertainty of the one
    returned.
    """
    offset = ((received - sent) + (answered - got)) / 2
    uncertainty = ((got - sent) - (answered - received)) / 2
    return round(offset, 3), round(uncertainty, 3)


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        sent = time.time()
        result.update(self._execute_module(task_vars=task_vars))
        got = time.time()
        clock = result.get("clock")
        if isinstance(clock, dict):
            clock["offset"], clock["uncertainty"] = clock_offset(
                sent, clock["received"], clock["answered"], got
            )
        return result

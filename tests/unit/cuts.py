# SPDX-License-Identifier: Apache-2.0
"""A cut in the middle of work that goes through the guard's durable writes."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

from ansible_collections.wattfleet.energy.plugins.module_utils.guard import durable

CUT = 77


def cut_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that dies at its step; whether it did."""
    process = os.fork()
    if process == 0:
        taken = 0

        def watch(_step: str, _path: Path) -> None:
            nonlocal taken
            taken += 1
            if taken == step:
                os._exit(CUT)

        durable.watch = watch
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child of a test must not come back
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, CUT), "the work itself failed"
    return code == CUT

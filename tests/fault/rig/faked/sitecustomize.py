# SPDX-License-Identifier: Apache-2.0
"""Loaded by Python as it starts, in processes whose clock is faked.

`time.sleep` waits by clock_nanosleep until an absolute time of the monotonic clock. libfaketime 0.9.10 turns that into
a relative one, and fails with EINVAL when the time has come meanwhile, as it often has after a sleep of microseconds.
"""

from __future__ import annotations

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    wait = float(seconds)
    if wait < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], wait)


time.sleep = _sleep

# SPDX-License-Identifier: Apache-2.0
"""Which boot this is, and the clock that runs from its beginning: no step of the wall clock touches it, and it goes on
while the machine sleeps."""

from __future__ import annotations

import time
from pathlib import Path

ID = Path("/proc/sys/kernel/random/boot_id")


class Boot:
    """The kernel's name of this boot and the time since its beginning."""

    def __init__(self) -> None:
        self.id = ID.read_text(encoding="ascii").strip()

    def time(self) -> int:
        """Milliseconds since the boot."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

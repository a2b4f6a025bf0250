# SPDX-License-Identifier: Apache-2.0
"""A wall clock for some processes that a test can set, by libfaketime; their monotonic clock stays right."""

from __future__ import annotations

import time
from pathlib import Path

from tests.fault.rig.process import Process


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "libfaketime is missing: apt-get install libfaketime"
    return found[-1]


class Clock:
    """What the processes take for the time: the right one plus `offset` s."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = 0.0
        self.set(0.0)

    def govern(self, process: Process) -> None:
        """From its next start on the process has this clock."""
        process.environment |= {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": f"{Path(__file__).parent / 'faked'}:{process.environment['PYTHONPATH']}",
        }

    def set(self, offset: float) -> None:
        """Step the clock to so many seconds from the right time."""
        self.offset = offset
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.3f}\n")
        new.rename(self._file)

    def set_to(self, moment: float) -> None:
        """Step the clock to a Unix time."""
        self.set(moment - time.time())

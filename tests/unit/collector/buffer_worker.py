# SPDX-License-Identifier: Apache-2.0
"""A process that appends and seals as fast as it can, to be killed. It writes down what was committed.

python buffer_worker.py append|seal BUFFER JOURNAL KEY
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from energy_collector.buffer import Buffer
from energy_collector.identity import signing_key
from energy_collector.reading import Reading

POINTS = 7


def append(buffer: Buffer, journal: int) -> None:
    """Append rounds of readings; a round is written down once its commit has returned."""
    start = max(buffer.newest().values(), default=0) + 1
    for time_ms in itertools.count(start):
        buffer.append([Reading(f"m/p{index}", "W", time_ms, float(index), 0) for index in range(POINTS)])
        os.write(journal, f"{time_ms}\n".encode())


def seal(buffer: Buffer, key: Path) -> None:
    """Seal batches of a few readings for ever."""
    signer = signing_key(key)
    while True:
        if buffer.seal("plant-a", signer, 60, 23) is None:
            time.sleep(0.001)


if __name__ == "__main__":
    what, path, journal, key = sys.argv[1:]
    if what == "append":
        append(Buffer(Path(path)), os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    else:
        seal(Buffer(Path(path)), Path(key))

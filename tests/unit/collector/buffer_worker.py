# SPDX-License-Identifier: Apache-2.0
"""A process that appends or seals as fast as it can, to be killed. It writes down what was committed.

python buffer_worker.py append|seal BUFFER JOURNAL KEY; what is sealed goes to JOURNAL.sealed
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from energy_collector.delivery.identity import signing_key
from energy_collector.reading import Layout, Record
from energy_collector.storage.buffer import Buffer

POINTS = 7


def append(buffer: Buffer, journal: int) -> None:
    """Append rounds of readings; a round is written down once its commit has returned."""
    layout = Layout(tuple(f"m/p{index}" for index in range(POINTS)), ("W",) * POINTS)
    for time_ms in itertools.count(buffer.newest() + 1):
        buffer.append([Record(layout, time_ms, [float(index) for index in range(POINTS)])])
        os.write(journal, f"{time_ms}\n".encode())


def seal(buffer: Buffer, key: Path, journal: int) -> None:
    """Seal batches of a few readings for ever; each is written down."""
    signer = signing_key(key)
    while True:
        sealed = buffer.seal("plant-a", signer, 60, 23)
        if sealed is None:
            time.sleep(0.001)
        else:
            os.write(journal, f"{sealed.sequence}\n".encode())


if __name__ == "__main__":
    what, path, journal, key = sys.argv[1:]
    suffix = ".sealed" if what == "seal" else ""
    log = os.open(journal + suffix, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if what == "append":
        append(Buffer(Path(path)), log)
    else:
        seal(Buffer(Path(path)), Path(key), log)

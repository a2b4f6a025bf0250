# SPDX-License-Identifier: Apache-2.0
"""A polling service without meters: puts records as fast as asked for, to be killed. It writes down what was put.

python writer_worker.py BUFFER PENDING JOURNAL [PUTS PER SECOND]
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from energy_collector.config import BufferConfig
from energy_collector.journal import Faults
from energy_collector.reading import Layout, Record
from energy_collector.storage.writer import Writer

POINTS = 7
AGE = 3.2e9
LAYOUT = Layout(tuple(f"m/p{index}" for index in range(POINTS)), ("W",) * POINTS)


def main() -> None:
    """Put for ever; a time is written down once `put` has returned."""
    path, waiting, journal = map(Path, sys.argv[1:4])
    pause = 1 / float(sys.argv[4]) if len(sys.argv) > 4 else 0.005
    put = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    last = max(map(int, journal.read_text().split()), default=0)
    writer = Writer(BufferConfig(path, max_age=AGE, pending=waiting), Faults())
    writer.open()
    # A time that was put and not written down by the one that was killed is left out.
    for time_ms in itertools.count(last + 10):
        writer.put([Record(LAYOUT, time_ms, [float(time_ms)] * POINTS)])
        os.write(put, f"{time_ms}\n".encode())
        time.sleep(pause)


if __name__ == "__main__":
    main()

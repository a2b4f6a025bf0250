# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a process that puts readings, again and again, and the count afterwards;
tests/fault/kill_writer.py does it at full size.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from energy_collector.config import BufferConfig
from energy_collector.journal import Faults
from energy_collector.storage.buffer import Buffer
from energy_collector.storage.writer import Writer

WORKER = Path(__file__).with_name("writer_worker.py")
POINTS = 7
# The times of these readings are close to 1970.
AGE = 3.2e9


class Tally(NamedTuple):
    """Puts written down, and what became of their readings."""

    puts: int
    lost: int
    doubled: int


def kill_rounds(folder: Path, rounds: int, seed: int, *, memory: bool = True) -> Tally:
    """Kill a worker `rounds` times; without `memory` it has no file for what waits."""
    path, journal = folder / "buffer.db", folder / "journal"
    waiting = folder / "pending" if memory else folder / "missing" / "pending"
    rng = random.Random(seed)
    journal.touch()
    for _ in range(rounds):
        before = journal.stat().st_size
        worker = subprocess.Popen([sys.executable, str(WORKER), str(path), str(waiting), str(journal)])
        while journal.stat().st_size == before and worker.poll() is None:
            time.sleep(0.005)
        # A commit is due 0.2 to 1 s after the first put.
        time.sleep(rng.choice([rng.uniform(0, 0.05), rng.uniform(0.9, 1.1), rng.uniform(0, 1.5)]))
        worker.kill()
        worker.wait()
    writer = Writer(BufferConfig(path, max_age=AGE, pending=waiting), Faults())
    writer.open()
    writer.stop()
    puts = [int(text) for text in journal.read_text().split()]
    buffer = Buffer(path)
    found = Counter((one.point, one.time) for _, one in buffer.export())
    buffer.close()
    lost = sum(not found[f"m/p{index}", when] for when in puts for index in range(POINTS))
    return Tally(len(puts), lost, sum(count > 1 for count in found.values()))

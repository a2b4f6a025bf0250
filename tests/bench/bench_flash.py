# SPDX-License-Identifier: Apache-2.0
"""Bytes that reach the block device for each reading, at most twice the least that a file system allows.

    .venv/bin/python tests/bench/bench_flash.py [--commits 600]

Both services' work on an ext4 of its own: commit, seal, free, checkpoints, and ext4's journal. Time is simulated, the
syncs are real. ext4 writes the changed time stamp of a file to its journal every 5 s (`commit=5`, its default); since
simulated time gives it no chance to, an fsync every 5 simulated seconds has it do so. With the mount option `lazytime`
it does not do so in real life, and is not made to here. The least: ceil(readings x 8 bytes / 4096) blocks a commit,
and nothing else. Needs root. Writes build/bench/flash.json, a list of {name, value, unit, against, ratio}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_collector.reading import Layout, Record
from energy_collector.storage import buffer_file
from energy_collector.storage.buffer import Buffer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.loopfs import LoopFs

BLOCK = 4096
# Where the header of the write-ahead log counts how often it has begun anew.
ROUND_AT = 12
JOURNAL_INTERVAL = 5
RATES = (10, 100)
START = 1_767_225_600_000
KEY = Ed25519PrivateKey.generate()


def polls(rate: int) -> list[Layout]:
    """`rate` points, read once a second by requests of at most 20 points."""
    sizes = [20] * (rate // 20) + ([rate % 20] if rate % 20 else [])
    return [
        Layout(tuple(f"meter-{number}/quantity_{at}" for at in range(size)), ("W",) * size)
        for number, size in enumerate(sizes)
    ]


def measure(folder: Path, rate: int, interval: int, commits: int, options: str) -> tuple[float, float]:
    """Bytes a reading that were written, and the least."""
    random.seed(1)
    layouts = polls(rate)
    with LoopFs(folder / "ext4.img", folder / "ext4", 96 << 20, options) as disk:
        polling, delivering = Buffer(disk.folder / "buffer.db"), Buffer(disk.folder / "buffer.db")
        log = os.open(disk.folder / "buffer.db-wal", os.O_RDONLY)
        batch_interval = min(max(10, 6 * interval), 60)
        written = readings = 0
        commit = done = 0
        warm = True
        while done < commits:
            # The first rounds of the write-ahead log allocate its blocks; in a life of years that does not count.
            if warm and int.from_bytes(os.pread(log, 4, ROUND_AT), "big") > 2:
                warm = False
                os.sync()
                written, readings = disk.written(), 0
            commit += 1
            done += not warm
            start = START + 1000 * interval * commit
            records = [
                Record(layout, start + 1000 * second + 20 * at, [_value() for _ in layout.points])
                for second in range(interval)
                for at, layout in enumerate(layouts)
            ]
            polling.append(records)
            readings += rate * interval
            sealed = delivering.seal("plant-a", KEY, batch_interval, 40_000)
            if sealed is not None:
                # The acknowledgement of the batch before.
                delivering.free(sealed.sequence - 1, [])
            if "lazytime" not in options and commit * interval % JOURNAL_INTERVAL < interval:
                # Commits follow each other faster here than time stamps differ.
                os.utime(log)
                os.fsync(log)
        os.sync()
        total = disk.written() - written
        os.close(log)
        delivering.settle()
        delivering.close()
        polling.close()
    least = commits * math.ceil(rate * interval * 8 / BLOCK) * BLOCK
    return total / readings, least / readings


def _value() -> float:
    return round(random.gauss(20_000, 500), 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Count the bytes that reach the block device for each reading."
    )
    parser.add_argument("--commits", type=int, default=600, help="commits for each figure (default: 600)")
    parser.add_argument("--page-size", type=int, default=buffer_file.PAGE_SIZE, help="of SQLite, to compare")
    parser.add_argument(
        "--checkpoint", type=int, default=buffer_file.CHECKPOINT_PAGES, help="pages, likewise"
    )
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("bench_flash: needs root to mount a file system of its own")
    buffer_file.PAGE_SIZE, buffer_file.CHECKPOINT_PAGES = options.page_size, options.checkpoint
    results: list[dict[str, Any]] = []
    print(f"{'':48}{'written':>10}{'least':>10}{'ratio':>8}   bytes a reading")
    for mount in ("", "lazytime"):
        for rate in RATES:
            for interval in (1, 10):
                with tempfile.TemporaryDirectory() as name:
                    value, least = measure(Path(name), rate, interval, options.commits, mount)
                title = f"{rate} points/s, commit every {interval} s, {mount or 'default mount'}"
                results.append(
                    {
                        "name": title,
                        "value": round(value, 1),
                        "unit": "B",
                        "against": round(least, 1),
                        "ratio": round(value / least, 2),
                    }
                )
                print(f"{title:48}{value:10.1f}{least:10.1f}{value / least:8.2f}", flush=True)
    target = ROOT / "build" / "bench" / "flash.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Power cuts by imaging: an ext4 whose device is a file on btrfs, and at a random instant a copy of that file.

The copy (`cp --reflink`, an instant of the file as a whole) is what a disk holds whose power has failed. It is mounted,
so that ext4 replays its journal, and the buffer in it opened: whatever was reported as durable before the copy began
has to be there exactly once, and the batches a chain. The negative control syncs nothing, and readings are missing.
Needs root and btrfs-progs, no lab. `python -m tests.fault.power_images [--rounds N] [--control]`
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_collector.batches import batch
from energy_collector.reading import Layout, Record
from energy_collector.storage.buffer import Buffer

from tests.bench.loopfs import LoopFs
from tests.bench.loopfs import run as command
from tests.fault import standalone
from tests.fault.report import FaultReport

ROOT = Path(__file__).parents[2]
POINTS = 7
LAYOUT = Layout(tuple(f"m/p{index}" for index in range(POINTS)), ("W",) * POINTS)
DISK = 64 << 20
# Images are looked into while the writer goes on; so many are made from one run of it.
IMAGES_A_RUN = 25
ROUNDS = 200


# The process whose power is cut.


def write(path: Path, *, synchronous: bool) -> None:
    """Append, seal and free for ever. A line to standard output once a commit has returned: what it was, and what.

    Without syncs nothing is freed: while the copy is made so much would be that nothing was left to be missed.
    """
    key = Ed25519PrivateKey.generate()
    polling, delivering = Buffer(path), Buffer(path)
    if not synchronous:
        for one in (polling, delivering):
            one._db.execute("PRAGMA synchronous = OFF")
    rng = random.Random()
    for time_ms in itertools.count(1):
        polling.append([Record(LAYOUT, time_ms, [float(time_ms + index) for index in range(POINTS)])])
        _tell("put", time_ms)
        sealed = delivering.seal("plant-a", key, 60, POINTS * rng.randrange(5, 60))
        if sealed is not None:
            _tell("sealed", sealed.sequence)
        low, high = delivering.held()
        if synchronous and high - low > 20:
            body = list(delivering.batches(0, 10))
            last = max(r.time for r in batch.decode_body(batch.parse(body[-1].data).body).readings())
            # Told before: from now on these may be gone.
            _tell("freed", last)
            delivering.free(body[-1].sequence, [])
            if rng.random() < 0.5:
                delivering.settle()


def _tell(what: str, number: int) -> None:
    os.write(1, f"{what} {number}\n".encode())


# The one who cuts.


@contextmanager
def _writer(path: Path, journal: Path, *, synchronous: bool) -> Iterator[None]:
    with journal.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fault.power_images",
                "write",
                str(path),
                "sync" if synchronous else "async",
            ],
            stdout=file,
            cwd=ROOT,
        )
    try:
        deadline = time.monotonic() + 60
        while journal.stat().st_size < 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the writer does not write")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _told(journal: Path) -> dict[str, int]:
    """The last number of each kind."""
    found = {"put": 0, "sealed": 0, "freed": 0}
    text = journal.read_text(encoding="ascii")
    for line in text[: text.rfind("\n") + 1].splitlines():
        what, number = line.split()
        found[what] = int(number)
    return found


def inspect(image: Path, folder: Path, before: dict[str, int], due: range) -> tuple[int, int, list[str]]:
    """Mount an image and count: readings found, readings doubled, and a line for everything that is wrong. `due` are
    the times whose readings have to be there."""
    folder.mkdir(exist_ok=True)
    device = command("losetup", "--find", "--show", image)
    wrong: list[str] = []
    try:
        command("mount", device, folder)
        try:
            buffer = Buffer(folder / "buffer.db")
            if buffer.put_aside:
                return 0, 0, [f"taken for damaged: {buffer.put_aside[0]}"]
            found = Counter((one.point, one.time) for _, one in buffer.export())
            wrong += _chain(buffer, before)
            buffer.close()
        finally:
            command("umount", folder)
    finally:
        command("losetup", "--detach", device)
    for time_ms in due:
        lost = [index for index in range(POINTS) if not found[f"m/p{index}", time_ms]]
        wrong += [f"m/p{index} at {time_ms} is lost" for index in lost]
    return len(found), sum(count > 1 for count in found.values()), wrong


def _chain(buffer: Buffer, before: dict[str, int]) -> list[str]:
    stored = buffer.batches(0, 1_000_000)
    wrong = []
    for one, following in itertools.pairwise(stored):
        if following.sequence != one.sequence + 1:
            wrong.append(f"batch {following.sequence} follows {one.sequence}")
        elif batch.parse(following.data).previous != batch.digest(one.data):
            wrong.append(f"batch {following.sequence} does not name its predecessor")
    if buffer.state().sequence < before["sealed"]:
        wrong.append(f"batch {before['sealed']} was sealed, the newest is {buffer.state().sequence}")
    return wrong


def run(rounds: int, *, synchronous: bool = True) -> FaultReport:
    """Cut `rounds` times."""
    report = FaultReport("power-images" if synchronous else "power-images-control", rounds)
    rng = random.Random()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LoopFs(folder / "btrfs.img", folder / "btrfs", 1 << 30, kind="btrfs") as outer:
            disk = outer.folder / "disk.img"
            while report.faults < rounds:
                with LoopFs(disk, folder / "disk", DISK) as inner:
                    path = inner.folder / "buffer.db"
                    with _writer(path, folder / "journal", synchronous=synchronous):
                        for _ in range(min(IMAGES_A_RUN, rounds - report.faults)):
                            time.sleep(rng.uniform(0, 0.4))
                            _cut(report, disk, folder)
    return report


def _cut(report: FaultReport, disk: Path, folder: Path) -> None:
    image = disk.with_name(f"cut-{report.faults}.img")
    before = _told(folder / "journal")
    command("cp", "--reflink=always", disk, image)
    after = _told(folder / "journal")
    # What was being freed while the copy was made may be there or not.
    due = range(after["freed"] + 1, before["put"] + 1)
    readings, doubled, wrong = inspect(image, folder / "cut", before, due)
    image.unlink()
    report.figures["due"] = report.figures.get("due", 0) + POINTS * len(due)
    report.faults += 1
    report.polls += before["put"]
    report.readings += readings
    report.doubled += doubled
    lost = [line for line in wrong if line.endswith("is lost")]
    report.lost += len(lost)
    # A broken chain is what nobody wrote.
    report.invented += len(wrong) - len(lost)
    report.findings += [f"cut {report.faults}: {line}" for line in wrong[:3]]


def control() -> FaultReport:
    """The same with a buffer that does not sync."""
    return run(10, synchronous=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), synchronous=sys.argv[3] == "sync")
    standalone.main(__doc__, run, control, ROUNDS)

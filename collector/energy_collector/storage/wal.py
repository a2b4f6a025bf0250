# SPDX-License-Identifier: Apache-2.0
"""Looks into SQLite's write-ahead log for damage that SQLite itself does not tell of.

It reads the log up to the first frame whose checksum is wrong, and takes that for the end: right after a power cut,
where the last transaction was never reported as done. When whole transactions follow, they were done, and somebody
has damaged the file. Going on would seal other readings under sequences that the hub has seen.
The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from pathlib import Path

HEADER = struct.Struct(">IIIIIIII")
FRAME = struct.Struct(">IIIIII")
MAGIC = 0x377F0682
MASK = 0xFFFFFFFF


def damage(database: Path) -> str | None:
    """What is wrong with the log of a database that nobody is writing to now, or None."""
    try:
        data = Path(f"{database}-wal").read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < HEADER.size + FRAME.size:
        return None
    magic, _, page, _, salt_1, salt_2, sum_1, sum_2 = HEADER.unpack_from(data)
    order = ">" if magic & 1 else "<"
    size = FRAME.size + page
    frames = range(HEADER.size, len(data) - size + 1, size) if 512 <= page <= 65536 else range(0)
    known = magic | 1 == MAGIC | 1
    if not known or _checksum(data[:24], order, (0, 0)) != (sum_1, sum_2):
        # A power cut while the first transaction was written leaves at most that one behind.
        return "the header of its log is damaged" if any(data[: HEADER.size]) else None
    sums = (sum_1, sum_2)
    broken = done = 0
    for at in frames:
        _, commit, *rest = FRAME.unpack_from(data, at)
        if rest[:2] != [salt_1, salt_2]:
            # The rest is of an earlier round.
            break
        sums = _checksum(data[at : at + 8], order, sums)
        sums = _checksum(data[at + FRAME.size : at + size], order, sums)
        if list(sums) != rest[2:]:
            # Each frame continues the checksum of the one before. Two commits in such a chain behind a broken frame
            # were done one after the other; single ones are what several power cuts may leave.
            broken, done = broken or at, 0
            sums = (rest[2], rest[3])
        elif broken and commit:
            done += 1
            if done > 1:
                return f"its log is damaged at byte {broken}, and commits follow"
    return None


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & MASK
        two = (two + second + one) & MASK
    return one, two

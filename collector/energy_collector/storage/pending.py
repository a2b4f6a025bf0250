# SPDX-License-Identifier: Apache-2.0
"""What the polling service has read and not committed yet, in a small file in memory (tmpfs): it outlives the process,
not the machine. One write for each poll; emptied after each commit.

The file begins with the stream of the buffer that it belongs to. Then entries: length, CRC-32, kind, content.
A layout (kind L) is there when the buffer does not have it yet. A chunk (kind C) carries the number of its first
reading, so that the next start knows whether the buffer has it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from energy_collector.reading import Layout
from energy_collector.storage import chunk
from energy_collector.storage.chunk import Chunk

MAGIC = b"WFP1"
STREAM_SIZE = 8
ENTRY = struct.Struct("<IIc")
CHUNK = struct.Struct("<QIqqqq")
NUMBER = struct.Struct("<I")
NEVER = -1
# The file is written anew when more than this and half of it has been committed, in bytes.
SLACK = 1 << 20


class PendingFile:
    """Appends to the file. Every method may raise OSError; `reset` puts things right again."""

    def __init__(self, path: Path, stream: bytes) -> None:
        self.path = path
        self.stream = stream
        self._handle = -1
        self._size = 0
        self._whole = False

    def add(self, one: Chunk, layouts: Mapping[int, Layout]) -> None:
        """Append a chunk, and layouts in front of it."""
        if not self._whole:
            return
        data = _entries([one], layouts)
        self._whole = False
        self._size += os.write(self._handle, data)
        self._whole = True

    def reset(self, left: Iterable[Chunk] = (), layouts: Mapping[int, Layout] | None = None) -> None:
        """Have the file hold `left` and nothing else."""
        data = _entries(left, layouts or {})
        start = len(MAGIC) + STREAM_SIZE
        if self._whole and self._size == start and not data:
            return
        if self._whole and not data:
            os.ftruncate(self._handle, start)
            self._size = start
            return
        self._whole = False
        new = self.path.with_name(f"{self.path.name}.new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._size = os.write(handle, MAGIC + self.stream + data)
            new.rename(self.path)
        except OSError:
            os.close(handle)
            raise
        self.close()
        self._handle = handle
        self._whole = True

    def committed(self, left: list[Chunk], layouts: Mapping[int, Layout]) -> None:
        """What is not in `left` is committed. Where something is left, the rest may stay: its numbers tell."""
        if not left or not self._whole or self._size > 2 * sum(len(one.data) for one in left) + SLACK:
            self.reset(left, layouts)

    def close(self) -> None:
        """Close the file and leave it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _entries(chunks: Iterable[Chunk], layouts: Mapping[int, Layout]) -> bytes:
    out = bytearray()
    for number, layout in layouts.items():
        _put(out, b"L", NUMBER.pack(number) + chunk.layout_text(layout).encode())
    for one in chunks:
        until = NEVER if one.until is None else one.until
        _put(out, b"C", CHUNK.pack(*one[:4], until, one.offset) + one.data)
    return bytes(out)


def _put(out: bytearray, kind: bytes, content: bytes) -> None:
    out += ENTRY.pack(len(content), zlib.crc32(kind + content), kind)
    out += content


def read(path: Path) -> tuple[bytes, list[Chunk], dict[int, Layout]]:
    """The stream, the chunks and the layouts of a file that was left behind; nothing when there is none.

    An entry that was cut short was never reported as put, and ends the file. Raises OSError.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b"", [], {}
    chunks: list[Chunk] = []
    layouts: dict[int, Layout] = {}
    at = len(MAGIC) + STREAM_SIZE
    if data[: len(MAGIC)] != MAGIC or len(data) < at:
        return b"", [], {}
    stream = data[len(MAGIC) : at]
    while len(data) - at >= ENTRY.size:
        length, checksum, kind = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        content = data[at : at + length]
        at += length
        if len(content) < length or zlib.crc32(kind + content) != checksum:
            break
        if kind == b"L":
            layouts[NUMBER.unpack_from(content)[0]] = chunk.read_layout(content[NUMBER.size :].decode())
        else:
            number, readings, first, last, until, offset = CHUNK.unpack_from(content)
            held = None if until == NEVER else until
            chunks.append(Chunk(number, readings, first, last, content[CHUNK.size :], held, offset))
    return stream, chunks, layouts

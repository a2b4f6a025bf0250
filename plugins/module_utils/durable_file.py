# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Files that a power cut leaves either as they were or as they were meant to be."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, text: str, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace a file in one step, never wider open than `mode`, and on the disk when this returns.

    `owner` is user and group by number; without it the file belongs to whoever runs this."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: a rename is durable only then."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

# SPDX-License-Identifier: Apache-2.0
"""Looking into the buffer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict

from energy_collector import config, quality
from energy_collector.commands import OK, complain
from energy_collector.commands.table import table
from energy_collector.reading import Reading
from energy_collector.storage.buffer import Buffer, BufferUnusableError
from energy_collector.storage.salvage import salvage
from energy_collector.times import iso


def buffer(options: argparse.Namespace) -> int:
    """What the buffer holds, or all that is in it."""
    if options.file is not None:
        if options.what == "status":
            raise BufferUnusableError("--file is for buffer export only")
        _print(salvage(options.file, complain))
        return OK
    path = config.load(options.config).buffer.path
    if not path.exists():
        raise BufferUnusableError(f"{path}: there is no buffer yet; energy-gateway makes it")
    held = Buffer(path)
    try:
        if options.what == "status":
            found = held.state()
            state = {**asdict(found), "oldest": iso(found.oldest)}
            print(json.dumps(state, indent=2) if options.json else table(("what", ""), state.items()))
        else:
            _print(held.export())
    finally:
        held.close()
    return OK


def _print(readings: Iterable[tuple[int | None, Reading]]) -> None:
    for sequence, one in readings:
        row = {
            "batch": sequence,
            **one._asdict(),
            "time": iso(one.time),
            "quality": quality.name(one.quality),
        }
        print(json.dumps(row))

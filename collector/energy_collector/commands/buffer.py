# SPDX-License-Identifier: Apache-2.0
"""Looking into the buffer."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from energy_collector import config, quality
from energy_collector.buffer import Buffer, BufferUnusableError
from energy_collector.commands import OK
from energy_collector.commands.table import table
from energy_collector.operations import iso


def buffer(options: argparse.Namespace) -> int:
    """What the buffer holds, or all that is in it."""
    path = config.load(options.config).buffer.path
    if not path.exists():
        raise BufferUnusableError(f"{path}: there is no buffer yet; energy-gateway makes it")
    held = Buffer(path)
    try:
        if options.what == "status":
            state = {**asdict(held.state()), "oldest": iso(held.state().oldest)}
            print(json.dumps(state, indent=2) if options.json else table(("what", ""), state.items()))
        else:
            for sequence, one in held.export():
                row = {
                    "batch": sequence,
                    **one._asdict(),
                    "time": iso(one.time),
                    "quality": quality.name(one.quality),
                }
                print(json.dumps(row))
    finally:
        held.close()
    return OK

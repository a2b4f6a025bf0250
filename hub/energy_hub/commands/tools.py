# SPDX-License-Identifier: Apache-2.0
"""What the commands have in common: the options of a database, times, tables and JSON, and how one fails."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from energy_hub import databases, logs

OK, FAILED, USAGE, WOULD_CHANGE = 0, 1, 2, 3


def command(commands: Any, name: str, run: Any, text: str, role: str) -> argparse.ArgumentParser:
    """Add a command that asks the databases, as a role of theirs."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument(
        "--database", help=f"libpq connection string of one database (default: dbname=energy user={role})"
    )
    parser.add_argument(
        "--config",
        type=Path,
        help=f"where databases are named when there are several (default: {databases.CONFIG})",
    )
    parser.set_defaults(run=run, role=role)
    return parser


def opened(
    options: argparse.Namespace, name: str = "energy-hub", settings: str = ""
) -> AbstractContextManager[databases.Opened]:
    """The databases that a command was told of."""
    return databases.opened(options.database, options.config, options.role, name, settings)


def reader(options: argparse.Namespace) -> AbstractContextManager[databases.Opened]:
    """The same for one that reads: times come as UTC."""
    return opened(options, settings="-c timezone=UTC -c datestyle=ISO")


def moment(text: str) -> datetime:
    """A time as it is given to a command, ISO 8601; UTC where it has no zone."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def iso(moment: datetime | None) -> str:
    """A time as it is told, in UTC to the millisecond."""
    if moment is None:
        return "-"
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def print_json(document: object) -> None:
    json.dump(document, sys.stdout, default=iso, indent=2)
    print()


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    lines = [tuple(head), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def tell(text: str) -> None:
    print(text, flush=True)


def fail(text: str, code: int = FAILED) -> int:
    """Say why, in the log too that the command was given; the exit code."""
    print(f"energy-hub: ERR {text}", file=sys.stderr)
    logs.to_file(text)
    return code

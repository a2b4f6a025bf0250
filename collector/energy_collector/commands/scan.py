# SPDX-License-Identifier: Apache-2.0
"""Looking for units on a bus."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

from energy_collector import config
from energy_collector.commands import FAILED, MISUSED, OK, complain
from energy_collector.commands.asking import ask
from energy_collector.commands.table import table

HIGHEST_UNIT = 247


def scan(options: argparse.Namespace) -> int:
    """Ask every unit id of a range whether somebody is there, and who."""
    settings = config.load(options.config)
    if options.bus not in {one.name for one in settings.buses}:
        known = ", ".join(one.name for one in settings.buses) or "none"
        complain(f"no bus {options.bus!r}; the buses are {known}")
        return MISUSED
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", options.units)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= HIGHEST_UNIT:
        complain(
            f"--units {options.units!r} is not a range of unit ids such as 1-32, within 1 to {HIGHEST_UNIT}"
        )
        return MISUSED
    units = range(first, last + 1)
    found: list[dict[str, Any]] = []
    requests = ({"op": "scan", "bus": options.bus, "unit": unit} for unit in units)
    for unit, answer in zip(units, ask(settings, requests), strict=True):
        if not answer["ok"]:
            # Not a silent unit: the bus itself cannot be used.
            complain(f"{answer['error']}. Likely cause: {answer['cause']}")
            return FAILED
        if answer["answers"]:
            names = [one.name for one in settings.meters if (one.bus, one.unit) == (options.bus, unit)]
            found.append({"unit": unit, "meter": names[0] if names else None, **answer})
        _progress(f"unit {unit} of {last}, {len(found)} found")
    _progress("")
    if options.json:
        print(
            json.dumps(
                [{key: one[key] for key in one if key not in ("ok", "answers")} for one in found], indent=2
            )
        )
        return OK
    rows = [
        (one["unit"], one["meter"], " ".join(one["identity"].values()) or None, one["sunspec"], one["how"])
        for one in found
    ]
    print(table(("unit", "meter", "says it is", "SunSpec at", "answers with"), rows, right=[0]))
    return OK


def _progress(text: str) -> None:
    """A line that is written over; only where somebody sees it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

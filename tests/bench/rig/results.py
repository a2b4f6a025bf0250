# SPDX-License-Identifier: Apache-2.0
"""What a benchmark ends with: a table for people, and a file for tools/costs_page.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parents[3] / "build" / "bench"


class Result(NamedTuple):
    """A figure of ours, and that of the other in the same unit. The ratio is ours to the other's; where runs were taken
    in turns it is the median of the ratios within a run."""

    name: str
    value: float
    unit: str
    against: float | None = None
    ratio: float | None = None


def write(name: str, results: Sequence[Result], *, quick: bool = False) -> None:
    """Print them, and write them where tools/costs_page.py takes them from; those of a quick run beside that."""
    width = max(len(one.name) for one in results)
    for one in results:
        other = "" if one.against is None else f"{one.against:>14,.10g}"
        print(f"{one.name:{width}}  {one.value:>14,.10g} {one.unit:12} {other:>14}  {_ratio(one.ratio)}")
    target = (FOLDER / "quick" if quick else FOLDER) / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([one._asdict() for one in results], indent=2) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(FOLDER.parents[1])}")


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"

# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/costs.md from the results of the benchmarks, build/bench/NAME.json.

    python tools/costs_page.py

A benchmark that has not been run on this machine keeps the table that the page has: a page of figures is only as good
as the runs behind it, and nobody runs all of them each time.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "reference" / "costs.md"

HEAD = """\
<!-- Written by tools/costs_page.py from the results of `make bench`; change neither the page nor a figure by hand. -->
# What it costs

Measured by `make bench`; what each benchmark does, and with whom it compares, is told at the top of
`tests/bench/bench_<name>.py`. Ours and the other were measured in the same run on the same machine, in turns; figures
are medians. The ratio is ours to the other's, and carries over to other machines better than the figures do.
"""
SECTION = re.compile(r"^## (?P<name>[a-z_-]+)$", re.MULTILINE)


def machine() -> str:
    """The class of machine: processors and memory."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} processors ({names[0] if names else os.uname().machine}), {memory:.0f} GiB of memory"


def number(value: object) -> str:
    """A figure with four digits that say something, a word, or `-` where there is none."""
    if value is None:
        return "-"
    if isinstance(value, float) and abs(value) < 10_000:
        return f"{value:.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def section(name: str, rows: list[dict[str, Any]]) -> str:
    """One benchmark's heading and table."""
    lines = [f"## {name}", "", f"On {machine()}.", "", "| what | ours | unit | other | ratio |"]
    lines.append("| --- | ---: | --- | ---: | ---: |")
    for row in rows:
        figures = (number(row.get(key)) for key in ("value", "unit", "against", "ratio"))
        lines.append(f"| {row['name']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def sections(page: str) -> dict[str, str]:
    """The tables that a page has, by benchmark."""
    starts = list(SECTION.finditer(page))
    ends = [one.start() for one in starts[1:]] + [len(page)]
    return {
        one["name"]: page[one.start() : end].rstrip() + "\n" for one, end in zip(starts, ends, strict=True)
    }


def main() -> int:
    found = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    for file in sorted(RESULTS.glob("*.json")):
        rows = json.loads(file.read_text(encoding="utf-8"))
        # Beside its results a benchmark may leave raw measurements, which are no list of rows.
        if isinstance(rows, list):
            found[file.stem] = section(file.stem, rows)
    if not found:
        print("costs_page: no results in build/bench; run `make bench` first", file=sys.stderr)
        return 1
    PAGE.write_text("\n".join([HEAD, *(found[name] for name in sorted(found))]), encoding="utf-8")
    print(f"Written to {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

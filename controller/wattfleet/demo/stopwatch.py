# SPDX-License-Identifier: Apache-2.0
"""Where the time of a long command goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table


class Stopwatch:
    """Names each step when it starts, and sums them up at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step; a step that raises is not counted."""
        self._console.print(f"[bold]==>[/bold] {name}", highlight=False)
        started = time.monotonic()
        yield
        self._steps.append((name, time.monotonic() - started))

    def table(self) -> Table:
        """Step, seconds, share."""
        total = sum(seconds for _, seconds in self._steps) or 1.0
        table = Table(title="Where the time went", title_justify="left", box=None)
        table.add_column("step")
        table.add_column("s", justify="right")
        table.add_column("share", justify="right")
        for name, seconds in self._steps:
            table.add_row(name, f"{seconds:.0f}", f"{seconds / total:.0%}")
        table.add_row("[bold]all[/bold]", f"[bold]{total:.0f}[/bold]", "")
        return table

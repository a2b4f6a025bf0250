# SPDX-License-Identifier: Apache-2.0
"""Progress of a playbook, a line a host on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

QUIET_INTERVAL = 10.0  # s between lines when the output is not a terminal
MOST_ROWS = 12  # more hosts than this are summed up, so that the table fits a screen


class PlaybookProgress:
    """Fed with ansible-runner's events; usable as a context manager."""

    def __init__(self, playbook: str, console: Console) -> None:
        self._playbook = playbook
        self._console = console
        self._started = time.monotonic()
        self._last_line = 0.0
        self._task = "starting"
        self._done: dict[str, int] = {}
        self._changed: dict[str, int] = {}
        self._state: dict[str, str] = {}
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, event: str, data: Mapping[str, Any]) -> None:
        """Take one event (`runner_on_ok`, `playbook_on_task_start`, …) with its data."""
        if event in ("playbook_on_task_start", "playbook_on_handler_task_start"):
            self._task = str(data.get("task") or data.get("name") or "")
        host = data.get("host")
        if host and event.startswith("runner_on_"):
            if event == "runner_on_start":
                self._state[host] = self._task
            elif event in ("runner_on_ok", "runner_on_skipped", "runner_on_failed", "runner_on_unreachable"):
                self._done[host] = self._done.get(host, 0) + 1
                if (data.get("res") or {}).get("changed"):
                    self._changed[host] = self._changed.get(host, 0) + 1
                if event == "runner_on_unreachable":
                    self._state[host] = "unreachable"
                elif event == "runner_on_failed" and not data.get("ignore_errors"):
                    self._state[host] = f"failed: {data.get('task')}"
        self._show()

    def _show(self) -> None:
        if self._live:
            self._live.update(self._table())
        elif time.monotonic() - self._last_line > QUIET_INTERVAL:
            self._last_line = time.monotonic()
            busiest = max(self._done.values(), default=0)
            done = f"{len(self._done)} hosts, {busiest} tasks"
            self._console.print(
                f"    {self._playbook} {self._elapsed()}  {done}: {self._task}", highlight=False
            )

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def _table(self) -> Table:
        table = Table(
            title=f"{self._playbook} {self._elapsed()}  {self._task}", title_justify="left", box=None
        )
        for column in ("host", "tasks", "changed", "now"):
            table.add_column(
                column, justify="right" if column in ("tasks", "changed") else "left", no_wrap=True
            )
        hosts = sorted(self._done)
        for host in hosts[:MOST_ROWS]:
            table.add_row(
                host, str(self._done[host]), str(self._changed.get(host, 0)), self._state.get(host, "")
            )
        if len(hosts) > MOST_ROWS:
            rest = hosts[MOST_ROWS:]
            table.add_row(f"and {len(rest)} more", str(min(self._done[host] for host in rest)), "", "")
        return table

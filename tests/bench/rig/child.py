# SPDX-License-Identifier: Apache-2.0
"""A helper process of a benchmark that takes orders on standard input and answers each with a line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


class Child:
    """`python -m tests.bench.rig.<module>`; it has started when it says "ready"."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.rig.{module}", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._answers, self._orders = self._process.stdout, self._process.stdin
        if self._answers.readline().strip() != "ready":
            self.stop()
            raise RuntimeError(f"{module} did not start")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, order: str) -> dict[str, Any]:
        """The answer to an order."""
        self._orders.write(f"{order}\n")
        self._orders.flush()
        found: dict[str, Any] = json.loads(self._answers.readline())
        return found

    def stop(self) -> None:
        """End it: its orders are over."""
        self._orders.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

# SPDX-License-Identifier: Apache-2.0
"""The commands of `energy-collector`, a module for each kind. Each takes the parsed options and returns the
exit code."""

from __future__ import annotations

import sys

OK, FAILED, MISUSED = 0, 1, 2


def complain(text: str) -> None:
    """One line for the person who typed the command."""
    print(f"energy-collector: {text}", file=sys.stderr)

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the checks of a document share: a fault by its place, and ways into values that may have been refused."""

from __future__ import annotations

from typing import Any, NamedTuple

Steps = tuple[str | int, ...]


class Finding(NamedTuple):
    """A fault that does not know its line yet."""

    steps: Steps
    message: str


def dig(values: Any, *steps: str | int) -> Any:
    """The value at ``steps``, or None where a step is missing or was refused."""
    for step in steps:
        if not isinstance(values, dict):
            return None
        values = values.get(step)
    return values


def text_at(values: Any, *steps: str | int) -> str | None:
    value = dig(values, *steps)
    return value if isinstance(value, str) else None

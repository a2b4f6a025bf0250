# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Versions of firmware: numbers with dots between, compared number by number."""

from __future__ import annotations

import re

_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){0,5}")


def is_version(text: object) -> bool:
    """Whether a text is a version such as 2.4.1."""
    return isinstance(text, str) and _VERSION.fullmatch(text) is not None


def parts(text: str) -> tuple[int, ...]:
    """A version as numbers. 2.4 and 2.4.0 are the same. Raises ValueError."""
    if not is_version(text):
        raise ValueError(f"{text!r} is no version such as 2.4.1")
    numbers = [int(part) for part in text.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)

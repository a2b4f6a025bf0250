# SPDX-License-Identifier: Apache-2.0
"""Takes a mapping apart key by key and remembers every fault with its path, so that all are told at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_REQUIRED: Any = object()
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


class Section:
    """One mapping of a document. `faults` is shared by all sections of a document.

    A fault is recorded and a harmless value of the right type returned, so that reading goes on to the next
    one.
    """

    def __init__(self, data: object, path: str, faults: list[str]) -> None:
        self.path = path
        self.faults = faults
        self._seen: list[str] = []
        self.data: dict[str, Any] = {}
        if isinstance(data, dict):
            self.data = {str(key): value for key, value in data.items()}
        else:
            self.fault("", f"{show(data)} is not a mapping")
            # Everything in it is missing now; that needs no line of its own for each key.
            self.faults = []

    def fault(self, key: str, text: str) -> None:
        """Record a fault of `key`, or of the section itself for an empty one."""
        where = self.at(key) if key else self.path
        self.faults.append(f"{where}: {text}" if where else text)

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def seen(self, key: str) -> None:
        """`key` is known; the caller looks at its value itself."""
        self._seen.append(key)

    def take(self, key: str, kind: type[T], default: T = _REQUIRED) -> T:
        """The value of `key`; a whole number is taken where a float is wanted."""
        self._seen.append(key)
        if key not in self.data:
            if default is _REQUIRED:
                self.fault(key, "missing")
                return kind()
            return default
        value = self.data[key]
        if kind is float and type(value) is int:
            value = float(value)
        # bool is a subclass of int, and "unit: true" is no unit.
        if type(value) is not kind:
            self.fault(key, f"{show(value)} is not {KINDS[kind]}")
            return kind() if default is _REQUIRED else default
        return value

    def number(self, key: str, kind: type[T], low: float, high: float, default: T = _REQUIRED) -> T:
        """A number from `low` to `high`."""
        value = self.take(key, kind, default)
        # mypy does not narrow by `type() in`, which keeps booleans out as isinstance would not.
        if key in self.data and type(self.data[key]) in (int, float) and not low <= value <= high:  # type: ignore[operator]  # a number, as the line itself asks
            self.fault(key, f"{value} is not between {low:g} and {high:g}")
        return value

    def name(self) -> str:
        """The name under `name`."""
        name = self.take("name", str)
        if name and not NAME.fullmatch(name):
            self.fault("name", f"{name!r} is not made of lower-case letters, digits and single hyphens")
        return name

    def choice(self, key: str, allowed: Iterable[str], default: str = _REQUIRED) -> str:
        """One of the `allowed` texts."""
        value = self.take(key, str, default)
        allowed = sorted(allowed)
        if key in self.data and isinstance(self.data[key], str) and value not in allowed:
            self.fault(key, f"{value!r} is not one of {', '.join(allowed)}{near(value, allowed)}")
        return value

    def section(self, key: str, *, required: bool = True) -> Section:
        """The mapping under `key`, empty when it is missing."""
        self._seen.append(key)
        if required and key not in self.data:
            self.fault(key, "missing")
            return Section({}, self.at(key), [])
        return Section(self.data.get(key, {}), self.at(key), self.faults)

    def sections(self, key: str) -> list[Section]:
        """The mappings in the list under `key`."""
        items = self.take(key, list)
        return [Section(item, f"{self.at(key)}[{index}]", self.faults) for index, item in enumerate(items)]

    def finish(self) -> None:
        """Record every key that nobody has asked for."""
        for key in self.data:
            if key not in self._seen:
                self.fault(key, f"unknown key{near(key, self._seen)}")


def near(word: str, words: Iterable[str]) -> str:
    """The ending of a message about `word` that names the most similar one, where there is one."""
    # Imported here: good configurations do without.
    import difflib

    match = difflib.get_close_matches(word, list(words), 1)
    return f"; did you mean {match[0]}?" if match else ""


def show(value: object) -> str:
    """A value as a message shows it: short, on one line."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

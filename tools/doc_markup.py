# SPDX-License-Identifier: Apache-2.0
"""Ansible's documentation (markup, option tables) as Markdown, for the READMEs and the reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# https://docs.ansible.com/ansible/latest/dev_guide/ansible_markup.html
_WITH_TWO_ARGUMENTS = {"L": r"[\1](\2)", "R": r"\1"}
_WITH_ONE_ARGUMENT = {
    "C": r"`\1`",
    "V": r"`\1`",
    "E": r"`\1`",
    "M": r"`\1`",
    "O": r"`\1`",
    "RV": r"`\1`",
    "B": r"**\1**",
    "I": r"*\1*",
    "U": r"<\1>",
}
_PLUGIN = re.compile(r"\bP\(([^)#]+)#[^)]+\)")


def markdown(text: str) -> str:
    """One paragraph of Ansible's documentation markup as Markdown."""
    for tag, replacement in _WITH_TWO_ARGUMENTS.items():
        text = re.sub(rf"\b{tag}\(([^),]+), *([^)]+)\)", replacement, text)
    text = _PLUGIN.sub(r"`\1`", text)
    for tag, replacement in _WITH_ONE_ARGUMENT.items():
        text = re.sub(rf"\b{tag}\(((?:\\.|[^)\\])+)\)", replacement, text)
    return " ".join(text.split())


def paragraphs(description: Any) -> list[str]:
    """A description, which is a text or a list of texts, as Markdown paragraphs."""
    texts = [description] if isinstance(description, str) else description or []
    return [markdown(str(text)) for text in texts]


def value(example: Any) -> str:
    """A default or a choice as it would be written in YAML."""
    if example is None:
        return ""
    return f"`{example}`" if isinstance(example, str) and example else f"`{json.dumps(example)}`"


def type_of(option: Mapping[str, Any]) -> str:
    """The type of an option, with that of a list's elements."""
    kind = str(option.get("type", "str"))
    return f"list of {option['elements']}" if kind == "list" and "elements" in option else kind


def meaning(option: Mapping[str, Any]) -> str:
    """What an option means, its choices included."""
    parts = paragraphs(option.get("description"))
    if option.get("choices"):
        parts.append("One of " + ", ".join(value(choice) for choice in option["choices"]) + ".")
    return " ".join(parts)


def option_table(options: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a table of `options`, and of a table for each option that has options itself."""
    yield from table(
        ("option", "type", "default", "meaning"),
        (
            (f"`{name}`", type_of(option), _default(option), meaning(option))
            for name, option in options.items()
        ),
    )
    for name, option in options.items():
        inner = option.get("options") or option.get("suboptions")
        if inner:
            yield ""
            yield f"Each entry of `{name}`:" if option.get("type") == "list" else f"Keys of `{name}`:"
            yield ""
            yield from option_table(inner)


def _default(option: Mapping[str, Any]) -> str:
    return "*required*" if option.get("required") else value(option.get("default"))


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        # A bar ends a cell, even within code.
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

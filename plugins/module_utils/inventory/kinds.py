# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The building blocks of a schema. Each reads a YAML node into a plain value, noting every fault with its
line, and writes the JSON Schema (draft 2020-12) of what it accepts, so that the two cannot drift apart.

``read`` returns INVALID where a fault was noted. It may refuse more than the JSON Schema can say (YAML's own
traps: ``no`` for text, 010 for a number, duplicate keys), never less.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from .document import LIST, MAPPING, PLAIN, TEXT, Faults, line_of, other_meaning, shown

Json = dict[str, Any]


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"

    def __bool__(self) -> bool:
        return False


INVALID: Final = _Invalid()

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def listed(words: Iterable[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be."""
    near = difflib.get_close_matches(
        word.lower().replace("_", "-"), [k.replace("_", "-") for k in known], 1, 0.6
    )
    return next((k for k in known if k.replace("_", "-") == near[0]), None) if near else None


def unknown_word(word: str, known: list[str], what: str) -> str:
    """The message for a name that is none of the known ones."""
    near = suggestion(word, known)
    if near is not None:
        return f'found "{word}", expected {what}; did you mean "{near}"?'
    return f'found "{word}", expected {what}: {listed(sorted(known)) if known else "there is none"}'


def _duplicate(mapping: yaml.Node, key_node: yaml.Node, faults: Faults) -> None:
    first = next(key for key, _ in mapping.value if key.value == key_node.value)
    faults.add(line_of(key_node), f"found a second time, first in line {line_of(first)}, expected once")


class Kind:
    """What a value must be. ``expected`` ends every message: ``found …, expected <expected>``."""

    expected: str

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        raise NotImplementedError

    def json_schema(self) -> Json:
        raise NotImplementedError

    def _wrong(self, node: yaml.Node, faults: Faults) -> _Invalid:
        if node.tag not in (PLAIN, TEXT, LIST, MAPPING):
            faults.add(
                line_of(node), f"found the YAML tag {node.tag}, expected {self.expected}, without a tag"
            )
        else:
            faults.add(line_of(node), f"found {shown(node)}, expected {self.expected}")
        return INVALID


@dataclass
class Text(Kind):
    """A string. ``pattern`` is a regular expression that Python and ECMA-262 read alike, for the whole text.

    With ``literal`` a plain scalar is taken as it is written, also where YAML 1.1 would read a number
    (``200:5``).
    """

    expected: str
    pattern: str = r"[^\x00-\x1f]+"
    reserved: tuple[str, ...] = ()
    literal: bool = False
    limit: int = 0

    def __post_init__(self) -> None:
        self._match = re.compile(self.pattern).fullmatch
        self._reserved = frozenset(self.reserved)

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        tag = node.tag
        if tag != PLAIN and tag != TEXT:
            return self._wrong(node, faults)
        text: str = node.value
        if tag == PLAIN and not self.literal:
            meaning = other_meaning(text)
            if meaning:
                faults.add(
                    line_of(node),
                    f"found {text} without quotes, which YAML reads as {meaning}, expected {self.expected}; "
                    f'for text write "{text}"',
                )
                return INVALID
        if not self._match(text) or (self.limit and len(text) > self.limit):
            return self._wrong(node, faults)
        if text in self._reserved:
            faults.add(
                line_of(node),
                f'found "{text}", which Ansible or Wattfleet already uses, expected another name',
            )
            return INVALID
        return text

    def json_schema(self) -> Json:
        schema: Json = {"type": "string", "pattern": f"^(?:{self.pattern})$"}
        if self.limit:
            schema["maxLength"] = self.limit
        if self.reserved:
            schema["not"] = {"enum": list(self.reserved)}
        return schema


@dataclass
class Choice(Kind):
    """One of a fixed set of words. ``what`` names the set for messages about long ones (``a profile``)."""

    words: tuple[str, ...]
    what: str = ""
    meanings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._words = frozenset(self.words)
        self.expected = self.what or listed(self.words)

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        if node.tag != PLAIN and node.tag != TEXT:
            return self._wrong(node, faults)
        word: str = node.value
        if word in self._words:
            return word
        if not word or other_meaning(word) or not self.what:
            near = suggestion(word, self.words) if word else None
            faults.add(
                line_of(node),
                f"found {shown(node)}, expected {self.expected}"
                + (f'; did you mean "{near}"?' if near else ""),
            )
        else:
            faults.add(line_of(node), unknown_word(word, list(self.words), self.what))
        return INVALID

    def json_schema(self) -> Json:
        schema: Json = {"type": "string", "enum": list(self.words)}
        if self.meanings:
            schema["markdownEnumDescriptions"] = list(self.meanings)
        return schema


@dataclass
class Number(Kind):
    """A number between two bounds, both allowed, that is not in ``gap`` (two whole numbers, both refused)."""

    minimum: float
    maximum: float
    unit: str = ""
    whole: bool = False
    gap: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        kind = "a whole number" if self.whole else "a number"
        unit = f" {self.unit}" if self.unit else ""
        self.expected = f"{kind} from {self.minimum:.16g} to {self.maximum:.16g}{unit}"
        if self.gap:
            self.expected += f" without {self.gap[0]} to {self.gap[1]}"

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        text = node.value
        if node.tag != PLAIN or not _NUMBER.fullmatch(text):
            if node.tag == TEXT and _NUMBER.fullmatch(text):
                faults.add(
                    line_of(node), f"found {shown(node)} in quotes, expected {self.expected}, without quotes"
                )
                return INVALID
            return self._wrong(node, faults)
        try:
            value: int | float = int(text)
        except ValueError:
            value = float(text)
        if (
            not self.minimum <= value <= self.maximum
            or (self.whole and not isinstance(value, int))
            or (self.gap and self.gap[0] <= value <= self.gap[1])
        ):
            return self._wrong(node, faults)
        return value

    def json_schema(self) -> Json:
        schema: Json = {"type": "integer" if self.whole else "number"}
        schema |= {"minimum": self.minimum, "maximum": self.maximum}
        if self.gap:
            schema["not"] = {"minimum": self.gap[0], "maximum": self.gap[1]}
        return schema


@dataclass
class OneNumber(Kind):
    """One of a few whole numbers."""

    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        self.expected = listed(str(number) for number in self.numbers)
        self._numbers = {str(number): number for number in self.numbers}

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        if node.tag == PLAIN and node.value in self._numbers:
            return self._numbers[node.value]
        return self._wrong(node, faults)

    def json_schema(self) -> Json:
        return {"type": "integer", "enum": list(self.numbers)}


@dataclass
class Flag(Kind):
    """True or false. YAML 1.1's yes and on are refused, because an editor's YAML 1.2 reads text there."""

    expected: str = "true or false"

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        if node.tag == PLAIN:
            if node.value in ("true", "True", "TRUE"):
                return True
            if node.value in ("false", "False", "FALSE"):
                return False
        return self._wrong(node, faults)

    def json_schema(self) -> Json:
        return {"type": "boolean"}


@dataclass
class Listing(Kind):
    """A list whose items are all of one kind; with ``distinct`` no two of them are equal."""

    item: Kind
    expected: str
    minimum: int = 0
    distinct: bool = False

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        if node.tag != LIST:
            return self._wrong(node, faults)
        read = self.item.read
        values = []
        for index, item in enumerate(node.value):
            before = len(faults.found)
            value = read(item, faults)
            if self.distinct and value is not INVALID and value in values:
                faults.add(line_of(item), f"found {shown(item)} twice, expected each once")
            if len(faults.found) > before:
                faults.below(before, f"[{index}]")
            values.append(value)
        if len(values) < self.minimum:
            faults.add(line_of(node), f"found an empty list, expected {self.expected}")
        return values

    def json_schema(self) -> Json:
        schema: Json = {"type": "array", "items": self.item.json_schema()}
        if self.minimum:
            schema["minItems"] = self.minimum
        if self.distinct:
            schema["uniqueItems"] = True
        return schema


REQUIRED = "required"
FLEET = "fleet"
OPTIONAL = "optional"


@dataclass
class Key:
    """One key of a mapping: what its value must be, and what a reader of the documentation learns about it.

    ``presence``: REQUIRED in the file; FLEET when the fleet file's defaults may give it instead; or OPTIONAL,
    with ``default`` filled in when it is not None.
    """

    kind: Kind
    title: str
    description: str
    presence: str = REQUIRED
    default: Any = None
    examples: tuple[Any, ...] = ()

    def json_schema(self) -> Json:
        schema: Json = {"title": self.title, "description": self.description}
        schema |= self.kind.json_schema()
        if self.default is not None:
            schema["default"] = self.default
        if self.examples:
            schema["examples"] = list(self.examples)
        return schema


@dataclass
class Record(Kind):
    """A mapping with known keys. With ``partial`` nothing is required and no default is filled in."""

    keys: Mapping[str, Key]
    expected: str
    partial: bool = False
    order: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        self.order = tuple(self.keys)
        self._readers = {name: key.kind.read for name, key in self.keys.items()}
        self._records = {name: key.kind for name, key in self.keys.items() if isinstance(key.kind, Record)}
        self._to_fill = (
            []
            if self.partial
            else [
                (name, key)
                for name, key in self.keys.items()
                if key.presence != OPTIONAL or key.default is not None
            ]
        )

    def read(self, node: yaml.Node, faults: Faults, defaults: Mapping[str, Any] | None = None) -> Any:
        if node.tag != MAPPING:
            return self._wrong(node, faults)
        values: dict[str, Any] = {}
        meant: set[str] = set()
        found = faults.found
        for key_node, value_node in node.value:
            name = key_node.value
            before = len(found)
            if name.__class__ is not str:
                faults.add(line_of(key_node), f"found {shown(key_node)} as a key, expected a name")
                continue
            if name in values:
                _duplicate(node, key_node, faults)
                faults.below(before, f".{name}")
                continue
            read = self._readers.get(name)
            if read is None:
                values[name] = INVALID
                meant.add(self._unknown(key_node, faults))
                faults.below(before, f".{name}")
                continue
            below = self._records.get(name)
            if below is not None and defaults:
                values[name] = below.read(value_node, faults, defaults.get(name))
            else:
                values[name] = read(value_node, faults)
            if len(found) > before:
                faults.below(before, f".{name}")
        self._fill(values, faults, node, defaults, meant)
        return values

    def _unknown(self, key_node: yaml.Node, faults: Faults) -> str:
        """Notes an unknown key; returns the key that it was probably meant to be, or nothing."""
        name = key_node.value
        near = suggestion(name, self.keys)
        if name == "<<":
            faults.add(line_of(key_node), "merge keys are not supported, expected each key written out")
        elif near is not None:
            faults.add(line_of(key_node), f'unknown key, did you mean "{near}"?')
        else:
            faults.add(line_of(key_node), f"unknown key, expected {listed(self.keys)}")
        return near or ""

    def _fill(
        self,
        values: dict[str, Any],
        faults: Faults,
        node: yaml.Node,
        defaults: Mapping[str, Any] | None,
        meant: set[str],
    ) -> None:
        """Adds what the file leaves out: the fleet's defaults, then the schema's; notes what is missing."""
        if self.partial:
            return
        for name, given in (defaults or {}).items():
            if name in values:
                continue
            below = self._records.get(name)
            if below is None:
                values[name] = given
                continue
            before = len(faults.found)
            values[name] = dict(given) if isinstance(given, dict) else INVALID
            if values[name] is not INVALID:
                below._fill(values[name], faults, node, None, set())
            faults.below(before, f".{name}")
        for name, key in self._to_fill:
            if name in values:
                continue
            if key.presence == OPTIONAL:
                values[name] = key.default
                continue
            values[name] = INVALID
            if name not in meant:  # otherwise the unknown key's own fault says it
                where = ", here or in the fleet file's defaults" if key.presence == FLEET else ""
                faults.add(line_of(node), f"missing, expected {key.kind.expected}{where}", f".{name}")

    def json_schema(self) -> Json:
        schema: Json = {"type": "object", "additionalProperties": False}
        schema["properties"] = {name: key.json_schema() for name, key in self.keys.items()}
        required = [name for name, key in self.keys.items() if key.presence == REQUIRED and not self.partial]
        if required:
            schema["required"] = required
        return schema


@dataclass
class Variants(Kind):
    """A mapping whose keys depend on the word in one of them (``type``)."""

    key: str
    records: Mapping[str, Record]
    expected: str

    def __post_init__(self) -> None:
        self._choice = Choice(tuple(self.records))

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        if node.tag != MAPPING:
            return self._wrong(node, faults)
        chooser = next((value for key, value in node.value if key.value == self.key), None)
        if chooser is None:
            faults.add(line_of(node), f"missing, expected {self._choice.expected}", f".{self.key}")
            return INVALID
        before = len(faults.found)
        word = self._choice.read(chooser, faults)
        if word is INVALID:
            faults.below(before, f".{self.key}")
            return INVALID
        return self.records[word].read(node, faults)

    def json_schema(self) -> Json:
        return {
            "type": "object",
            "required": [self.key],
            "properties": {self.key: self._choice.json_schema()},
            "allOf": [
                {
                    "if": {"properties": {self.key: {"const": word}}, "required": [self.key]},
                    "then": record.json_schema(),
                }
                for word, record in self.records.items()
            ],
        }


@dataclass
class Fork(Kind):
    """A mapping whose keys depend on whether one of them is there."""

    key: str
    there: Record
    otherwise: Record
    expected: str

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        if node.tag != MAPPING:
            return self._wrong(node, faults)
        is_there = any(key.value == self.key for key, _ in node.value)
        return (self.there if is_there else self.otherwise).read(node, faults)

    def json_schema(self) -> Json:
        return {
            "type": "object",
            "if": {"required": [self.key]},
            "then": self.there.json_schema(),
            "else": self.otherwise.json_schema(),
        }


@dataclass
class Table(Kind):
    """A mapping from names that the user chooses to values of one kind."""

    name: Text
    item: Kind
    expected: str

    def read(self, node: yaml.Node, faults: Faults) -> Any:
        if node.tag != MAPPING:
            return self._wrong(node, faults)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            before = len(faults.found)
            if not isinstance(key_node.value, str):
                faults.add(
                    line_of(key_node), f"found {shown(key_node)} as a key, expected {self.name.expected}"
                )
                continue
            name = key_node.value
            if name in values:
                _duplicate(node, key_node, faults)
            else:
                self.name.read(key_node, faults)
                values[name] = self.item.read(value_node, faults)
            if len(faults.found) > before:
                faults.below(before, f".{name}")
        if not values:
            faults.add(line_of(node), f"found an empty mapping, expected {self.expected}")
        return values

    def json_schema(self) -> Json:
        return {
            "type": "object",
            "propertyNames": self.name.json_schema(),
            "additionalProperties": self.item.json_schema(),
            "minProperties": 1,
        }

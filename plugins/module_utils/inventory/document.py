# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""YAML text to a tree of nodes that know their line, without deciding what a plain scalar means.

YAML 1.1 reads ``200:5`` as the number 12005 and ``no`` as false; YAML 1.2, which editors use, reads both as
text. So scalars keep their source text here, with a mark that says whether they were quoted, and the schema
decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

try:
    import yaml
except ImportError as missing:  # pragma: no cover  (ansible-core itself needs PyYAML)
    raise ImportError(
        "the inventory of wattfleet.energy needs PyYAML, which ansible-core installs"
    ) from missing

PLAIN = "plain"
"""The tag of a scalar that is written without quotes."""
TEXT = "tag:yaml.org,2002:str"
LIST = "tag:yaml.org,2002:seq"
MAPPING = "tag:yaml.org,2002:map"

# What YAML 1.1 takes for something else than text, with the words for it.
_MEANINGS = (
    ("true or false", re.compile(r"yes|no|on|off|true|false", re.IGNORECASE)),
    ("nothing", re.compile(r"~|null", re.IGNORECASE)),
    ("a number in base 60", re.compile(r"[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")),
    ("a number", re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")),
    ("a number", re.compile(r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9_]+)([eE][-+]?[0-9]+)?")),
    ("a number", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.inf|\.nan", re.IGNORECASE)),
    ("a date", re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")),
)
_AMBIGUOUS = re.compile("|".join(f"(?:(?i:{found.pattern}))" for _, found in _MEANINGS))


@dataclass
class Fault:
    """One fault in one file. ``path`` says where in the document, for instance ``meters[2].ct_ratio``."""

    line: int
    message: str
    path: str = ""
    file: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass
class Faults:
    """The faults of one file, in the order in which they are found."""

    found: list[Fault] = field(default_factory=list)

    def add(self, line: int, message: str, path: str = "") -> None:
        self.found.append(Fault(line, message, path))

    def below(self, start: int, step: str) -> None:
        """Puts ``step`` (``.key`` or ``[0]``) before the path of every fault from number ``start`` on."""
        for fault in self.found[start:]:
            fault.path = step + fault.path


_DEEPEST = 50
"""Levels of mappings and lists. libyaml has no bound: it overruns the stack and kills the process."""


class _SourceText:
    """The resolver of both composers below: tells plain from quoted and counts the depth, nothing else."""

    _depth = 0

    def resolve(self, kind: Any, _value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return PLAIN if implicit[0] else TEXT
        return LIST if kind is yaml.SequenceNode else MAPPING

    def descend_resolver(self, current_node: Any, _index: Any) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            mark = current_node.start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} levels deep", problem_mark=mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1


if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _Composer(_SourceText, CParser):
        pass

else:  # several times slower, and says the same

    class _Composer(  # type: ignore[no-redef]  # the same class for either loader
        _SourceText, yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer
    ):
        def __init__(self, text: str) -> None:
            yaml.reader.Reader.__init__(self, text)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)
            yaml.composer.Composer.__init__(self)


def decode(content: bytes, faults: Faults) -> str | None:
    """File content to text; None when it is not UTF-8, which is added to ``faults``."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        faults.add(line, f"not YAML: byte 0x{content[error.start]:02x} is not UTF-8, expected UTF-8 text")
        return None


def compose(text: str, faults: Faults) -> yaml.Node | None:
    """The root node of the document in ``text``; None after a syntax error, which is added to ``faults``."""
    try:
        composer = _Composer(text)
        try:
            node: yaml.Node | None = composer.get_single_node()
        finally:
            composer.dispose()
    except yaml.MarkedYAMLError as error:
        faults.add(*_explain(error))
        return None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.add(
            line, f"not YAML: character U+{error.character:04X} is not allowed, expected printable text"
        )
        return None
    if node is None:
        faults.add(1, "the file is empty, expected a mapping of keys")
    return node


def _explain(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    problem = " ".join(str(error.problem or error.context or error).split())
    hint = ""
    if "'\\t'" in problem or "tab character" in problem or "cannot start any token" in problem:
        hint = "; indent with spaces, and quote text that starts with %, @ or `"
    elif "mapping values are not allowed" in problem:
        hint = '; quote text that contains ": ", and indent the keys of one mapping alike'
    elif "but found another document" in problem:
        problem, hint = "found a second document", "; expected one document a file, without a second ---"
    elif "block end" in problem or "could not find expected ':'" in problem:
        hint = "; indent the keys of one mapping alike, with a colon and a space after each"
    return line, f"not YAML: {problem} (column {mark.column + 1 if mark else 1}){hint}"


def line_of(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def other_meaning(text: str) -> str | None:
    """What YAML 1.1 makes of this plain scalar if not text, in words; None when text."""
    if not _AMBIGUOUS.fullmatch(text):
        return None
    return next(words for words, found in _MEANINGS if found.fullmatch(text))


def shown(node: yaml.Node) -> str:
    """A node's content for a message: a scalar as it is written, collections by their kind."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    text = str(node.value)
    if node.tag == PLAIN and not text:
        return "nothing"
    text = text if len(text) <= 60 else text[:57] + "..."
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return text if node.tag == PLAIN and other_meaning(text) else f'"{text}"'


def locate(text: str, steps: tuple[str | int, ...]) -> int:
    """The line of the value that ``steps`` (keys and indexes) lead to, or of the deepest part that exists.

    Composes again: a fault between files is rare, and keeping the nodes of 5,000 files is not worth their
    memory.
    """
    node = compose(text, Faults())
    if node is None:
        return 1
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            below = [value for key, value in node.value if key.value == step]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            below = node.value[step : step + 1]
        else:
            below = []
        if not below:
            break
        node = below[0]
    return line_of(node)

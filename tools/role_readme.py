# SPDX-License-Identifier: Apache-2.0
"""Writes roles/*/README.md from each role's argument_specs.yml, and docs/reference/modules.md from the
plugins' documentation.

    tools/role_readme.py            write them
    tools/role_readme.py --check    exit 1 and name those that are stale

Both also hold each role's argument_specs.yml against its defaults/main.yml: the same names, the same values.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import doc_markup
import module_reference
import yaml

ROOT = Path(__file__).resolve().parents[1]
_IMPORTS = ("ansible.builtin.import_role", "ansible.builtin.include_role")


class FaultError(Exception):
    """A role's files do not say what they should. One line: where, what was found, what would be right."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the roles' READMEs and the modules' reference.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    options = parser.parse_args(arguments)

    roles = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
    wanted: dict[Path, str] = {}
    complaints: list[str] = []
    for role in roles:
        try:
            entry_points = read_specs(role)
        except FaultError as fault:
            complaints.append(str(fault))
            continue
        complaints += disagreements(role, entry_points)
        example = find_example(ROOT / "playbooks", role.name)
        wanted[role / "README.md"] = readme(role.name, entry_points, example)
    wanted[ROOT / "docs" / "reference" / "modules.md"] = module_reference.page(ROOT)

    for path, text in wanted.items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if options.check:
            complaints.append(f"{path.relative_to(ROOT)} is stale; run: make docs")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def read_specs(role: Path) -> dict[str, dict[str, Any]]:
    """The entry points of a role; FaultError when it has none."""
    path = role / "meta" / "argument_specs.yml"
    try:
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FaultError(f"roles/{role.name}: every role needs a meta/argument_specs.yml") from None
    entry_points = (specs or {}).get("argument_specs")
    if not isinstance(entry_points, dict) or "main" not in entry_points:
        raise FaultError(f"roles/{role.name}/meta/argument_specs.yml: no `main` under `argument_specs`")
    return entry_points


def disagreements(role: Path, entry_points: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where argument_specs.yml and defaults/main.yml of a role say different things, one line each."""
    path = role / "defaults" / "main.yml"
    defaults = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
    options: dict[str, Any] = {}
    for entry_point in entry_points.values():
        options.update(entry_point.get("options") or {})
    faults = []
    for name, option in options.items():
        if not name.startswith(f"{role.name}_"):
            faults.append(f"option {name} does not start with the role's name, {role.name}_")
        if not option.get("description"):
            faults.append(f"option {name} has no description in meta/argument_specs.yml")
        if "default" in option and name not in defaults:
            faults.append(
                f"option {name} has a default in meta/argument_specs.yml, none in defaults/main.yml"
            )
    for name, default in defaults.items():
        option = options.get(name)
        if option is None:
            faults.append(f"defaults/main.yml sets {name}, which meta/argument_specs.yml does not know")
        elif option.get("required"):
            faults.append(f"option {name} is required, yet defaults/main.yml gives it a default")
        elif "default" not in option and not is_computed(default):
            faults.append(f"the default of {name}, {default!r}, is not told in meta/argument_specs.yml")
        elif "default" in option and not same(option["default"], default):
            faults.append(f"the default of {name} is documented as {option['default']!r}, but is {default!r}")
    return [f"roles/{role.name}: {fault}" for fault in faults]


def same(documented: Any, default: Any) -> bool:
    """Whether two defaults are the same value; 5 and 5.0 are, 1 and true are not."""
    if isinstance(documented, bool) is not isinstance(default, bool):
        return False
    return bool(documented == default)


def is_computed(default: Any) -> bool:
    """Whether a default is made from other variables, or says that there is none; its description tells it in
    words.
    """
    return default is None or (isinstance(default, str) and ("{{" in default or not default))


def find_example(playbooks: Path, role: str) -> str | None:
    """The first task of the collection's playbooks that imports `role`, as it is written there; a part of it only where
    none imports the whole."""
    part = None
    for path in sorted(playbooks.glob("*.yml")):
        text = path.read_text(encoding="utf-8")
        document = yaml.compose(text)
        for task in _mappings(document):
            keys = {key.value: content for key, content in task.value if isinstance(key, yaml.ScalarNode)}
            imported = next((keys[name] for name in _IMPORTS if name in keys), None)
            if imported is None or not isinstance(imported, yaml.MappingNode):
                continue
            names = {key.value: content.value for key, content in imported.value}
            if str(names.get("name", "")).rpartition(".")[2] == role:
                lines = text.splitlines()[task.start_mark.line : task.end_mark.line]
                found = textwrap.dedent("\n".join(lines)).strip()
                if "tasks_from" not in names:
                    return found
                part = part or found
    return part


def _mappings(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _key, content in node.value:
            yield from _mappings(content)
    elif isinstance(node, yaml.SequenceNode):
        for content in node.value:
            yield from _mappings(content)


def readme(role: str, entry_points: Mapping[str, Mapping[str, Any]], example: str | None) -> str:
    """The text of a role's README.md."""
    return "\n".join(_readme_lines(role, entry_points, example)).rstrip() + "\n"


def _readme_lines(
    role: str, entry_points: Mapping[str, Mapping[str, Any]], example: str | None
) -> Iterator[str]:
    yield f"# Role `wattfleet.energy.{role}`"
    yield ""
    yield "Generated by `tools/role_readme.py` from `meta/argument_specs.yml`; do not edit."
    for name, entry_point in entry_points.items():
        yield ""
        if name != "main":
            yield f"## Entry point `{name}`"
            yield ""
        yield doc_markup.markdown(entry_point.get("short_description", "")).rstrip(".") + "."
        for paragraph in doc_markup.paragraphs(entry_point.get("description")):
            yield ""
            yield paragraph
        yield ""
        yield "## Options" if name == "main" else "### Options"
        yield ""
        options = entry_point.get("options")
        if options:
            yield from doc_markup.option_table(options)
        else:
            yield "None."
    yield ""
    yield "## Example"
    yield ""
    yield "```yaml"
    if example is not None:
        yield example
    else:
        yield f"- name: Apply {role}"
        yield "  ansible.builtin.import_role:"
        yield f"    name: wattfleet.energy.{role}"
    yield "```"


if __name__ == "__main__":
    sys.exit(main())

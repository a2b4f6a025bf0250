from __future__ import annotations

from pathlib import Path
from typing import Any

import doc_markup
import pytest
import role_readme
import yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Port of C(sshd), O(port=22) or V(none).", "Port of `sshd`, `port=22` or `none`."),
        (
            "See M(ansible.builtin.copy) and B(never) I(this).",
            "See `ansible.builtin.copy` and **never** *this*.",
        ),
        ("RV(results[].findings) tells.", "`results[].findings` tells."),
        (
            "L(Modbus,https://modbus.org) and U(https://a.b).",
            "[Modbus](https://modbus.org) and <https://a.b>.",
        ),
        ("P(wattfleet.energy.verdict_text#filter)", "`wattfleet.energy.verdict_text`"),
        ("over\ntwo lines", "over two lines"),
        ("VACATION(S) and DISC(O)", "VACATION(S) and DISC(O)"),
    ],
)
def test_markup(text: str, expected: str) -> None:
    assert doc_markup.markdown(text) == expected


def test_option_table_with_suboptions_and_bars() -> None:
    options = {
        "a_port": {"type": "int", "required": True, "description": "One | two.", "choices": [1, 2]},
        "a_list": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "description": ["First.", "Second."],
            "options": {"name": {"type": "str", "default": "x", "description": "Name."}},
        },
    }
    assert list(doc_markup.option_table(options)) == [
        "| option | type | default | meaning |",
        "| --- | --- | --- | --- |",
        "| `a_port` | int | *required* | One \\| two. One of `1`, `2`. |",
        "| `a_list` | list of dict | `[]` | First. Second. |",
        "",
        "Each entry of `a_list`:",
        "",
        "| option | type | default | meaning |",
        "| --- | --- | --- | --- |",
        "| `name` | str | `x` | Name. |",
    ]


def make_role(folder: Path, options: dict[str, Any], defaults: dict[str, Any]) -> Path:
    role = folder / "clock"
    (role / "meta").mkdir(parents=True)
    (role / "defaults").mkdir()
    specs = {"argument_specs": {"main": {"short_description": "Sets the clock", "options": options}}}
    (role / "meta/argument_specs.yml").write_text(yaml.safe_dump(specs))
    (role / "defaults/main.yml").write_text(yaml.safe_dump(defaults))
    return role


def disagreements(folder: Path, options: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    role = make_role(folder, options, defaults)
    return role_readme.disagreements(role, role_readme.read_specs(role))


OPTION = {"description": "What it is."}


def test_agreement(tmp_path: Path) -> None:
    options = {
        "clock_server": {**OPTION, "required": True},
        "clock_port": {**OPTION, "default": 123},
        "clock_owner": OPTION,
    }
    assert disagreements(tmp_path, options, {"clock_port": 123, "clock_owner": "{{ clock_server }}"}) == []


@pytest.mark.parametrize(
    ("options", "defaults", "complaint"),
    [
        ({"clock_a": {**OPTION, "default": 1}}, {"clock_a": 2}, "documented as 1, but is 2"),
        ({"clock_a": {**OPTION, "default": True}}, {"clock_a": 1}, "documented as True, but is 1"),
        ({"clock_a": {**OPTION, "default": 1}}, {}, "none in defaults/main.yml"),
        ({"clock_a": OPTION}, {"clock_a": 2}, "the default of clock_a, 2, is not told"),
        ({}, {"clock_a": 2}, "defaults/main.yml sets clock_a, which"),
        ({"clock_a": {**OPTION, "required": True}}, {"clock_a": 2}, "clock_a is required, yet"),
        ({"a": OPTION}, {}, "option a does not start with the role's name, clock_"),
        ({"clock_a": {"type": "str"}}, {}, "clock_a has no description"),
    ],
)
def test_disagreement(
    tmp_path: Path, options: dict[str, Any], defaults: dict[str, Any], complaint: str
) -> None:
    (found,) = disagreements(tmp_path, options, defaults)
    assert found.startswith("roles/clock: ")
    assert complaint in found


def test_role_without_specs(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(role_readme.FaultError, match="roles/bare: every role needs"):
        role_readme.read_specs(tmp_path / "bare")


def test_example_is_the_playbooks_own_task(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(
        "---\n- hosts: all\n  tasks:\n    - name: Set the clock   # it matters\n"
        "      ansible.builtin.import_role:\n        name: wattfleet.energy.clock\n"
        "      vars:\n        clock_server: hub\n\n    - name: Next\n      ansible.builtin.debug:\n"
    )
    assert role_readme.find_example(tmp_path, "clock") == (
        "- name: Set the clock   # it matters\n"
        "  ansible.builtin.import_role:\n    name: wattfleet.energy.clock\n"
        "  vars:\n    clock_server: hub"
    )
    assert role_readme.find_example(tmp_path, "other") is None


def test_the_example_is_the_whole_role_where_one_imports_it(tmp_path: Path) -> None:
    task = "    - ansible.builtin.import_role:\n        name: wattfleet.energy.clock\n"
    part = f"- hosts: hub\n  tasks:\n{task}        tasks_from: time\n"
    (tmp_path / "a.yml").write_text(part)
    assert "tasks_from: time" in str(role_readme.find_example(tmp_path, "clock"))
    (tmp_path / "b.yml").write_text(f"- hosts: hub\n  tasks:\n{task}")
    assert "tasks_from" not in str(role_readme.find_example(tmp_path, "clock"))


def test_readme() -> None:
    entry_points = {
        "main": {"short_description": "Sets the C(clock)", "description": ["One.", "Two."]},
        "undo": {"short_description": "Undoes it", "options": {"clock_a": {**OPTION, "default": 5}}},
    }
    text = role_readme.readme("clock", entry_points, None)
    assert text.startswith("# Role `wattfleet.energy.clock`\n")
    assert "\nSets the `clock`.\n\nOne.\n\nTwo.\n\n## Options\n\nNone.\n" in text
    assert "\n## Entry point `undo`\n\nUndoes it.\n\n### Options\n" in text
    assert "| `clock_a` | str | `5` | What it is. |" in text
    assert "    name: wattfleet.energy.clock\n```\n" in text


def test_every_plugin_has_its_section() -> None:
    page = (role_readme.ROOT / "docs/reference/modules.md").read_text(encoding="utf-8")
    for folder in ("modules", "filter", "inventory"):
        for path in (role_readme.ROOT / "plugins" / folder).glob("[!_]*.py"):
            assert f"### `wattfleet.energy.{path.stem}`" in page


def test_broken_documentation_ends_in_one_line(tmp_path: Path) -> None:
    import module_reference

    with pytest.raises(SystemExit, match="ansible-doc cannot read the module documentation: "):
        module_reference.read(tmp_path, "module", ["no_such_module"])

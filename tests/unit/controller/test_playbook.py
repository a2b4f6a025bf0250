# SPDX-License-Identifier: Apache-2.0
"""Real runs of ansible-playbook through ansible-runner, on localhost."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from wattfleet import playbook as module
from wattfleet.playbook import run_playbook

PLAY = """---
- name: Try
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Say what came in
      ansible.builtin.debug:
        msg: "{{ word }}"
    - name: Change something
      ansible.builtin.copy:
        content: hello
        dest: "{{ target }}"
        mode: "0644"
    - name: Fail for a reason
      ansible.builtin.fail:
        msg: the reason
      when: broken | default(false)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one playbook, and its inventory."""
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "try.yml").write_text(PLAY)
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    (tmp_path / "hosts.ini").write_text(f"localhost ansible_python_interpreter={sys.executable}\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    return tmp_path


def run(project: Path, **variables: object) -> tuple[module.PlaybookResult, str]:
    output = io.StringIO()
    variables = {"word": "secret-word", "target": str(project / "made"), **variables}
    result = run_playbook(
        "try", project / "hosts.ini", extra_vars=variables, console=Console(file=output, width=100)
    )
    return result, output.getvalue()


def test_a_run_is_counted_by_host(project: Path) -> None:
    first, shown = run(project)
    assert first.ok, first.failures
    assert first.stats["localhost"]["ok"] == 2
    assert first.changed == 1
    assert "try 0:0" in shown
    assert "Change something" in first.log.read_text()
    second, _ = run(project)
    assert second.changed == 0


def test_a_failure_has_host_task_and_reason(project: Path) -> None:
    result, _ = run(project, broken=True)
    assert not result.ok
    (failure,) = result.failures
    assert (failure.host, failure.task, failure.message) == ("localhost", "Fail for a reason", "the reason")


def test_check_mode_changes_nothing(project: Path) -> None:
    result = run_playbook(
        "try",
        project / "hosts.ini",
        extra_vars={"word": "w", "target": str(project / "made")},
        arguments=["--check", "--diff"],
        console=Console(file=io.StringIO()),
    )
    assert result.ok
    assert result.changed == 1
    assert not (project / "made").exists()


def test_a_playbook_that_cannot_be_read_is_a_failure_with_its_reason(project: Path) -> None:
    (project / "playbooks" / "try.yml").write_text("- hosts: [\n")
    result, _ = run(project)
    assert not result.ok
    assert result.failures
    assert result.failures[0].host == "controller"


def test_another_run_of_the_same_playbook_is_left_alone(project: Path) -> None:
    runner = project / "build" / "runner"
    ended = subprocess.Popen(["true"])
    ended.wait()
    other, left = runner / "try.abc.1", runner / f"try.abc.{ended.pid}"
    for folder in (other, left):
        folder.mkdir(parents=True)
    log = project / "build" / "runs" / "try.log"
    log.parent.mkdir()
    with log.open("w") as others:
        result, _ = run(project)
        others.write("of the other run\n")
    assert result.ok, result.failures
    assert list(runner.iterdir()) == [other], (
        "what a run left that was killed is there, or that of a run is not"
    )
    assert "of the other run" not in log.read_text()


def test_variables_do_not_stay_on_disk(project: Path) -> None:
    run(project)
    private = project / "build" / "runner"
    found = [
        file
        for file in private.rglob("*")
        if file.is_file() and "secret-word" in file.read_text(errors="ignore")
    ]
    assert not found

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest
from wattfleet.cli import build_parser, main

ROLLOUT = (
    "plan",
    "start",
    "run",
    "status",
    "pause",
    "resume",
    "approve",
    "abort",
    "rollback",
    "retry",
    "skip",
    "log",
)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["lab"],
        ["demo"],
        ["certificates"],
        ["gates"],
        ["release"],
        ["rollout"],
        ["status"],
        *(["rollout", name] for name in ROLLOUT),
    ],
    ids=" ".join,
)
def test_every_help_text_has_an_example(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wattfleet", *command, "--help"], capture_output=True, text=True, check=True
    )
    assert "xample" in done.stdout


def test_a_wrong_number_of_sites_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--sites", "51"]) == 1
    assert capsys.readouterr().err == "wattfleet: --sites: found 51, the lab has 1 to 50 sites\n"


def test_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(["nonsense"])
    assert end.value.code == 2


@pytest.mark.parametrize("command", ["lab status", "demo", "certificates", "gates plant-a", "status"])
def test_every_command_asks_the_lab_that_the_environment_names(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATTFLEET_LAB", raising=False)
    assert build_parser().parse_args(command.split()).lab == "default"
    monkeypatch.setenv("WATTFLEET_LAB", "dev")
    assert build_parser().parse_args(command.split()).lab == "dev"

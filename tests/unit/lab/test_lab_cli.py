# SPDX-License-Identifier: Apache-2.0
import argparse
import json
from pathlib import Path

import pytest
from wattfleet_lab import cli, paths


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTFLEET_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(paths, "MACHINE", tmp_path / "run")
    monkeypatch.delenv("WATTFLEET_LAB", raising=False)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_lab_is_chosen_by_option_environment_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse("status").lab == "default"
    monkeypatch.setenv("WATTFLEET_LAB", "dev")
    assert parse("status").lab == "dev"
    assert parse("--lab", "mine", "status").lab == "mine"


def test_arguments_of_up() -> None:
    args = parse("up", "--site", "lab-07", "--site", "lab-09", "--no-hub")
    assert (args.sites, args.site, args.hub) == (None, ["lab-07", "lab-09"], False)


def test_a_command_after_two_hyphens_is_left_as_it_is() -> None:
    args = parse("ssh", "hub", "--", "ls", "-l", "--", "x")
    assert args.command[-4:] == ["ls", "-l", "--", "x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lab", "Not_A_Name", "status"], "host name 'Not_A_Name'"),
        (["ssh", "hub"], "no host 'hub' in lab 'default'; there are: none"),
        (["cut", "hub"], "no host 'hub'"),
        (["up", "--sites", "51"], "--sites 51: there are 50 sites"),
        (["up", "--site", "nowhere"], "no site 'nowhere'"),
        (["up", "--inventory", "/nonexistent/fleet.sites.yml"], "/nonexistent/fleet.sites.yml: no such file"),
    ],
)
def test_trouble_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["up"], ["down"], ["host-add", "x"], ["host-remove", "x"], ["image"]])
def test_without_root_one_line_says_so(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(arguments) == 1
    assert (
        capsys.readouterr().err
        == "wattfleet lab: this needs root, for containers and networks: run it with sudo\n"
    )


def test_status_of_a_lab_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out == "lab default is not up\n"
    assert cli.main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["up"] is False
    assert status["hosts"] == []

# SPDX-License-Identifier: Apache-2.0
"""`wattfleet gates`, with a hub whose answers are given."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from wattfleet import gates_command
from wattfleet.cli import main
from wattfleet.errors import WattfleetError
from wattfleet.hub import Hub, hub_of
from wattfleet.rollout.gate_settings import GateSettings
from wattfleet.rollout.gates import Outcome
from wattfleet.rollout.health import Answer, Health, Meter, Span

LENGTH = timedelta(minutes=15)
DAY = timedelta(days=1)


class FakeHub:
    """Delivers everything up to 20 s ago; `worse` since a time has half of the values."""

    def __init__(
        self, worse: datetime | None = None, known: tuple[str, ...] = ("plant-a", "plant-b")
    ) -> None:
        self.worse = worse
        self.known = known
        self.asked: list[Mapping[str, Span]] = []

    def health(self, spans: Mapping[str, Span]) -> Answer:
        self.asked.append(spans)
        now = datetime.now(UTC)
        here = now - timedelta(seconds=20)
        return Answer(
            now, {name: self._one(span, here) for name, span in spans.items() if name in self.known}
        )

    def _one(self, span: Span, here: datetime) -> Health:
        polls = round(span.seconds / 10)
        nulls = polls // 2 if self.worse and span.since >= self.worse else 0
        meter = Meter(1, polls, polls - nulls, polls, nulls, 0, 2.0)
        counted = {"requests": polls, "crc_errors": 0, "timeouts": 0}
        return Health(span, {"main": meter}, {"hall": counted}, here, here, least_delay=2.0, usual_delay=5.0)


def test_the_newest_span_of_which_all_is_here_against_the_day_before() -> None:
    hub = FakeHub()
    (one,) = gates_command.look(hub, ["plant-a"], LENGTH, GateSettings())
    assert one.verdict.outcome is Outcome.PASS
    assert one.span.seconds == 900
    assert abs(datetime.now(UTC) - timedelta(seconds=22) - one.span.until) < timedelta(seconds=10)
    assert one.baseline == Span(one.span.since - DAY, one.span.until - DAY)
    assert {measure.name for measure in one.measures}.isdisjoint(("services", "version"))


def test_spans_that_are_given() -> None:
    begin = datetime.now(UTC) - timedelta(hours=2)
    hub = FakeHub(worse=begin)
    found = gates_command.look(
        hub, ["plant-a", "plant-b"], LENGTH, GateSettings(), begin, begin - timedelta(hours=1)
    )
    assert [one.verdict.outcome for one in found] == [Outcome.FAIL] * 2
    assert len(hub.asked) == 2
    with pytest.raises(WattfleetError, match="plant-a: --baseline overlaps"):
        gates_command.look(hub, ["plant-a"], LENGTH, GateSettings(), begin, begin - timedelta(minutes=5))


def test_a_site_that_the_hub_does_not_know() -> None:
    with pytest.raises(WattfleetError, match="plant-c: the hub has never heard of it"):
        gates_command.look(FakeHub(), ["plant-a", "plant-c"], LENGTH, GateSettings())


@pytest.fixture
def fleet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "fleet.sites.yml"
    file.write_text("gates: {nulls: {dry_run: true}, samples: 20}\n", encoding="utf-8")
    hub = FakeHub(worse=datetime.fromtimestamp(time.time() - 3600, UTC))
    monkeypatch.setattr(gates_command, "Hub", lambda _: hub)
    return file


def test_as_json(fleet_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gates", "plant-a", "plant-a", "--inventory", str(fleet_file), "--json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)
    by_name: dict[str, Any] = {measure["name"]: measure for measure in one["measures"]}
    assert (one["site"], one["outcome"]) == ("plant-a", "fail")
    assert (by_name["nulls"]["outcome"], by_name["nulls"]["dry_run"]) == ("fail", True)
    assert by_name["readings"]["needed"] == 20
    assert by_name["readings"]["value"] == pytest.approx(0.5)


def test_as_a_table(
    fleet_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["gates", "plant-a", "--inventory", str(fleet_file)]) == 1
    out = capsys.readouterr().out
    assert "fail, dry run" in out
    assert "plant-a: fail" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--minutes", "0"], "wattfleet: --minutes is 0, expected more than 0\n"),
        (["--inventory", "/nowhere"], "wattfleet: /nowhere: cannot be read as a fleet file: "),
    ],
)
def test_bad_input_is_one_line(
    fleet_file: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gates", "plant-a", "--inventory", str(fleet_file), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1
    with pytest.raises(SystemExit) as end:
        main(["gates", "plant-a", "--since", "yesterday"])
    assert end.value.code == 2


def test_how_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []

    def command(_: Hub, *arguments: str, timeout: float = 60) -> str:
        said.append(arguments)
        return '{"now": "2026-11-02T06:00:00+00:00", "sites": {}}'

    monkeypatch.setattr(Hub, "command", command)
    hub = Hub(Path("ssh_config"))
    begin = datetime(2026, 11, 2, tzinfo=UTC)
    assert hub.health({"plant-a": Span(begin, begin + LENGTH)}).sites == {}
    span = ("2026-11-02T00:00:00+00:00", "2026-11-02T00:15:00+00:00")
    assert said == [
        (
            "health",
            "--json",
            f"--since={span[0]}",
            f"--until={span[1]}",
            f"--site=plant-a@{span[0]}/{span[1]}",
        )
    ]
    monkeypatch.setattr(Hub, "command", lambda *_, **__: "nonsense")
    with pytest.raises(WattfleetError, match="is not JSON"):
        hub.health({"plant-a": Span(begin, begin + LENGTH)})


def test_the_hub_by_the_variables_of_the_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def ran(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", ran)
    usual = {"ansible_host": "192.0.2.10", "ansible_user": "admin"}
    hub_of(usual).command("status")
    hub_of({**usual, "ansible_ssh_common_args": "-F 'a b'", "ansible_port": 2222}).command("status")
    begins = [" ".join(one[: one.index("sudo")]) for one in commands]
    assert begins == [
        "ssh -o BatchMode=yes admin@192.0.2.10",
        "ssh -F a b -p 2222 -o BatchMode=yes admin@192.0.2.10",
    ]

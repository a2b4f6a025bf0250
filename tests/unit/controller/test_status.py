# SPDX-License-Identifier: Apache-2.0
"""`wattfleet status`: what is a trouble, in which order, as a table, as JSON and as a page."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from wattfleet.cli import main
from wattfleet.errors import WattfleetError
from wattfleet.hub import Hub
from wattfleet.rollout.ledger import Ledger, Step
from wattfleet.status import command, figures, judge, page
from wattfleet.status.figures import complete

from .fleet_document import NEVER, NOW, ago, check, document, site

COUNTED = site()["completeness"]
ERRORS = site()["bus_errors"]
AGREED = site()["agreement"]
RATIO = "press shows 80 % of what it should: likely its CT ratio is 250:5 and not 200:5"
WRONG = {**AGREED, "state": "differs", "share": 0.1847, "meter": "press", "causes": [RATIO]}
PARTLY = {**WRONG, "meter": None, "causes": ["a load constant, of 5.00 kW in the mean, has no meter"]}
UNKNOWN = {
    **AGREED, "state": "unknown", "supply_kwh": None, "parts_kwh": None, "share": None,
    "causes": ["the site has no meter of the supply (role main)"],
}  # fmt: skip
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> [red]'\"&"


@pytest.mark.parametrize(
    ("other", "level", "text"),
    [
        ({**NEVER}, "act", "the hub has never heard of it"),
        ({"state": "offline", "since": ago(minutes=11)}, "act", "offline for 11 min"),
        ({"state": "offline", "since": ago(minutes=9)}, "watch", "offline for 9 min"),
        ({"state": "offline", "since": None}, "act", "offline"),
        ({"state": "late", "since": ago(hours=5)}, "act", "no reading for 5 h"),
        ({"described": False}, "watch", "the hub does not have its file: run playbooks/hub.yml"),
        ({"delay": {"p50": 5.0, "p95": 601.0, "samples": 9}}, "watch", "readings arrive late: p95 10 min"),
        ({"completeness": {**COUNTED, "missing": 87}}, "act", "1.0 % of the readings of 24 h are missing"),
        ({"completeness": {**COUNTED, "missing": 9}}, "watch", "0.10 % of the readings of 24 h are missing"),
        ({"completeness": {**COUNTED, "null": 432}}, "act", "5.0 % of the readings have no value"),
        ({"completeness": {**COUNTED, "null": 87}}, "watch", "1.0 % of the readings have no value"),
        ({"bus_errors": {**ERRORS, "crc_errors": 9}}, "act", "9 CRC errors in 8640 requests"),
        ({"bus_errors": {**ERRORS, "crc_errors": 1}}, "watch", "1 CRC error in 8640 requests"),
        ({"bus_errors": {**ERRORS, "timeouts": 87}}, "act", "87 time-outs in 8640 requests"),
        ({"bus_errors": {**ERRORS, "timeouts": 9}}, "watch", "9 time-outs in 8640 requests"),
        ({"certificate": {"expires": ago(), "days_left": 29}}, "act", "its certificate ends in 29 days"),
        ({"certificate": {"expires": ago(), "days_left": -1}}, "act", "its certificate ended 1 day ago"),
        ({"agreement": WRONG}, "act", f"its meters differ by 18.5 % of the supply: {RATIO}"),
        (
            {"agreement": PARTLY},
            "watch",
            "its meters differ by 18.5 % of the supply: a load constant, of 5.00 kW in the mean, has no meter",
        ),
        (
            {"agreement": {**PARTLY, "share": None, "causes": []}},
            "watch",
            "its meters differ: energy-hub reconcile on the hub tells the cause",
        ),
        ({"chain": "broken"}, "act", "its chain of batches is broken: run energy-audit verify on the hub"),
    ],
)
def test_troubles(other: dict[str, Any], level: str, text: str) -> None:
    assert judge.findings(site(**other), NOW) == [{"level": level, "text": text}]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"completeness": {**COUNTED, "missing": 8, "null": 80}},
        {"completeness": None, "bus_errors": None, "delay": None, "certificate": None, "collector": None},
        {"bus_errors": {**ERRORS, "timeouts": 8}},
        {"certificate": {"expires": ago(), "days_left": 30}},
        {"chain": "pending"},
        {"agreement": UNKNOWN},
        {"agreement": None},
    ],
)
def test_no_trouble(other: dict[str, Any]) -> None:
    assert judge.findings(site(**other), NOW) == []


def test_the_worst_first() -> None:
    found = complete(
        document(
            well=site(),
            watched=site(bus_errors={**ERRORS, "crc_errors": 1}),
            dirty=site(bus_errors={**ERRORS, "crc_errors": 100}),
            old=site(state="offline", since=ago(hours=2)),
            missing=site(**NEVER),
            just=site(state="offline", since=ago(minutes=1)),
        ),
        {},
    )
    order = [name for name, _ in judge.worst_first(found["sites"])]
    assert order == ["missing", "old", "dirty", "just", "watched", "well"]


def test_all_is_well_only_when_nothing_is_missing() -> None:
    assert judge.complete({"expected": 1_000_000, "missing": 1}) == 99.9
    assert judge.complete({"expected": 10, "missing": 0}) == 100.0
    assert judge.complete(None) is None
    assert judge.sparkline([0, 1, 0, 9]) == "·▁·█"
    assert judge.sparkline([0, 0]) == ""


# The command


class FakeHub:
    """Answers with what is given, or not at all."""

    def __init__(self, *answers: dict[str, Any] | WattfleetError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[tuple[str, ...], str]] = []

    def command(self, *arguments: str, timeout: float = 60, given: str = "") -> str:
        self.asked.append((arguments, given))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, WattfleetError):
            raise answer
        return json.dumps(answer)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two site files of a lab that is never asked."""
    for name in ("WATTFLEET_INVENTORY", "WATTFLEET_LAB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WATTFLEET_STATE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    folder = command.State.of("default").inventory
    (folder / "sites").mkdir(parents=True)
    for name in ("plant-a", "plant-b"):
        (folder / "sites" / f"{name}.yml").write_text("", encoding="utf-8")
    return folder


def ask(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any] | WattfleetError) -> FakeHub:
    hub = FakeHub(*answers)
    monkeypatch.setattr(command, "Hub", lambda _: hub)
    return hub


def test_a_fleet_that_is_well(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = ask(monkeypatch, document(plant_a=site(), plant_b=site()))
    assert main(["status"]) == 0
    assert hub.asked == [(("fleet", "--sites", "-"), "plant-a\nplant-b\n")]
    out = capsys.readouterr().out
    assert "2 sites: 2 online; 0 need somebody, 0 to watch" in out
    assert "kW now: load 20.0, generation -8.0, storage 2.0, net 14.0\n" in " \n".join(
        line.rstrip() for line in out.splitlines()
    ).replace(" \n", "\n")
    assert "\x1b" not in out, "no colour where nobody watches"


def test_one_that_is_not(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, document(plant_a=site(), plant_b=site(**NEVER)))
    assert main(["status"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("plant-b  never seen")
    assert "! the hub has never heard of it" in lines[1]
    assert any("(net of 1, load of 1 sites)" in line for line in lines)


def cells(line: str) -> list[str]:
    return re.split(r"  +", line.strip())


def test_the_verdict_of_the_meters(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plants = {
        "wrong": site(agreement=WRONG), "partly": site(agreement=PARTLY), "well": site(),
        "main": site(agreement=UNKNOWN),
    }  # fmt: skip
    ask(monkeypatch, document(**plants))
    assert main(["status"]) == 1
    out = capsys.readouterr().out
    lines = out.splitlines()
    place = cells(lines[0]).index("meters")
    rows = [cells(line) for line in lines if line.split(" ")[0] in plants]
    assert {row[0]: row[place] for row in rows} == {
        "wrong": "18.5 %", "partly": "18.5 %", "well": "ok", "main": "-",
    }  # fmt: skip
    assert f"! its meters differ by 18.5 % of the supply: {RATIO}" in " ".join(out.split())
    assert any(
        line.strip() == "last whole day: the meters of 1 site agree, of 2 differ, 1 not known"
        for line in lines
    )
    ask(monkeypatch, document(well=site(), main=site(agreement=UNKNOWN), partly=site(agreement=PARTLY)))
    assert main(["status"]) == 0, "a load without a meter needs nobody"


def test_a_hub_that_does_not_tell_it(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An older one, whose document is as good as ever."""
    old = document(plant_a=site())
    del old["sites"]["plant-a"]["agreement"], old["fleet"]["agreement"]
    check(old)
    ask(monkeypatch, old)
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "last whole day" not in out
    assert "Meters agree, last whole day" not in page.render(complete(old, {}), "0" * 64)


def test_as_json(lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ask(monkeypatch, document(plant_a=site(), plant_b=site(chain="broken")))
    assert main(["status", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    check(found)
    assert found["sites"]["plant-b"]["findings"][0]["level"] == "act"
    assert found["sites"]["plant-a"]["findings"] == []


def test_the_firmware_is_what_rollouts_have_left(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (lab / "rollouts").mkdir()
    ledger = Ledger(lab / "rollouts" / "rollouts.db")
    way = ("", "pending", "due", "transferring", "verified", "installing", "soaking", "ok")
    releases = (("one", "firmware", "2.4.0"), ("two", "firmware", "2.4.1"), ("three", "collector", "9"))
    for at, (name, kind, version) in enumerate(releases):
        begun = Step(name, "", "", "planned", "read", {"release": {"kind": kind, "version": version}})
        steps = [
            Step(name, "plant-a", old, new, "on its way", {"version": version}) for old, new in pairwise(way)
        ]
        waiting = Step(name, "plant-b", "", "pending", "planned", {"version": "2.3.9"})
        ledger.write([begun, *steps, waiting], at=at, who="anna@desk")
    ask(monkeypatch, document(plant_a=site(), plant_b=site()))
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: one["firmware"] for name, one in found["sites"].items()} == {
        "plant-a": "2.4.1",
        "plant-b": None,
    }
    assert found["fleet"]["firmwares"] == {"2.4.1": 1, "unknown": 1}


def test_some_sites(lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hub = ask(monkeypatch, document(plant_b=site()))
    assert main(["status", "--site", "plant-b", "--site", "plant-b"]) == 0
    assert hub.asked[0][1] == "plant-b\n"
    assert main(["status", "--site", "plant-x"]) == 1
    assert "wattfleet: plant-x: not in " in capsys.readouterr().err


def test_a_fleet_of_many_is_summed_up(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, document(**{f"plant_{number:03d}": site() for number in range(50)}))
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "and 20 more, none of them with something: --all" in out
    assert "plant-049" not in out
    main(["status", "--all"])
    assert "plant-049" in capsys.readouterr().out


def test_watching_goes_on_without_the_hub(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, WattfleetError("the hub is away"), document(plant_a=site()))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", wait)
    assert main(["status", "--watch", "2"]) == 0
    assert waits == [2.0, 2.0, 2.0]
    out = capsys.readouterr().out
    assert "wattfleet: the hub is away" in out
    assert out.count("1 site: 1 online") == 2


def _as_a_terminal_starts_it() -> None:
    """With the terminal as its own, and heeding Ctrl-C, which a shell has its background jobs ignore."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_watching_in_a_real_terminal(lab: Path, tmp_path: Path) -> None:
    """A process with a pseudo-terminal, `ssh` replaced by what the hub would print. Ctrl-C ends it in order."""
    figures_file, ssh = tmp_path / "figures.json", tmp_path / "bin" / "ssh"
    figures_file.write_text(json.dumps(document(plant_a=site(), plant_b=site(**NEVER))), encoding="utf-8")
    ssh.parent.mkdir()
    ssh.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {figures_file}\n", encoding="utf-8")
    ssh.chmod(0o755)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 180, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "wattfleet", "status", "--watch", "1"],
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}", "TERM": "xterm-256color"},
        preexec_fn=_as_a_terminal_starts_it,
    )  # fmt: skip
    os.close(follower)
    said = b""
    while said.count(b"1 needs somebody") < 3:
        said += os.read(leader, 65536)
    os.write(leader, b"\x03")
    # A terminal goes on reading: what nobody reads would keep the process from writing its last picture.
    deadline = time.monotonic() + 30
    with contextlib.suppress(OSError):  # nobody has the other end any more
        while time.monotonic() < deadline and select.select([leader], [], [], 30)[0]:
            said += os.read(leader, 65536)
    assert process.wait(30) == 1, said
    os.close(leader)
    assert b"Traceback" not in said
    assert b"\x1b[3" in said, "with colours"
    assert b"\x1b[1A" in said, "over itself and not below"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--watch", "0.5"], "--watch is 0.5, expected at least 1 s"),
        (["--watch", "--json"], "--watch shows a table that is asked for again and again"),
        (["--check"], "--check is about the page: name it with --html"),
        (["--figures", "/nowhere"], "/nowhere: the figures cannot be read: "),
        (["-i", "/nowhere.sites.yml"], "/nowhere.sites.yml: there is no such inventory"),
        (
            ["--lab", "other"],
            "no fleet file is named: give it with -i, or in WATTFLEET_INVENTORY; and the lab other",
        ),
    ],
)
def test_bad_input_is_one_line(
    lab: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"wattfleet: {line}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("text", "line"), [("nothing", "are not JSON"), ('{"version": 2}', "of version 1")])
def test_figures_that_are_none(text: str, line: str) -> None:
    with pytest.raises(WattfleetError, match=line):
        figures.read(text)


def test_what_goes_to_the_hub() -> None:
    """Through a real process: the names come by standard input, which has no bound."""
    hub = Hub(None, "x")
    hub._ssh = ["sh", "-c", "cat >&2; exit 3", "ssh"]
    with pytest.raises(WattfleetError, match=r"energy-hub fleet on the hub: plant-9999"):
        hub.command("fleet", given="".join(f"plant-{number}\n" for number in range(10_000)))


# The page


class Structure(HTMLParser):
    """Elements that are open, and what a page that is not well-formed has wrong."""

    VOID = frozenset({"meta", "input", "br", "img", "link", "hr"})
    # Their ends may be left out.
    OPTIONAL = frozenset({"td"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag == "td" and self.open[-1:] == ["td"]:
            self.open.pop()
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] in self.OPTIONAL and self.open[-1] != tag:
            self.open.pop()
        if self.open[-1:] == [tag]:
            self.open.pop()
        else:
            self.wrong.append(f"</{tag}> closes {self.open[-1:]}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def rendered(**sites: dict[str, Any]) -> tuple[str, Structure]:
    text = page.render(complete(document(**sites), {}), "0" * 64)
    found = Structure()
    found.feed(text)
    found.close()
    return text, found


def test_the_page_is_well_formed_and_has_its_headers() -> None:
    text, found = rendered(plant_a=site(), plant_b=site(**NEVER))
    assert (found.wrong, found.open) == ([], [])
    assert text.startswith("<!DOCTYPE html>")
    assert ("html", {"lang": "en"}) in found.seen
    assert sum(tag == "h1" for tag, _ in found.seen) == 1
    heads = [attributes.get("scope") for tag, attributes in found.seen if tag == "th"]
    assert heads
    assert set(heads) <= {"col", "row"}
    named = {attributes["id"] for _, attributes in found.seen if attributes.get("id")}
    for _, attributes in found.seen:
        for key in ("aria-labelledby", "aria-describedby", "for"):
            if attributes.get(key):
                assert attributes[key] in named
    plots = [attributes for tag, attributes in found.seen if attributes.get("role") == "img"]
    assert len(plots) == 8
    assert all(attributes["aria-label"] for attributes in plots)
    assert "2 sites, 1 needs somebody: the fleet on 2026-01-10 12:30 UTC" in text


def test_the_page_has_the_verdict_of_the_meters() -> None:
    text, found = rendered(wrong=site(agreement=WRONG), well=site(), main=site(agreement=UNKNOWN))
    assert (found.wrong, found.open) == ([], [])
    said = "".join(found.text)
    assert f"! its meters differ by 18.5 % of the supply: {RATIO}" in said
    assert "Meters agree, last whole day11 differ, 1 not known" in said
    heads = re.findall(r'<th scope="col">([^<]+)</th>', text.partition('<table id="table"')[2])
    rows = re.findall(r"<tr class=.*?</tr>", text)
    place = heads.index("Meters")
    verdicts = {
        re.split(r"<t[hd][^>]*>", row)[1].split("<")[0].strip(): re.split(r"<t[hd][^>]*>", row)[place + 1]
        for row in rows
    }
    assert verdicts == {"wrong": "18.5 %", "well": "ok", "main": "-"}


def test_the_page_fetches_nothing() -> None:
    text, found = rendered(plant_a=site())
    for _, attributes in found.seen:
        assert not {"src", "href", "action", "style", "onclick", "onload"} & attributes.keys()
    policy = next(
        one["content"] for tag, one in found.seen if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "@import" not in text
    assert "url(" not in text


def test_a_label_is_text() -> None:
    """Names of sites are strict; what a site's file calls it is not, and versions are a gateway's word."""
    text, found = rendered(plant_a=site(label=EVIL, collector=EVIL))
    plain, _ = rendered(plant_a=site())
    assert text.count("<script") == plain.count("<script")
    assert "<img" not in text
    assert "onerror=alert(2)>" not in text
    assert EVIL in "".join(found.text)
    document_of_plots = re.search(
        r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL
    )
    assert document_of_plots
    assert len(json.loads(document_of_plots[1])) == 8


def test_a_label_is_text_in_the_terminal_too(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, document(plant_a=site(collector="[bold]\x1b[2J")))
    assert main(["status"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_the_page_is_written_when_the_figures_are_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, made = tmp_path / "figures.json", tmp_path / "fleet.html"
    one = document(plant_a=site())
    told = []
    for change, arguments in (
        ({}, ["--check"]),
        ({}, []),
        ({"time": "2026-01-10T12:40:00.000Z"}, []),
        ({"sites": {"plant-a": site(delay=None)}}, ["--check"]),
        ({"sites": {"plant-a": site(delay=None)}}, []),
    ):
        given.write_text(json.dumps(one | change), encoding="utf-8")
        assert main(["status", "--figures", str(given), "--html", str(made), *arguments]) == 0
        told.append(capsys.readouterr().out)
    what = ["would write", "wrote", "unchanged", "would write", "wrote"]
    assert told == [f"{text} {made}\n" for text in what]
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".json"] == ["fleet.html"]


def test_a_page_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "figures.json"
    given.write_text(json.dumps(document(plant_a=site())), encoding="utf-8")
    for file, reason in ((tmp_path / "nowhere" / "a.html", "No such file"), (tmp_path, "Is a directory")):
        assert main(["status", "--figures", str(given), "--html", str(file)]) == 1
        assert capsys.readouterr().err.startswith(f"wattfleet: {file}: the page cannot be written: {reason}")


def test_five_thousand_sites_are_a_page_that_can_be_sent() -> None:
    text, _ = rendered(**{f"plant_{number:04d}": site() for number in range(5000)})
    assert len(text.encode()) < 2_000_000

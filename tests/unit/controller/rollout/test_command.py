# SPDX-License-Identifier: Apache-2.0
"""`wattfleet rollout` as a person uses it, over plays of Ansible that are real; the gateways are a stand-in.

Two controllers, kill -9 of a driver, and what a person does while one runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wattfleet.rollout.folder import Folder
from wattfleet.rollout.run import TURN
from wattfleet_lab.processes import children

from .stand_in import StandInFleet

pytestmark = pytest.mark.timeout(1500)
Make = Callable[..., StandInFleet]


def wait_for(what: Callable[[], Any], seconds: float = 300) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("it never happened")


def below(process: int) -> list[int]:
    """All processes below one."""
    return [one for child in children(process) for one in (child, *below(child))]


def test_two_drivers_and_kill_9(stand_in: Make) -> None:
    """The second is refused in one line; after kill -9 of the first another goes on, and nobody is flashed twice."""
    fleet = stand_in(3)
    digest = fleet.plan()
    # Long enough to be caught in the middle of it.
    fleet.does("s01", "good", slow={"transfer": 600})
    first = fleet.begin("start", "r1", "--digest", digest[:12])
    wait_for(lambda: fleet.read("s01")["asked"])

    second = fleet.run("run")
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line == (
        f"wattfleet: r1 is driven by process {first.pid} on {os.uname().nodename} already: one at a time"
    )
    status = fleet.status()
    assert (status["wave"], status["waves"], status["state"]) == (2, 2, "running")
    assert status["end"] is not None

    plays = below(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed = time.monotonic()
    # Its plays go with it, the one that hangs on s01 too.
    wait_for(lambda: not any(Path("/proc", str(one), "cmdline").exists() for one in plays), 30)
    fleet.does("s01", "good", slow={})
    again = fleet.begin("run")
    folder = Folder.of(fleet.inventory)
    wait_for(lambda: f"process {again.pid} " in (folder.path / "locks" / "r1").read_text())
    assert time.monotonic() - killed < 60, "of it are 10 s ours; the machine may be busy"
    assert again.wait(timeout=600) == 0

    ledger = folder.ledger()
    assert {record.state for record in ledger.sites("r1").values()} == {"ok"}
    assert ledger.rollout("r1").state == "done"
    assert all(len(fleet.read(name)["flashed"]) == 1 for name in fleet.names)
    assert ledger.verify() == []
    # What was measured and seen is there for the next plan.
    known = ledger.known()
    assert known["s01"]["version"] == "2.0.0"
    assert known["s01"]["rate"] > 0
    verified = fleet.run("log", "--verify", "--head", ledger.head())
    assert verified.returncode == 0
    assert "none was changed" in verified.stdout


def test_a_bad_release_stops_at_the_canary_and_what_a_person_does_then(stand_in: Make) -> None:
    fleet = stand_in(3)
    digest = fleet.plan()
    fleet.does("s00", "lies")
    done = fleet.run("start", "r1", "--digest", digest)
    assert done.returncode == 3, done.stderr
    assert "s00" in done.stdout
    assert [fleet.read(name)["asked"] for name in ("s01", "s02")] == [[], []]

    assert fleet.run("skip", "s02").returncode == 0
    assert "only a site that failed" in fleet.run("retry", "s01").stderr
    fleet.does("s00", "good", version="1.0.0")
    retried = fleet.run("retry", "s00")
    assert retried.returncode == 0
    assert "nobody drives it: wattfleet rollout run r1" in retried.stdout
    assert fleet.run("run").returncode == 0
    assert fleet.read("s00")["flashed"] == ["r1/s00/1", "r1/s00/2"]
    assert fleet.read("s02")["flashed"] == []
    lines = fleet.run("log", "--site", "s00", "--json").stdout.splitlines()
    assert [json.loads(line)["new"] for line in lines][-1] == "ok"


def test_a_person_pauses_resumes_approves_and_aborts(stand_in: Make) -> None:
    """While a driver runs: it takes up each of them within a turn."""
    fleet = stand_in(3, {"max_offline": 1})
    digest = fleet.plan()
    fleet.undecided(*fleet.names)
    driver = fleet.begin("start", "r1", "--digest", digest)
    wait_for(lambda: fleet.read("s00")["asked"])
    wait_for(lambda: fleet.status()["state"] == "holding")
    assert "s00" in fleet.status()["why"]

    assert "is holding" in fleet.run("resume").stderr
    assert fleet.run("pause").returncode == 0
    assert "is paused" in fleet.run("approve").stderr
    assert fleet.run("resume").returncode == 0
    # Nothing was decided by that: the gate is as undecided as before.
    wait_for(lambda: fleet.status()["state"] == "holding")
    assert [fleet.read(name)["asked"] for name in ("s01", "s02")] == [[], []]
    assert fleet.run("approve").returncode == 0

    # One of the two others is paused while it is installed; it is finished, and the last one is not begun.
    def flashed() -> list[str]:
        return [name for name in ("s01", "s02") if fleet.read(name)["flashed"]]

    wait_for(flashed)
    assert fleet.run("pause").returncode == 0
    fleet.undecided()
    (begun,) = flashed()
    wait_for(lambda: fleet.read(begun).get("confirmed"))
    time.sleep(3 * TURN)
    assert flashed() == [begun], "a paused rollout has begun a site"
    assert fleet.status()["state"] == "paused"
    assert driver.poll() is None

    aborted = fleet.run("abort", "--why", "the vendor took it back")
    assert aborted.returncode == 0
    assert "the vendor took it back" in aborted.stdout
    assert driver.wait(timeout=120) == 3
    assert "is halted already" in fleet.run("abort").stderr
    states = {one["site"]: one["state"] for one in fleet.status()["sites"]}
    assert (states["s00"], states[begun]) == ("ok", "ok")
    assert flashed() == [begun]
    approvals = [
        json.loads(line)["why"] for line in fleet.run("log", "--site", "s00", "--json").stdout.splitlines()
    ]
    assert any(why.startswith("approved by ") for why in approvals)


AGAIN, MAKE = "read the plan again", "make it with `wattfleet rollout plan`"
FILES = ("--image", "x", "--manifest", "y")


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> StandInFleet:
    """A fleet at which nothing is begun."""
    fleet = StandInFleet(tmp_path_factory.mktemp("still"), 2)
    fleet.plan()
    return fleet


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["start", "r1", "--digest", "0" * 12], "r1: the plan's digest is {digest}…, not 000000000000: " + AGAIN),
        (["start", "r2", "--digest", "0" * 12], "{plans}/r2.json: there is no such plan; " + MAKE),
        (["status"], "{ledger}: there is no rollout yet: make a plan with `wattfleet rollout plan`"),
        (["pause", "r9"], "there is no rollout 'r9' in {ledger}; there are: none"),
        (["plan", "R1", *FILES], 'found "R1", expected a name of up to 63 characters a-z, 0-9, ".", "_" and "-"'),
        (["plan", "r3", *FILES], "y: cannot be read: No such file or directory"),
        (["log", "--head", "1:aa"], "--head goes with --verify"),
        (["status", "-i", "nowhere.yml"], "nowhere.yml: there is no such fleet file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(still: StandInFleet, words: list[str], line: str) -> None:
    folder = Folder.of(still.inventory)
    digest = json.loads(folder.plan("r1").read_text())["digest"][:12]
    done = still.run(*words)
    assert done.returncode == 1
    told = line.format(plans=folder.path / "plans", ledger=folder.ledger_file, digest=digest)
    assert done.stderr == f"wattfleet: {told}\n"


def test_a_plan_that_was_changed_is_not_begun(still: StandInFleet) -> None:
    path = Folder.of(still.inventory).plan("r1")
    text = path.read_text()
    path.write_text(text.replace('"max_offline": 10', '"max_offline": 99'))
    done = still.run("start", "r1", "--digest", json.loads(text)["digest"])
    path.write_text(text)
    assert "was changed after it was made" in done.stderr


def test_an_image_that_is_not_the_one_that_was_planned(still: StandInFleet) -> None:
    content = still.image.read_bytes()
    digest = json.loads(Folder.of(still.inventory).plan("r1").read_text())["digest"]
    still.image.write_bytes(b"x" + content[1:])
    done = still.run("start", "r1", "--digest", digest)
    still.image.write_bytes(content)
    assert "has the SHA-256" in done.stderr


def test_the_plan_for_people_says_who_when_and_why(still: StandInFleet) -> None:
    done = subprocess.run(
        still.command(
            "plan", "r8", "--image", str(still.image), "--manifest", str(still.manifest), "--ask", "none"
        ),
        capture_output=True,
        text=True,
        check=True,
        env=still.environment,
    )
    assert "canary: the first site of ring canary that is not critical" in done.stdout
    assert "what s00, s01 run is not known: there is no taking back there" in done.stdout
    assert "begin it: wattfleet rollout start r8 --digest " in done.stdout

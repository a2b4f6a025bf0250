# SPDX-License-Identifier: Apache-2.0
"""Firmware across a fleet: a good image reaches everybody in order, a bad one nobody but its canary.

Each bad image has a part of the fleet of its own, a canary and one more site, and they are rolled out at the same
time. Beside them goes the negative control: the image that only breaks the polling, past gates that do not look at
readings. Then the good image goes to all, with its controller killed on the way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import energy_collector
import pytest
from wattfleet.paths import ROOT

from tests.fleet.fleet import Fleet
from tests.fleet.rollouts import BACK_AFTER, LIMITS, Releases, Rollout, Slots, prepare, slots, unguarded

pytestmark = [pytest.mark.rollout, pytest.mark.timeout(5400)]

FIRST = Slots("2.3.0", 0)
GOOD = "2.5.0"
# Readings of so many seconds are needed before a rollout begins: its gates compare with them.
BASELINE = 100.0
# A driver has ended so long after the last thing that it waits for, on a machine with much to do.
SLACK = 420.0


@dataclass(frozen=True)
class Bad:
    """An image, and what the ledger has to say of its canary. `writes` is how often the tool was run."""

    behaviour: str
    version: str
    state: str
    why: str
    writes: int = 1


BAD = [
    Bad("fails", "2.4.1", "failed", "write error"),
    Bad("hangs", "2.4.2", "failed", "40 s"),
    Bad("lies", "2.4.3", "failed", "2.3.0"),
    Bad("breaks-network", "2.4.4", "silent", "not heard of"),
    Bad("breaks-polling", "2.4.5", "failed", "gate: "),
]
CONTROL = "2.4.6"


@dataclass
class Parts:
    """Which sites each image is for; the first is its canary."""

    bad: dict[str, list[str]]
    control: list[str]


@pytest.fixture(scope="module")
def releases(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    if len(fleet.sites) < 2 * (len(BAD) + 1):
        pytest.skip(f"needs {2 * (len(BAD) + 1)} sites: --fleet-sites {2 * (len(BAD) + 1)}")
    models = sorted({str(site["gateway"]["model"]) for site in fleet.sites.values()})
    one = Releases(tmp_path_factory.mktemp("releases"), models)
    one.make_keys()
    return one


@pytest.fixture(scope="module")
def parts(fleet: Fleet) -> Parts:
    first = dict(list(fleet.sites.items())[: 2 * (len(BAD) + 1)])
    plain = [name for name, site in first.items() if not site.get("critical")]
    canaries, others = plain[: len(BAD) + 1], plain[len(BAD) + 1 :]
    others += [name for name in first if name not in plain]
    pairs = [list(pair) for pair in zip(canaries, others, strict=True)]
    return Parts({bad.behaviour: pair for bad, pair in zip(BAD, pairs, strict=False)}, pairs[-1])


@pytest.fixture(scope="module")
def measuring(fleet: Fleet, releases: Releases) -> Fleet:
    """The fleet in service, with a baseline of readings at the hub."""
    prepare(fleet, releases.public)
    result = fleet.play("site")
    assert result.ok, result.failures
    wait_for(lambda: delivering(fleet) == set(fleet.sites), "every site's readings at the hub", 300)
    time.sleep(BASELINE)
    return fleet


def delivering(fleet: Fleet) -> set[str]:
    """The sites from which a value came in the last half minute."""
    found = set()
    for site, state in fleet.hub.status().items():
        times = [
            newest.time.timestamp()
            for points in state.meters.values()
            for newest in points.values()
            if newest.value is not None
        ]
        if times and time.time() - max(times) < 30:
            found.add(site)
    return found


def wait_for(condition: Callable[[], object], what: str, seconds: float, every: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(every)


# ---- The bad ones, and the control beside them


@pytest.fixture(scope="module")
def tried(measuring: Fleet, releases: Releases, parts: Parts) -> dict[str, Rollout]:
    """All bad images rolled out at the same time, and the control; each is over."""
    found: dict[str, Rollout] = {}
    for bad in BAD:
        image = releases.firmware(bad.version, bad.behaviour)
        found[bad.behaviour] = Rollout(measuring, f"bad-{bad.behaviour}")
        found[bad.behaviour].begin(image, parts.bad[bad.behaviour])
    control = Rollout(measuring, "control", inventory=unguarded(measuring))
    control.begin(releases.firmware(CONTROL, "breaks-polling"), parts.control)
    found["control"] = control
    for name, rollout in found.items():
        code = rollout.end(2 * BACK_AFTER + 2 * SLACK)
        assert code == (0 if name == "control" else 3), f"{name}: {rollout.told()}"
    return found


@pytest.mark.parametrize("bad", BAD, ids=[bad.behaviour for bad in BAD])
def test_a_bad_image_stops_at_its_canary(
    measuring: Fleet, tried: dict[str, Rollout], parts: Parts, bad: Bad
) -> None:
    canary, other = parts.bad[bad.behaviour]
    states = tried[bad.behaviour].states()
    assert states[""][0] == "halted", states
    assert states[canary][0] == bad.state, states
    assert bad.why in states[canary][1], states
    assert states[other][0] in ("pending", "due", "skipped"), states
    assert slots(measuring, other) == FIRST


@pytest.mark.parametrize("bad", BAD, ids=[bad.behaviour for bad in BAD])
def test_its_canary_comes_back_by_itself(
    measuring: Fleet, tried: dict[str, Rollout], parts: Parts, bad: Bad
) -> None:
    canary = parts.bad[bad.behaviour][0]
    assert tried[bad.behaviour].process is not None
    wait_for(lambda: measuring.reachable(canary), f"{canary} answers", BACK_AFTER + SLACK)
    wait_for(
        lambda: measuring.reachable(canary) and slots(measuring, canary).version == FIRST.version,
        f"{canary} runs {FIRST.version} again",
        BACK_AFTER + SLACK,
    )
    assert slots(measuring, canary).writes == bad.writes
    wait_for(lambda: canary in delivering(measuring), f"{canary} measures again", SLACK)


def test_without_the_readings_a_bad_image_passes(
    measuring: Fleet, tried: dict[str, Rollout], parts: Parts
) -> None:
    """The negative control: what stops this image in the test above is the gate over readings, and nothing else."""
    states = tried["control"].states()
    assert states[""][0] == "done", states
    for site in parts.control:
        assert states[site][0] == "ok", states
        assert slots(measuring, site) == Slots(CONTROL, 1)
        assert site not in delivering(measuring)


def test_a_rollback_brings_back_what_ran_before(
    measuring: Fleet, tried: dict[str, Rollout], parts: Parts
) -> None:
    control = tried["control"]
    control.do("rollback", control.name)
    control.drive("run", control.name)
    assert control.end(BACK_AFTER + SLACK) == 0, control.told()
    assert control.states()[""][0] == "rolled back"
    for site in parts.control:
        assert slots(measuring, site) == Slots(FIRST.version, 1)
    wait_for(lambda: set(parts.control) <= delivering(measuring), "they measure again", SLACK)


# ---- The good one


@pytest.fixture(scope="module")
def good(measuring: Fleet, tried: dict[str, Rollout], releases: Releases) -> Rollout:
    """The good image for everybody. Its controller dies when the second wave is being installed."""
    assert tried
    wait_for(lambda: delivering(measuring) == set(measuring.sites), "everybody measures", BACK_AFTER + SLACK)
    time.sleep(BASELINE)
    rollout = Rollout(measuring, "good")
    rollout.begin(releases.firmware(GOOD), list(measuring.sites))

    def second_wave_installs() -> bool:
        # By the ledger: a gateway of the lab installs and boots between two looks at its state.
        assert rollout.process is not None
        assert rollout.process.poll() is None, rollout.told()
        return any(
            entry["site"] in rollout.waves[1] and entry["new"] == "installing" for entry in rollout.entries()
        )

    wait_for(second_wave_installs, "the second wave is installed", BACK_AFTER + SLACK, every=0.5)
    rollout.kill()
    time.sleep(5)
    rollout.drive("run", rollout.name)
    assert rollout.end(len(rollout.waves) * SLACK) == 0, rollout.told()
    return rollout


def test_a_good_image_reaches_everybody_once(
    measuring: Fleet, good: Rollout, tried: dict[str, Rollout]
) -> None:
    assert tried
    states = good.states()
    assert states.pop("")[0] == "done", states
    assert {state for state, _ in states.values()} == {"ok"}, states
    for site in measuring.sites:
        found = slots(measuring, site)
        assert found.version == GOOD, site
        # Bad images and the control have been written once where they came.
        before = 1 if any(site in rollout.waves[0] for rollout in tried.values()) else 0
        before = 1 if site in tried["control"].states() else before
        assert found.writes == before + 1, site
    assert delivering(measuring) == set(measuring.sites)


def test_it_came_in_the_order_of_the_plan(measuring: Fleet, good: Rollout) -> None:
    names = [site for wave in good.waves for site in wave]
    assert sorted(names) == sorted(measuring.sites)
    assert len(good.waves[0]) == 1
    critical = {name for name, site in measuring.sites.items() if site.get("critical")}
    assert set(names[-len(critical) :]) == critical
    for wave in good.waves:
        for name in wave:
            assert measuring.sites[name].get("redundancy_pair") not in wave
    at_risk: set[str] = set()
    wave_of = {name: number for number, wave in enumerate(good.waves) for name in wave}
    settled: set[str] = set()
    for entry in good.entries():
        site, state = entry["site"], entry["new"]
        if not site:
            continue
        if state == "installing":
            at_risk.add(site)
            earlier = {name for name in names if wave_of[name] < wave_of[site]}
            assert earlier <= settled, f"{site} before {earlier - settled}"
        if state in ("ok", "failed", "silent"):
            settled.add(site)
        if state == "ok":
            at_risk.discard(site)
        assert len(at_risk) <= int(str(LIMITS["max_offline"]))


def test_the_history_is_whole(good: Rollout) -> None:
    assert "none was changed" in good.do("log", good.name, "--verify")


# ---- The collector, by the playbook


def test_the_collector_goes_the_same_way_by_the_playbook(
    measuring: Fleet, good: Rollout, releases: Releases
) -> None:
    assert good.name
    old = energy_collector.__version__
    new = old.rpartition(".")[0] + ".99"
    image = releases.collector(ROOT / "build" / "dist" / f"energy-collector-{old}.pyz", old, new)
    sites = list(measuring.sites)[:2]
    variables = {
        "rollout": "collector",
        "rollout_image": str(image),
        "rollout_manifest": str(image.with_suffix(".json")),
        "rollout_limit": ":".join([*sites, "hub"]),
        "rollout_state_folder": str(measuring.state.inventory / "rollouts"),
    }
    planned = measuring.play("firmware", **variables)
    assert planned.ok, planned.failures
    assert running_collector(measuring, sites[0]) == old
    rollout = Rollout(measuring, "collector")
    done = measuring.play("firmware", **variables, rollout_digest=plan_digest(measuring))
    assert done.ok, done.failures
    assert {state for state, _ in rollout.states().values()} == {"done", "ok"}
    for site in sites:
        assert running_collector(measuring, site) == new
    assert running_collector(measuring, list(measuring.sites)[2]) == old
    assert set(sites) <= delivering(measuring)


def running_collector(fleet: Fleet, site: str) -> str:
    return Path(fleet.ssh(site, "readlink /opt/energy/current").strip()).name


def plan_digest(fleet: Fleet) -> str:
    text = (fleet.state.inventory / "rollouts" / "plans" / "collector.json").read_text()
    return str(json.loads(text)["digest"])

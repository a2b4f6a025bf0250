# SPDX-License-Identifier: Apache-2.0
"""What a person does to a rollout. Each returns steps for the ledger, or raises OperationError with one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.rollout.engine import BACK, FORWARD, Rollout
from wattfleet.rollout.gates import Outcome
from wattfleet.rollout.ledger import Ledger, Step
from wattfleet.rollout.model import Settings
from wattfleet.rollout.planning import Plan
from wattfleet.rollout.states import ACTIVE, OVER, SETTLED, SITE_STEPS, RolloutState, SiteState


class OperationError(WattfleetError):
    """The rollout is not in a state for this, or is not what was read; one line."""


def plan_steps(name: str, plan: Plan, files: Mapping[str, str] = {}) -> list[Step]:
    """Write a plan down. `files` is where the release's files are."""
    data: dict[str, Any] = {
        "digest": plan.digest,
        "release": asdict(plan.release),
        "settings": asdict(plan.settings),
        "waves": plan.waves,
        "files": dict(files),
        "direction": FORWARD,
        "wave": 0,
    }
    steps = [Step(name, "", "", RolloutState.PLANNED.value, f"plan {plan.digest[:12]}", data)]
    for site, why in sorted(plan.skipped.items()):
        steps.append(Step(name, site, "", SiteState.SKIPPED.value, why))
    for wave in plan.waves:
        for site in wave:
            record = {"target": plan.release.version, "attempt": 1} | plan.terms[site]
            steps.append(Step(name, site, "", SiteState.PENDING.value, "planned", record))
    return steps


def load(ledger: Ledger, name: str) -> Rollout:
    """A rollout with its sites, as the ledger has it. Raises LedgerError."""
    with ledger.reading():
        record, sites, number = ledger.rollout(name), ledger.sites(name), ledger.number
    waves = tuple(tuple(wave) for wave in record.data["waves"])
    settings = Settings(**record.data["settings"])
    pairs = {site: one.data["pair"] for site, one in sites.items() if "pair" in one.data}
    return Rollout(name, record, sites, settings, waves, pairs, number)


def start(rollout: Rollout, digest: str) -> list[Step]:
    """Begin a plan; `digest` says that it is the one that was read."""
    if rollout.state is not RolloutState.PLANNED:
        raise OperationError(f"{rollout.name} is {rollout.state.value}, and was begun before")
    if digest != rollout.record.data["digest"]:
        raise OperationError(
            f"{rollout.name}: the plan's digest is {rollout.record.data['digest']}, not {digest}: read the plan again"
        )
    return [_whole(rollout, RolloutState.RUNNING, f"plan {digest[:12]} was read and begun")]


def pause(rollout: Rollout) -> list[Step]:
    """No new dispatch; what runs is finished."""
    _needs(rollout, "pause", RolloutState.RUNNING, RolloutState.HOLDING)
    return [_whole(rollout, RolloutState.PAUSED, "paused")]


def resume(rollout: Rollout) -> list[Step]:
    """Go on after a pause."""
    _needs(rollout, "resume", RolloutState.PAUSED)
    return [_whole(rollout, RolloutState.RUNNING, "resumed")]


def approve(rollout: Rollout, who: str) -> list[Step]:
    """Let the sites pass whose gates are inconclusive."""
    _needs(rollout, "approve", RolloutState.HOLDING)
    return [
        Step(
            rollout.name,
            name,
            record.state,
            record.state,
            f"approved by {who}",
            {"approved": who, "gate": None},
        )
        for name, record in rollout.sites.items()
        if record.data.get("gate") == Outcome.INCONCLUSIVE.value
    ]


def abort(rollout: Rollout, why: str) -> list[Step]:
    """Dispatch nothing any more."""
    if rollout.state in OVER:
        raise OperationError(f"{rollout.name} is {rollout.state.value} already")
    return [_whole(rollout, RolloutState.HALTED, why)]


def retry(rollout: Rollout, site: str) -> list[Step]:
    """Give a site that failed or fell silent one more attempt."""
    record = _site(rollout, site)
    if SiteState(record.state) not in (
        SiteState.FAILED,
        SiteState.SILENT,
        SiteState.SKIPPED,
        SiteState.PARKED,
    ):
        raise OperationError(
            f"{site} is {record.state}: only a site that failed, fell silent or was skipped can be retried"
        )
    if rollout.state is RolloutState.ROLLED_BACK or not any(site in wave for wave in rollout.waves):
        raise OperationError(f"{site} has no place in {rollout.name} any more: make a new plan")
    wave = next(number for number, names in enumerate(rollout.waves) if site in names)
    steps = [
        Step(
            rollout.name, site, record.state, SiteState.DUE.value, "to be tried again",
            {"attempt": int(record.data.get("attempt", 1)) + 1, "gate": None, "approved": None},
        )
    ]  # fmt: skip
    if rollout.state in (RolloutState.HALTED, RolloutState.DONE):
        steps.append(
            _whole(rollout, RolloutState.RUNNING, f"{site} is tried again", wave=min(wave, rollout.wave))
        )
    return steps


def skip(rollout: Rollout, site: str) -> list[Step]:
    """Leave a site out. One that has been told to install cannot be left alone."""
    record = _site(rollout, site)
    if SiteState.SKIPPED not in SITE_STEPS[SiteState(record.state)]:
        raise OperationError(f"{site} is {record.state}: it cannot be left out now")
    return [Step(rollout.name, site, record.state, SiteState.SKIPPED.value, "left out", {"deadline": None})]


def rollback(rollout: Rollout) -> list[Step]:
    """Take every site back that was touched, in the order of the waves; the others are left out."""
    if rollout.direction == BACK:
        raise OperationError(f"{rollout.name} is being taken back already")
    _needs(rollout, "roll back", RolloutState.HALTED, RolloutState.DONE)
    busy = sorted(name for name, record in rollout.sites.items() if SiteState(record.state) in ACTIVE)
    if busy:
        raise OperationError(
            f"{', '.join(busy[:5])}: work is under way there; abort, wait for its end, and try again"
        )
    steps = []
    for name, record in rollout.sites.items():
        state = SiteState(record.state)
        if state in (SiteState.OK, SiteState.FAILED, SiteState.SILENT) and record.data.get("was"):
            attempt = int(record.data.get("attempt", 1)) + 1
            data = {
                "target": record.data["was"],
                "was": record.data["target"],
                "attempt": attempt,
                "gate": None,
            }
            steps.append(
                Step(rollout.name, name, record.state, SiteState.DUE.value, "to be taken back", data)
            )
        elif state not in SETTLED:
            steps.append(Step(rollout.name, name, record.state, SiteState.SKIPPED.value, "was not touched"))
        elif state in (SiteState.FAILED, SiteState.SILENT):
            # As it is, it would halt the way back as it has halted the way there.
            why = "what it ran before is not known"
            steps.append(Step(rollout.name, name, record.state, SiteState.SKIPPED.value, why))
    steps.append(_whole(rollout, RolloutState.RUNNING, "rolled back by hand", direction=BACK, wave=0))
    return steps


def _whole(rollout: Rollout, new: RolloutState, why: str, **data: Any) -> Step:
    return Step(rollout.name, "", rollout.state.value, new.value, why, data)


def _needs(rollout: Rollout, what: str, *states: RolloutState) -> None:
    if rollout.state not in states:
        names = " or ".join(state.value for state in states)
        raise OperationError(f"{rollout.name} is {rollout.state.value}: to {what}, it has to be {names}")


def _site(rollout: Rollout, site: str) -> Any:
    if site not in rollout.sites:
        raise OperationError(f"there is no site {site!r} in {rollout.name}")
    return rollout.sites[site]

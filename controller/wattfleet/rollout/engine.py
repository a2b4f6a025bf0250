# SPDX-License-Identifier: Apache-2.0
"""The head: from what the ledger says, and what was seen of the sites, to the next steps.

`decide` and `commands` are functions: no clock, no file, no host. Whoever drives them writes the steps to the
ledger first, then carries the commands out. Commands follow from the state alone, so a driver that was killed issues
them again after its restart; each names its attempt, and a gateway that has seen an attempt of an installation does
not begin it twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.ledger import Record, Step
from wattfleet.rollout.model import Settings
from wattfleet.rollout.states import ACTIVE, AT_RISK, OVER, SETTLED, RolloutState, SiteState

FORWARD, BACK = "forward", "back"


class Kind(StrEnum):
    """What was seen of a site."""

    TRANSFERRED = "transferred"  # the image is there and verified from disk
    REFUSED = "refused"  # by the gateway, before anything was changed
    BEGUN = "begun"  # the installation runs; the gateway is going to reboot
    RUNNING = "running"  # the gateway tells its version (data.version)
    CONFIRMED = "confirmed"  # the gateway has given up its way back
    FAILED = "failed"
    UNKNOWN = "unknown"  # the gateway answers, and has never heard of the attempt


@dataclass(frozen=True)
class Seen:
    """One thing that was seen of a site's attempt."""

    kind: Kind
    why: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class Action(StrEnum):
    """What a site is to be asked for."""

    TRANSFER = "transfer"
    INSTALL = "install"
    LOOK = "look"  # does it answer, and with which version?
    WATCH = "watch"  # the same, and its gate is judged
    CONFIRM = "confirm"


@dataclass(frozen=True)
class Command:
    """An action of a site. The same attempt may be asked for again at any time."""

    site: str
    action: Action
    attempt: int
    direction: str


@dataclass(frozen=True)
class Rollout:
    """A rollout as the ledger has it. `windows` is whether work may interrupt a site now, by name."""

    name: str
    record: Record
    sites: Mapping[str, Record]
    settings: Settings
    waves: tuple[tuple[str, ...], ...]
    pairs: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> RolloutState:
        return RolloutState(self.record.state)

    @property
    def direction(self) -> str:
        return str(self.record.data.get("direction", FORWARD))

    @property
    def wave(self) -> int:
        return int(self.record.data.get("wave", 0))


def target(record: Record) -> str:
    """The version that a site is to run after its attempt."""
    return str(record.data["target"])


# What to ask for.


def commands(rollout: Rollout) -> list[Command]:
    """What is to be carried out now, by the state of each site."""
    found = []
    halted = rollout.state in OVER
    for name, record in rollout.sites.items():
        action = _action(SiteState(record.state), record, halted=halted)
        if action is not None:
            attempt = int(record.data.get("attempt", 1))
            found.append(Command(name, action, attempt, rollout.direction))
    return found


def _action(state: SiteState, record: Record, *, halted: bool) -> Action | None:
    if state is SiteState.TRANSFERRING:
        return None if halted else Action.TRANSFER
    if state is SiteState.INSTALLING:
        # After a trip nothing is dispatched; whether it had been is asked.
        return Action.LOOK if halted else Action.INSTALL
    if state is SiteState.REBOOTING:
        return Action.LOOK
    if state is SiteState.SOAKING:
        return Action.CONFIRM if record.data.get("gate") == Outcome.PASS.value else Action.WATCH
    return None


# What follows.


class _Decision:
    """Collects steps on a working copy of the records, so that later ones see earlier ones. A site takes one step."""

    def __init__(self, rollout: Rollout, now: int) -> None:
        self.rollout = rollout
        self.now = now
        self.state = rollout.state
        self.data = dict(rollout.record.data)
        self.sites = {name: SiteState(record.state) for name, record in rollout.sites.items()}
        self.at_risk = sum(state in AT_RISK for state in self.sites.values())
        self.moved: set[str] = set()
        self.steps: list[Step] = []

    def site(self, name: str, new: SiteState, why: str, **data: Any) -> None:
        old = self.sites[name]
        self.steps.append(Step(self.rollout.name, name, old.value, new.value, why, data))
        self.sites[name] = new
        self.at_risk += (new in AT_RISK) - (old in AT_RISK)
        self.moved.add(name)

    def whole(self, new: RolloutState, why: str, **data: Any) -> None:
        self.steps.append(Step(self.rollout.name, "", self.state.value, new.value, why, data))
        self.state = new
        self.data.update(data)


def decide(
    rollout: Rollout,
    now: int,
    seen: Mapping[str, Seen] = {},
    verdicts: Mapping[str, Verdict] = {},
    open_windows: Iterable[str] = (),
) -> list[Step]:
    """The steps that follow at `now` (ms UTC) from what was seen of sites and from their gates' verdicts.

    `open_windows` names the sites that may be interrupted now, with time enough for an installation.
    """
    decision = _Decision(rollout, now)
    if rollout.state is RolloutState.PLANNED:
        return []
    for name, record in rollout.sites.items():
        if decision.sites[name] in ACTIVE:
            _follow(decision, name, record, seen.get(name), verdicts.get(name))
    _trip(decision)
    if decision.state is RolloutState.HALTED:
        _stop_transfers(decision)
        return decision.steps
    _hold_or_go_on(decision)
    if decision.state is RolloutState.RUNNING:
        _dispatch(decision, frozenset(open_windows))
        _close_wave(decision)
    return decision.steps


def _follow(
    decision: _Decision, name: str, record: Record, seen: Seen | None, verdict: Verdict | None
) -> None:
    """One site at which work is under way: what was seen of it, its gate, its deadline."""
    state = decision.sites[name]
    settings = decision.rollout.settings
    if seen is not None:
        if seen.kind in (Kind.FAILED, Kind.REFUSED):
            decision.site(name, SiteState.FAILED, seen.why or seen.kind.value, deadline=None, gate=None)
            return
        if _advance(decision, name, record, seen, settings):
            return
    if state is SiteState.SOAKING and seen is not None and _judge(decision, name, record, verdict):
        return
    deadline = record.data.get("deadline")
    if deadline is not None and decision.now >= deadline and name not in decision.moved:
        # In soak the deadline moves with each sign of life.
        decision.site(
            name,
            SiteState.SILENT,
            f"not heard of within its deadline while {state.value}",
            deadline=None,
            gate=None,
        )


def _advance(decision: _Decision, name: str, record: Record, seen: Seen, settings: Settings) -> bool:
    """The step that a sign of life brings; whether there was one."""
    state, now = decision.sites[name], decision.now
    if state is SiteState.TRANSFERRING and seen.kind is Kind.TRANSFERRED:
        decision.site(name, SiteState.VERIFIED, seen.why or "verified from the gateway's disk", deadline=None)
        return True
    if state is SiteState.INSTALLING:
        if seen.kind is Kind.BEGUN:
            decision.site(
                name,
                SiteState.REBOOTING,
                seen.why or "installing, and rebooting",
                deadline=_in(now, settings.reboot_deadline),
            )
            return True
        if seen.kind is Kind.UNKNOWN and decision.rollout.state in OVER:
            decision.site(
                name, SiteState.FAILED, "halted before the gateway was told to install", deadline=None
            )
            return True
    if state in (SiteState.INSTALLING, SiteState.REBOOTING) and seen.kind is Kind.RUNNING:
        version = seen.data.get("version")
        if version == target(record):
            decision.site(
                name,
                SiteState.SOAKING,
                f"runs {version}",
                deadline=_in(now, settings.reboot_deadline),
                soak_until=_in(now, settings.soak),
            )
        elif state is SiteState.REBOOTING:
            decision.site(
                name,
                SiteState.FAILED,
                f"runs {version} instead of {target(record)}: it went back by itself",
                deadline=None,
            )
        else:
            return False
        return True
    if state is SiteState.SOAKING:
        if seen.kind is Kind.CONFIRMED:
            decision.site(
                name, SiteState.OK, seen.why or "passed its gate", deadline=None, gate=None, soak_until=None
            )
            return True
        if seen.kind is Kind.RUNNING and seen.data.get("version") != target(record):
            decision.site(
                name,
                SiteState.FAILED,
                f"runs {seen.data.get('version')} instead of {target(record)}: it went back by itself",
                deadline=None,
                gate=None,
            )
            return True
    return False


def _judge(decision: _Decision, name: str, record: Record, verdict: Verdict | None) -> bool:
    """A soaking site that answers: its deadline moves on, and after the soak its gate decides."""
    now, settings = decision.now, decision.rollout.settings
    deadline = _in(now, settings.reboot_deadline)
    told = record.data.get("gate")
    if verdict is not None and verdict.outcome is Outcome.FAIL:
        decision.site(name, SiteState.FAILED, f"gate: {verdict.why}", deadline=None, gate=None)
        return True
    if verdict is not None and now >= int(record.data["soak_until"]) and told != Outcome.PASS.value:
        # `approve` lets a person decide where the readings do not.
        approved = verdict.outcome is Outcome.INCONCLUSIVE and record.data.get("approved")
        outcome = Outcome.PASS if approved else verdict.outcome
        if outcome is Outcome.INCONCLUSIVE and decision.rollout.state in OVER:
            # Nobody is going to approve it any more; the gateway, which is not confirmed, goes back by itself.
            why = (
                f"the rollout is {decision.rollout.state.value}, and its gate is inconclusive: {verdict.why}"
            )
            decision.site(name, SiteState.FAILED, why, deadline=None, gate=None)
            return True
        if outcome.value != told:
            why = f"gate: {verdict.why}" + (f"; approved by {record.data['approved']}" if approved else "")
            decision.site(name, SiteState.SOAKING, why, gate=outcome.value, deadline=deadline)
            return True
    # Written once in a while: each entry is an fsync.
    if deadline - int(record.data["deadline"]) > settings.reboot_deadline * 250:
        decision.site(name, SiteState.SOAKING, "answers", deadline=deadline)
        return True
    return False


def _trip(decision: _Decision) -> None:
    """More failures than allowed halt the rollout: in the same transaction, before anything else can be dispatched."""
    if decision.state in OVER:
        return
    bad = sorted(
        name for name, state in decision.sites.items() if state in (SiteState.FAILED, SiteState.SILENT)
    )
    allowed = decision.rollout.settings.max_failed
    canary = decision.rollout.waves[0] if decision.rollout.waves else ()
    # They count as away: once they alone fill the budget, nobody else could be installed, and nothing would be said.
    spent = len(bad) >= decision.rollout.settings.max_offline
    if len(bad) > allowed or spent or any(name in canary for name in bad):
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        most = decision.rollout.settings.max_offline
        limit = f"{allowed} are allowed, none of the canary, and fewer than max_offline ({most})"
        decision.whole(RolloutState.HALTED, f"failed or silent: {shown}; {limit}")


def _stop_transfers(decision: _Decision) -> None:
    for name, state in list(decision.sites.items()):
        if name in decision.moved:
            continue
        if state is SiteState.TRANSFERRING:
            decision.site(
                name,
                SiteState.SKIPPED,
                "the rollout was halted while its image was on the way",
                deadline=None,
            )
        elif state is SiteState.VERIFIED:
            decision.site(name, SiteState.PARKED, "the rollout was halted", deadline=None)


def _hold_or_go_on(decision: _Decision) -> None:
    undecided = sorted(
        name
        for name, record in decision.rollout.sites.items()
        if decision.sites[name] is SiteState.SOAKING
        and _gate(decision, name, record) == Outcome.INCONCLUSIVE.value
    )
    if decision.state is RolloutState.RUNNING and undecided:
        decision.whole(
            RolloutState.HOLDING,
            f"the gate of {', '.join(undecided[:5])} is inconclusive: approve, or wait for more readings",
        )
    elif decision.state is RolloutState.HOLDING and not undecided:
        decision.whole(RolloutState.RUNNING, "the gates have decided since")


def _gate(decision: _Decision, name: str, record: Record) -> Any:
    """A site's gate after this decision's own steps."""
    gate = record.data.get("gate")
    for step in decision.steps:
        if step.site == name and "gate" in step.data:
            gate = step.data["gate"]
    return gate


def _dispatch(decision: _Decision, windows: frozenset[str]) -> None:
    """Begin what may begin: the sites of the wave that is open, within window, budget and pairs."""
    rollout, settings, now = decision.rollout, decision.rollout.settings, decision.now
    wave = rollout.waves[rollout.wave] if rollout.wave < len(rollout.waves) else ()
    for name in wave:
        if name in decision.moved or name not in decision.sites:
            continue
        state = decision.sites[name]
        pair = rollout.pairs.get(name)
        if state in (SiteState.DUE, SiteState.PARKED, SiteState.VERIFIED) and _is_bad(decision, pair):
            # It would wait for ever, since the two are never at risk together.
            decision.site(
                name, SiteState.SKIPPED, f"{pair}, which stands in for it, is not well", deadline=None
            )
        elif state is SiteState.PENDING:
            decision.site(name, SiteState.DUE, f"wave {rollout.wave + 1} has begun")
        elif state is SiteState.DUE:
            decision.site(
                name,
                SiteState.TRANSFERRING,
                "its turn",
                deadline=_in(now, settings.transfer_deadline),
                # A baseline is from before; a second attempt has the one of the first.
                touched=rollout.sites[name].data.get("touched", now),
            )
        elif state is SiteState.PARKED and name in windows:
            decision.site(name, SiteState.DUE, "its window is open")
        elif state is SiteState.VERIFIED:
            if name not in windows:
                decision.site(name, SiteState.PARKED, "waits for its maintenance window")
            elif decision.at_risk < settings.max_offline and not _pair_at_risk(decision, name):
                decision.site(
                    name,
                    SiteState.INSTALLING,
                    "told to install",
                    deadline=_in(now, settings.install_deadline),
                )


def _is_bad(decision: _Decision, name: str | None) -> bool:
    return name is not None and decision.sites.get(name) in (SiteState.FAILED, SiteState.SILENT)


def _pair_at_risk(decision: _Decision, name: str) -> bool:
    pair = decision.rollout.pairs.get(name)
    return pair is not None and decision.sites.get(pair) in AT_RISK


def _close_wave(decision: _Decision) -> None:
    """The next wave, once every site of this one is settled; the end after the last."""
    rollout = decision.rollout
    wave = rollout.waves[rollout.wave] if rollout.wave < len(rollout.waves) else ()
    if any(name in decision.moved or decision.sites.get(name) not in SETTLED for name in wave):
        return
    if rollout.wave + 1 < len(rollout.waves):
        decision.whole(
            RolloutState.RUNNING,
            f"wave {rollout.wave + 1} of {len(rollout.waves)} is done",
            wave=rollout.wave + 1,
        )
    elif rollout.direction == BACK:
        decision.whole(RolloutState.ROLLED_BACK, "every site that was touched was taken back")
    else:
        decision.whole(RolloutState.DONE, "every wave is done")


def _in(now: int, seconds: float) -> int:
    return now + int(seconds * 1000)

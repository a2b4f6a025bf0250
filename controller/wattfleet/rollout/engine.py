# SPDX-License-Identifier: Apache-2.0
"""The head: from what the ledger says, and what was seen of the sites, to the next steps.

`decide` and `commands` are functions: no clock, no file, no host. Whoever drives them writes the steps to the
ledger first, then carries the commands out. Commands follow from the state alone, so a driver that was killed issues
them again after its restart; each names its attempt, and a gateway that has seen an attempt of an installation does
not begin it twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.ledger import Record, Step, after
from wattfleet.rollout.model import Settings
from wattfleet.rollout.states import ACTIVE, AT_RISK, OVER, SETTLED, RolloutState, SiteState

FORWARD, BACK = "forward", "back"
# Bytes of one execution from which on a rate is taken.
LEAST_TO_MEASURE = 65536
DAY = 86_400_000  # ms


class Kind(StrEnum):
    """What was seen of a site."""

    TRANSFERRING = "transferring"  # not whole yet (data.offset of data.length)
    TRANSFERRED = "transferred"  # the image is there and verified from disk
    REFUSED = "refused"  # by the gateway, before anything was changed
    BEGUN = "begun"  # the installation runs; the gateway is going to reboot
    RUNNING = "running"  # the gateway tells its version (data.version)
    CONFIRMED = "confirmed"  # the gateway has given up its way back
    FAILED = "failed"
    UNKNOWN = "unknown"  # the gateway answers, and has never heard of the attempt
    TROUBLE = "trouble"  # nobody was reached, or what came is no answer: told, and no sign of life


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
    """A rollout as the ledger has it.

    A turn looks at those sites only that it concerns, so the sites are also kept by their state; `advanced` brings
    that up to date by as many sites as have moved.
    """

    name: str
    record: Record
    sites: Mapping[str, Record]
    settings: Settings
    waves: tuple[tuple[str, ...], ...]
    pairs: Mapping[str, str] = field(default_factory=dict)
    number: int = 0  # of the ledger's last entry when it was read

    @property
    def state(self) -> RolloutState:
        return RolloutState(self.record.state)

    @property
    def direction(self) -> str:
        return str(self.record.data.get("direction", FORWARD))

    @property
    def wave(self) -> int:
        return int(self.record.data.get("wave", 0))

    @cached_property
    def by_state(self) -> dict[SiteState, frozenset[str]]:
        """The names of the sites in each state."""
        found: dict[SiteState, set[str]] = {state: set() for state in SiteState}
        for name, record in self.sites.items():
            found[SiteState(record.state)].add(name)
        return {state: frozenset(names) for state, names in found.items()}

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """The wave of each site, and its place in it."""
        return {
            name: (number, place) for number, wave in enumerate(self.waves) for place, name in enumerate(wave)
        }

    def names(self, states: Iterable[SiteState]) -> list[str]:
        """The sites in one of `states`, by name."""
        return sorted(frozenset().union(*(self.by_state[state] for state in states)))

    def advanced(self, steps: Iterable[Step], at: int) -> Rollout:
        """After steps of its own that were written at `at`."""
        sites, record, number = dict(self.sites), self.record, self.number
        left: dict[SiteState, set[str]] = {}
        come: dict[SiteState, set[str]] = {}
        for step in steps:
            number += 1
            if not step.site:
                record = after(record, at, step)
                continue
            sites[step.site] = after(sites.get(step.site), at, step)
            if step.old != step.new:
                if step.old:
                    come.get(SiteState(step.old), set()).discard(step.site)
                    left.setdefault(SiteState(step.old), set()).add(step.site)
                left.get(SiteState(step.new), set()).discard(step.site)
                come.setdefault(SiteState(step.new), set()).add(step.site)
        new = replace(self, record=record, sites=sites, number=number)
        # What was worked out once; a frozen dataclass keeps cached properties in its dictionary.
        new.__dict__["places"] = self.places
        new.__dict__["by_state"] = {
            state: (names - left.get(state, set())) | come[state]
            if state in come
            else names - left[state]
            if state in left
            else names
            for state, names in self.by_state.items()
        }
        return new


def target(record: Record) -> str:
    """The version that a site is to run after its attempt."""
    return str(record.data["target"])


# What to ask for.


def commands(rollout: Rollout) -> list[Command]:
    """What is to be carried out now, by the state of each site."""
    found = []
    halted = rollout.state in OVER
    for name in rollout.names(ACTIVE):
        record = rollout.sites[name]
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
    """Collects steps, so that later ones see earlier ones. A site takes one step."""

    def __init__(self, rollout: Rollout, now: int, listens_since: int) -> None:
        self.rollout = rollout
        self.now = now
        self.listens_since = listens_since
        self.state = rollout.state
        self.at_risk = sum(len(rollout.by_state[state]) for state in AT_RISK)
        self.moved: dict[str, Step] = {}
        self.steps: list[Step] = []

    def site(self, name: str, new: SiteState, why: str, **data: Any) -> None:
        record = self.rollout.sites[name]
        old = SiteState(record.state)
        if new is not old and "trouble" in record.data:
            data.setdefault("trouble", None)
        step = Step(self.rollout.name, name, old.value, new.value, why, data)
        self.steps.append(step)
        self.at_risk += (new in AT_RISK) - (old in AT_RISK)
        self.moved[name] = step

    def whole(self, new: RolloutState, why: str, **data: Any) -> None:
        self.steps.append(Step(self.rollout.name, "", self.state.value, new.value, why, data))
        self.state = new

    def state_of(self, name: str) -> SiteState:
        """A site's state after this decision's own steps."""
        step = self.moved.get(name)
        return SiteState(step.new if step else self.rollout.sites[name].state)

    def names(self, states: Collection[SiteState]) -> list[str]:
        """The sites in one of `states` after this decision's own steps, by name."""
        found = {name for name in self.rollout.names(states) if name not in self.moved}
        found.update(name for name, step in self.moved.items() if step.new in states)
        return sorted(found)


def decide(
    rollout: Rollout,
    now: int,
    seen: Mapping[str, Seen] = {},
    verdicts: Mapping[str, Verdict] = {},
    open_windows: Iterable[str] = (),
    here: Collection[str] | None = None,
    listens_since: int = 0,
) -> list[Step]:
    """The steps that follow at `now` (ms UTC) from what was seen of sites and from their gates' verdicts.

    `open_windows` names the sites that may be interrupted now, with time enough for an installation; `here` those
    that whoever asks can act on, where these are not all. `listens_since` is when whoever asks began to (ms UTC).
    """
    decision = _Decision(rollout, now, listens_since)
    if rollout.state is RolloutState.PLANNED:
        return []
    for name in rollout.names(ACTIVE):
        _follow(decision, name, rollout.sites[name], seen.get(name), verdicts.get(name))
    _trip(decision)
    if decision.state is RolloutState.HALTED:
        _stop_transfers(decision)
        return decision.steps
    _hold_or_go_on(decision)
    if decision.state is RolloutState.RUNNING:
        _dispatch(decision, frozenset(open_windows), here)
        _close_wave(decision)
    return decision.steps


def _follow(
    decision: _Decision, name: str, record: Record, seen: Seen | None, verdict: Verdict | None
) -> None:
    """One site at which work is under way: what was seen of it, its gate, its deadline."""
    state = decision.state_of(name)
    settings = decision.rollout.settings
    answered = seen if seen is not None and seen.kind is not Kind.TROUBLE else None
    if answered is not None:
        if answered.kind in (Kind.FAILED, Kind.REFUSED):
            why = answered.why or answered.kind.value
            decision.site(
                name, SiteState.FAILED, why, deadline=None, gate=None, version=answered.data.get("version")
            )
            return
        if _advance(decision, name, record, answered, settings):
            return
        if state is SiteState.SOAKING and _judge(decision, name, record, verdict):
            return
    deadline = _deadline(decision, state, record)
    if deadline is not None and decision.now >= deadline and name not in decision.moved:
        # In soak the deadline moves with each sign of life.
        decision.site(
            name,
            SiteState.SILENT,
            f"not heard of within its deadline while {state.value}",
            deadline=None,
            gate=None,
            version=None,
        )
    elif seen is not None:
        _note(decision, name, record, seen)


def _deadline(decision: _Decision, state: SiteState, record: Record) -> int | None:
    """When a site is silent. While nobody listened nobody was: whom a driver finds under way has as long as a restart
    takes to answer it."""
    deadline, settings = record.data.get("deadline"), decision.rollout.settings
    if deadline is None:
        return None
    allowed = {
        SiteState.TRANSFERRING: settings.transfer_deadline,
        SiteState.INSTALLING: settings.install_deadline,
    }.get(state, settings.reboot_deadline)
    if _in(decision.listens_since, allowed) <= deadline:
        return int(deadline)
    return max(int(deadline), _in(decision.listens_since, settings.reboot_deadline))


def _note(decision: _Decision, name: str, record: Record, seen: Seen) -> None:
    """What changes nothing and is worth knowing: how far a transfer is, and what keeps us from a site."""
    state = decision.state_of(name)
    if seen.kind is Kind.TROUBLE and seen.why != record.data.get("trouble"):
        decision.site(name, state, seen.why, trouble=seen.why)
    elif seen.kind is Kind.TRANSFERRING and state is SiteState.TRANSFERRING:
        offset, length = seen.data.get("offset"), seen.data.get("length")
        if offset != record.data.get("offset"):
            data = _progress(seen, record, decision.now)
            decision.site(name, state, f"{offset} of {length} bytes", **data, trouble=None)


def spent_today(record: Record, now: int) -> int:
    """Bytes that transfers have taken of the site's link since midnight (UTC)."""
    day, count = record.data.get("spent", (0, 0))
    return int(count) if day == now // DAY else 0


def _progress(seen: Seen, record: Record, now: int) -> dict[str, Any]:
    """How far a transfer is, what it has taken today, and the bytes a second that the link has carried."""
    found = {key: seen.data[key] for key in ("offset", "length") if key in seen.data}
    sent, seconds = seen.data.get("sent"), seen.data.get("seconds")
    if sent:
        found["spent"] = [now // DAY, spent_today(record, now) + sent]
    # Of a few bytes it tells the latency, not the rate.
    if sent and seconds and sent >= LEAST_TO_MEASURE:
        found["rate"] = round(sent / seconds, 1)
    return found


def _advance(decision: _Decision, name: str, record: Record, seen: Seen, settings: Settings) -> bool:
    """The step that a sign of life brings; whether there was one."""
    state, now = decision.state_of(name), decision.now
    # None where it was not asked for, or the device does not tell: that says nothing.
    version = seen.data.get("version")
    if state is SiteState.TRANSFERRING and seen.kind is Kind.TRANSFERRED:
        why = seen.why or "verified from the gateway's disk"
        decision.site(name, SiteState.VERIFIED, why, deadline=None, **_progress(seen, record, now))
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
        if version == target(record):
            decision.site(
                name,
                SiteState.SOAKING,
                f"runs {version}",
                deadline=_in(now, settings.reboot_deadline),
                soak_until=_in(now, settings.soak),
                version=version,
            )
        elif state is SiteState.REBOOTING and version is None:
            return False
        elif state is SiteState.REBOOTING:
            decision.site(
                name,
                SiteState.FAILED,
                f"runs {version} instead of {target(record)}: it went back by itself",
                deadline=None,
                version=version,
            )
        else:
            # Told again after a driver that did not hear the first answer: it has restarted since. Looked at next, it
            # says what it runs.
            decision.site(
                name,
                SiteState.REBOOTING,
                seen.why or "has installed, and restarted",
                deadline=_in(now, settings.reboot_deadline),
            )
        return True
    if state is SiteState.SOAKING:
        if seen.kind is Kind.CONFIRMED:
            decision.site(
                name, SiteState.OK, seen.why or "passed its gate", deadline=None, gate=None, soak_until=None
            )
            return True
        if seen.kind is Kind.RUNNING and version not in (None, target(record)):
            decision.site(
                name,
                SiteState.FAILED,
                f"runs {version} instead of {target(record)}: it went back by itself",
                deadline=None,
                gate=None,
                version=version,
            )
            return True
    return False


def _judge(decision: _Decision, name: str, record: Record, verdict: Verdict | None) -> bool:
    """A soaking site that answers: its deadline moves on, and after the soak its gate decides."""
    now, settings = decision.now, decision.rollout.settings
    deadline = _in(now, settings.reboot_deadline)
    told = record.data.get("gate")
    if told == Outcome.PASS.value and (verdict is None or verdict.outcome is not Outcome.FAIL):
        # It is to confirm, and nothing else that it says keeps its deadline from coming.
        return False
    if verdict is not None and verdict.outcome is Outcome.FAIL:
        # Nobody confirms it, so it is going to go back: what it runs is not known from here on.
        decision.site(name, SiteState.FAILED, f"gate: {verdict.why}", deadline=None, gate=None, version=None)
        return True
    if verdict is not None and now >= int(record.data["soak_until"]):
        # `approve` lets a person decide where the readings do not.
        approved = verdict.outcome is Outcome.INCONCLUSIVE and record.data.get("approved")
        outcome = Outcome.PASS if approved else verdict.outcome
        if outcome is Outcome.INCONCLUSIVE and decision.rollout.state in OVER:
            # Nobody is going to approve it any more; the gateway, which is not confirmed, goes back by itself.
            why = (
                f"the rollout is {decision.rollout.state.value}, and its gate is inconclusive: {verdict.why}"
            )
            decision.site(name, SiteState.FAILED, why, deadline=None, gate=None, version=None)
            return True
        is_early = now < int(record.data["soak_until"]) + settings.patience * 1000
        if outcome.value != told and not (outcome is Outcome.INCONCLUSIVE and is_early):
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
    bad = decision.names((SiteState.FAILED, SiteState.SILENT))
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
    for name in decision.rollout.names((SiteState.TRANSFERRING, SiteState.VERIFIED)):
        if name in decision.moved:
            continue
        if decision.state_of(name) is SiteState.TRANSFERRING:
            decision.site(
                name,
                SiteState.SKIPPED,
                "the rollout was halted while its image was on the way",
                deadline=None,
            )
        else:
            decision.site(name, SiteState.PARKED, "the rollout was halted", deadline=None)


def _hold_or_go_on(decision: _Decision) -> None:
    undecided = [
        name
        for name in decision.names((SiteState.SOAKING,))
        if _gate(decision, name) == Outcome.INCONCLUSIVE.value
    ]
    if decision.state is RolloutState.RUNNING and undecided:
        decision.whole(
            RolloutState.HOLDING,
            f"the gate of {', '.join(undecided[:5])} is inconclusive: approve, or wait for more readings",
        )
    elif decision.state is RolloutState.HOLDING and not undecided:
        decision.whole(RolloutState.RUNNING, "the gates have decided since")


def _gate(decision: _Decision, name: str) -> Any:
    """A site's gate after this decision's own steps."""
    step = decision.moved.get(name)
    return (
        step.data["gate"] if step and "gate" in step.data else decision.rollout.sites[name].data.get("gate")
    )


def _dispatch(decision: _Decision, windows: frozenset[str], here: Collection[str] | None) -> None:
    """Begin what may begin: the sites of the wave that is open, within window, budget and pairs."""
    rollout, settings, now = decision.rollout, decision.rollout.settings, decision.now
    for name in _waiting(rollout):
        if name in decision.moved or (here is not None and name not in here):
            continue
        state = decision.state_of(name)
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


def _waiting(rollout: Rollout) -> list[str]:
    """The sites of the open wave that are not begun, or wait for something, in their order."""
    if rollout.wave >= len(rollout.waves):
        return []
    states = (SiteState.PENDING, SiteState.DUE, SiteState.PARKED, SiteState.VERIFIED)
    wave = frozenset(rollout.waves[rollout.wave])
    return sorted(
        frozenset().union(*(wave & rollout.by_state[state] for state in states)),
        key=rollout.places.__getitem__,
    )


def _is_bad(decision: _Decision, name: str | None) -> bool:
    return name in decision.rollout.sites and decision.state_of(str(name)) in (
        SiteState.FAILED,
        SiteState.SILENT,
    )


def _pair_at_risk(decision: _Decision, name: str) -> bool:
    pair = decision.rollout.pairs.get(name)
    return pair in decision.rollout.sites and decision.state_of(str(pair)) in AT_RISK


def _close_wave(decision: _Decision) -> None:
    """The next wave, once every site of this one is settled; the end after the last."""
    rollout = decision.rollout
    wave = rollout.waves[rollout.wave] if rollout.wave < len(rollout.waves) else ()
    settled = frozenset().union(*(rollout.by_state[state] for state in SETTLED))
    if decision.moved.keys() & set(wave) or not settled.issuperset(wave):
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

# SPDX-License-Identifier: Apache-2.0
"""A fleet in virtual time that behaves as gateways do: it keeps what it was told over a restart of the controller.

What a gateway does with a release is its `Behaviour`. The fleet counts every flash: nobody is flashed twice unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from wattfleet.rollout.engine import Action, Command, Kind, Rollout, Seen
from wattfleet.rollout.gates import Outcome, Verdict


class Behaviour(Enum):
    """What happens to a gateway that gets the release."""

    GOOD = "good"
    REFUSES = "refuses"  # the manifest, before anything is changed
    FAILS = "fails"  # firmware-update ends with an error
    HANGS = "hangs"  # it never ends
    REVERTS = "reverts"  # it boots the old version
    DIES = "dies"  # it never comes back
    BREAKS_POLLING = "breaks polling"  # it comes back, and measures nothing
    QUIET = "quiet"  # it comes back, and too little is measured to tell
    LOST_LINK = "lost link"  # nothing is heard of it from the transfer on


TRANSFER, INSTALL, REBOOT = 60_000, 40_000, 30_000  # ms


@dataclass
class Gateway:
    """One gateway. Times are ms; `flashed` holds (attempt, direction) of every flash."""

    version: str
    behaviour: Behaviour = Behaviour.GOOD
    flashed: list[tuple[int, str]] = field(default_factory=list)
    confirmed: bool = True
    transfer_begun: int | None = None
    install_begun: int | None = None
    target: str = ""
    # Struck by a fault: whatever it is asked for ends with an error; nothing is heard of it for a while, or for good;
    # what it does never ends.
    errors: bool = False
    away_from: int | None = None
    away_until: int | None = None
    hangs: bool = False

    def is_dark(self, now: int) -> bool:
        return (
            self.away_from is not None
            and now >= self.away_from
            and (self.away_until is None or now < self.away_until)
        )

    @property
    def is_away(self) -> bool:
        """From the flash until the version is confirmed nobody knows that it is well."""
        return self.install_begun is not None and not self.confirmed


class SimulatedFleet:
    """All gateways, and the arm that reaches them. `now` is set by whoever turns the driver."""

    def __init__(self, gateways: dict[str, Gateway]) -> None:
        self.gateways = gateways
        self.now = 0
        self.closed: set[str] = set()
        self.most_away = 0
        self.dispatched: list[tuple[int, Command]] = []
        self._asked: list[Command] = []
        self._rollout: Rollout | None = None

    # The arm.

    def carry_out(self, rollout: Rollout, wanted: Iterable[Command]) -> None:
        self._asked = list(wanted)
        self._rollout = rollout
        for command in self._asked:
            gateway = self.gateways[command.site]
            if command.action is Action.TRANSFER:
                gateway.transfer_begun = (
                    self.now if gateway.transfer_begun is None else gateway.transfer_begun
                )
                self.dispatched.append((self.now, command))
            elif command.action is Action.INSTALL:
                self._install(gateway, command, str(rollout.sites[command.site].data["target"]))
                self.dispatched.append((self.now, command))
            elif (
                command.action is Action.CONFIRM
                and self._answers(gateway)
                and gateway.version == gateway.target
            ):
                gateway.confirmed = True
        away = sum(one.is_away for one in self.gateways.values())
        self.most_away = max(self.most_away, away)

    def seen(self) -> Mapping[str, Seen]:
        found = {}
        for command in self._asked:
            gateway = self.gateways[command.site]
            one = self._look(gateway, command)
            if one is not None:
                found[command.site] = one
        return found

    def verdicts(self, rollout: Rollout, names: Iterable[str]) -> Mapping[str, Verdict]:
        found = {}
        for name in names:
            behaviour = self.gateways[name].behaviour
            forward = rollout.direction == "forward"
            if behaviour is Behaviour.BREAKS_POLLING and forward:
                found[name] = Verdict(Outcome.FAIL, "readings 0, at least 58 is right")
            elif (behaviour is Behaviour.QUIET and forward) or self.gateways[name].is_dark(self.now):
                found[name] = Verdict(Outcome.INCONCLUSIVE, "readings: 12 samples")
            else:
                found[name] = Verdict(Outcome.PASS, "4 of 4 checks passed")
        return found

    def open_windows(self, rollout: Rollout, now: int) -> Iterable[str]:
        return [name for name in rollout.sites if name not in self.closed]

    # The gateways.

    def _install(self, gateway: Gateway, command: Command, target: str) -> None:
        attempt = (command.attempt, command.direction)
        if attempt in gateway.flashed:
            return  # it has been told before: the gateway keeps the attempt on its disk
        bad = command.direction == "forward"
        if (gateway.behaviour is Behaviour.LOST_LINK and bad) or gateway.is_dark(self.now) or gateway.errors:
            return
        gateway.flashed.append(attempt)
        gateway.install_begun, gateway.confirmed, gateway.target = self.now, False, target

    def _answers(self, gateway: Gateway) -> bool:
        if gateway.behaviour is Behaviour.LOST_LINK or gateway.is_dark(self.now):
            return False
        if gateway.install_begun is None or gateway.confirmed:
            return True
        if gateway.behaviour in (Behaviour.DIES, Behaviour.HANGS):
            return self.now < gateway.install_begun + INSTALL
        return not INSTALL <= self.now - gateway.install_begun < INSTALL + REBOOT

    @staticmethod
    def _stuck(gateway: Gateway, command: Command) -> Seen:
        """It answers, and what it does never ends."""
        if command.action is Action.TRANSFER:
            return Seen(Kind.TRANSFERRING, data={"offset": 1, "length": 2})
        if command.action in (Action.WATCH, Action.CONFIRM):
            return Seen(Kind.RUNNING, data={"version": gateway.version})
        return Seen(Kind.BEGUN if gateway.flashed else Kind.UNKNOWN)

    def _look(self, gateway: Gateway, command: Command) -> Seen | None:
        bad = command.direction == "forward"
        if gateway.is_dark(self.now):
            return Seen(Kind.TROUBLE, "unreachable: no route to host")
        if not self._answers(gateway):
            return None
        if gateway.hangs:
            return self._stuck(gateway, command)
        if gateway.errors:
            gateway.confirmed = True
            return Seen(Kind.FAILED, "an error")
        if command.action is Action.TRANSFER:
            if gateway.behaviour is Behaviour.REFUSES and bad:
                return Seen(Kind.REFUSED, "the signature of the manifest is not by two keys")
            begun = gateway.transfer_begun
            return Seen(Kind.TRANSFERRED) if begun is not None and self.now >= begun + TRANSFER else None
        if (command.attempt, command.direction) not in gateway.flashed:
            return Seen(Kind.UNKNOWN) if command.action in (Action.INSTALL, Action.LOOK) else None
        assert gateway.install_begun is not None
        passed = self.now - gateway.install_begun
        if passed < INSTALL:
            return Seen(Kind.BEGUN)
        if gateway.behaviour is Behaviour.FAILS and bad:
            gateway.confirmed = True
            return Seen(Kind.FAILED, "firmware-update ended with 1: no space on slot B")
        if passed >= INSTALL + REBOOT:
            if gateway.behaviour is Behaviour.REVERTS and bad:
                gateway.confirmed = True
            else:
                gateway.version = gateway.target
        if command.action is Action.CONFIRM and gateway.confirmed:
            return Seen(Kind.CONFIRMED, "the way back was given up")
        if command.action is Action.INSTALL:
            # Told again, a gateway says how far it is, and not what it runs.
            return Seen(Kind.RUNNING)
        return Seen(Kind.RUNNING, data={"version": gateway.version})

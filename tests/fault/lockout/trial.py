# SPDX-License-Identifier: Apache-2.0
"""One round: a change, its deaths, and what has become of the host."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from wattfleet_lab.errors import LabError

from tests.fault.lockout import judge
from tests.fault.lockout.deaths import ARMED, RESTORING, STARTED, Death
from tests.fault.lockout.host import LabHost
from tests.fault.lockout.judge import Look, Outcome
from tests.fault.lockout.plan import Round
from tests.fault.lockout.play import Play
from tests.fault.lockout.site import Site
from tests.fault.lockout.view import GuardView

# s; what a site may need beyond the wait.
GRACE = 30.0
# s; how much longer a site is watched that is not back: late is one thing, lost another.
LAST_CHANCE = 60.0
# s without any event after which a round is taken to be over. A module whose controller died may still be at work.
QUIET = 3.0
# s; a play that arms nothing has ended by then, also on a busy machine.
LONGEST_PLAY = 150.0
TICK = 0.1


class Trial:
    """One round on one host."""

    def __init__(
        self,
        host: LabHost,
        site: Site,
        planned: Round,
        wait: float,
        folder: Path,
        *,
        last_chance: float = LAST_CHANCE,
    ) -> None:
        self._last_chance = last_chance
        self.host = host
        self.site = site
        self.planned = planned
        self.wait = wait
        self.folder = folder
        self.view = GuardView(host)
        self.change = planned.change(site)
        self.deaths = planned.deaths(wait)
        self.outcome = Outcome(
            planned.number,
            planned.seed,
            host.name,
            planned.kind,
            self.change.text,
            [str(death) for death in self.deaths],
            wait=wait,
        )
        self._moments: dict[str, float] = {}
        self._waiting = list(self.deaths)
        self._dark_until: float | None = None
        self._boots = 0
        # Since when nothing has happened, and since when the deadline runs.
        self._last_event = 0.0
        self._counted_from = 0.0
        self._nm_stopped = False

    def run(self) -> Outcome:
        """Play the round to its end. LabError when the host was broken before it began."""
        started = time.time()
        if self.view.pending:
            raise LabError(
                f"{self.host.name}: a change is pending before round {self.planned.number} has begun"
            )
        before = self.host.look()
        known = self.view.settled()
        self._boots = int(self.host.power["boots"])
        self._play = Play(self.host.lab.state, self.host.name, [self.change.task(self.wait)], self.folder)
        try:
            self._play.start()
            self._event(STARTED)
            self._watch(before)
            survived = not self._play.killed
            result = self._play.result()
            guard = (result or {}).get("guard") or {}
            self.outcome.reported = str(guard.get("outcome", "")) if survived else ""
            self.outcome.recorded = [
                outcome for change, outcome in self.view.settled().items() if change not in known
            ]
            judge.verdict(self.outcome, self.change, survived, self._play.ok)
        finally:
            self._play.close()
        self.outcome.seconds = round(time.time() - started, 1)
        if self.outcome.failure:
            self.outcome.findings.append(f"play: {self._play.words()}")
            (self.folder / "journal.log").write_text(self.host.journal(started))
        elif self.outcome.state == judge.KEPT and self.change.keep:
            self.change.keep(self.site)
        return self.outcome

    def _watch(self, before: Look) -> None:
        """Until all is over and the host is as it was or as it was wanted, or until it is too late for that."""
        checked = 0.0
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            self._follow(now)
            self._strike(now)
            if self._quiet(now) and self._waiting:
                self._strike_the_rest()
            elif self._at_rest() and now - checked > 1.0:
                checked = now
                if self._is_back(before) and self._quiet(now) and not self._waiting:
                    return
            late = self._too_late(now)
            if late > self._last_chance:
                self._give_up(before)
                return

    def _is_back(self, before: Look) -> bool:
        """Whether somebody gets in and finds the host in one of the two states; notes when that was first so."""
        if self.outcome.returned is not None and not self._play.ended:
            return True
        self.outcome.state = judge.NEITHER
        if not self.host.lets_in():
            return False
        reached = time.monotonic()
        try:
            self.outcome.state, _ = self._state(before)
        except (LabError, subprocess.TimeoutExpired):
            return False
        if self.outcome.state == judge.NEITHER:
            return False
        if self.outcome.armed and self.outcome.returned is None:
            # It was so when the look began; how long that took is this machine's affair.
            self.outcome.returned = round(reached - self._counted_from, 2)
            if (late := self._too_late(reached)) > 0:
                self.outcome.fail("late", f"back {late:.1f} s after the deadline")
        return True

    def _give_up(self, before: Look) -> None:
        if not self._play.ended:
            self.outcome.fail("wrong", "the play has not ended")
        if not self.host.lets_in():
            self.outcome.fail("lost", f"no new connection {GRACE + self._last_chance:.0f} s after the wait")
        if self.host.power["state"] != "running":
            self.outcome.fail("lost", f"the lab says: {self.host.power['state']}: {self.host.power['error']}")
        if self.view.pending:
            self.outcome.fail("inexact", f"still pending: {self.view.phase}")
        try:
            self.outcome.state, found = self._state(before)
        except (LabError, subprocess.TimeoutExpired) as error:
            found = [str(error)]
        for line in found:
            self.outcome.fail("inexact", line)

    def _state(self, before: Look) -> tuple[str, list[str]]:
        kept = list(self.view.settled().values())[-1:] == ["confirmed"]
        if self._nm_stopped and (kept or not self.change.guards_network):
            # Somebody stopped it, and the guard had nothing to undo there: it is for them to start it.
            self.host.exec("systemctl", "start", "NetworkManager.service")
            self.host.exec("nm-online", "--quiet", "--timeout=20")
        return judge.state(self.change, before, self.host.look())

    def _event(self, moment: str = "") -> None:
        self._last_event = time.monotonic()
        if moment:
            self._moments.setdefault(moment, self._last_event)

    def _follow(self, now: float) -> None:
        """Notice what has happened on the host and on the controller."""
        if ARMED not in self._moments and self.view.pending:
            self._event(ARMED)
            self.outcome.armed = True
            self._counted_from = now
            self.outcome.wait = float(self.view.change().get("wait", self.wait))
        if (
            RESTORING not in self._moments
            and ARMED in self._moments
            and self.view.phase in ("failed", "restoring")
        ):
            self._event(RESTORING)
        if not self._play.ended or self.view.pending:
            self._last_event = now
        if self._dark_until is not None and now >= self._dark_until:
            self._dark_until = None
            self.host.start()
            self._event()
        if any(death.power for death in self.deaths):
            boots = int(self.host.power["boots"])
            if boots != self._boots:
                self._boots = boots
                self._counted_from = now
                self.outcome.returned = None
                self._event()

    def _strike(self, now: float) -> None:
        for death in list(self._waiting):
            moment = self._moments.get(death.moment)
            if moment is not None and now >= moment + death.delay:
                self._die(death)

    def _strike_the_rest(self) -> None:
        """Those whose time has not come when all is over: what is settled has to stay so."""
        for death in list(self._waiting):
            if death.moment == RESTORING:
                self._waiting.remove(death)
            else:
                self._die(death)

    def _die(self, death: Death) -> None:
        self._waiting.remove(death)
        if not death.strike(self.host, self._play):
            self.outcome.deaths.remove(str(death))
            return
        self._nm_stopped = self._nm_stopped or death.what == "nm-stopped"
        if death.what == "cut":
            self._dark_until = time.monotonic() + death.dark
        if death.power:
            self.outcome.returned = None
            # Counts from when it runs again; until then there is nothing to be late for.
            self._counted_from = time.monotonic()
        self._event()

    def _at_rest(self) -> bool:
        """Nothing is pending, and the host has power."""
        if self.view.pending or self._dark_until is not None:
            return False
        if not self.outcome.armed and not self._play.ended:
            return False
        return not any(death.power for death in self.deaths) or self.host.power["state"] == "running"

    def _quiet(self, now: float) -> bool:
        """The play has ended, too, and nothing has happened for a while."""
        return self._play.ended and self._at_rest() and now - self._last_event > QUIET

    def _too_late(self, now: float) -> float:
        """Seconds since the deadline; negative before it."""
        if self.outcome.armed:
            return now - self._counted_from - self.outcome.wait - GRACE
        return now - self._moments[STARTED] - LONGEST_PLAY

# SPDX-License-Identifier: Apache-2.0
"""The campaign: many rounds on several hosts at once."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from wattfleet.paths import BUILD
from wattfleet_lab.errors import LabError
from wattfleet_lab.lab import Lab

from tests.fault.lockout import controls, plan
from tests.fault.lockout.host import LabHost
from tests.fault.lockout.plan import Round
from tests.fault.lockout.report import LockoutReport, describe
from tests.fault.lockout.site import Site, prepare, prepare_hub
from tests.fault.lockout.trial import Trial

NAME = "lockout"
# Every fifth change is a good one, so that 300 are bad.
ROUNDS = 375
HOSTS = 8
# s; as short as a busy machine allows. A site's own is 60 s and more.
WAIT = 20.0
SETTLED = 60.0


class Campaign:
    """A lab of its own with a hub and some sites. Round k always meets host k modulo the number of hosts."""

    def __init__(self, hosts: int = HOSTS, wait: float = WAIT, minutes: float = 0, lab: str = NAME) -> None:
        self.lab = Lab(lab)
        self.wait = wait
        # After so many no round begins any more; 0 for all of them.
        self.minutes = minutes
        self.count = hosts
        self.folder = BUILD / "faults" / lab
        self._said = threading.Lock()

    @contextmanager
    def lab_up(self) -> Iterator[None]:
        """The lab with its hub; all of it is gone afterwards."""
        self.lab.down(now=True)
        shutil.rmtree(self.folder, ignore_errors=True)  # there is none the first time
        try:
            hub = LabHost(self.lab, "hub")
            hub.add()
            prepare_hub(hub)
            yield
        finally:
            self.lab.down(now=True)

    def new_site(self, number: int) -> tuple[LabHost, Site]:
        """A new host, prepared: flat and routed sites in turn."""
        host = LabHost(self.lab, f"site-{number}")
        host.add()
        return host, self._prepare(host, routed=number % 2 == 0)

    def _prepare(self, host: LabHost, routed: bool) -> Site:
        plan = self.lab.plan()
        site = prepare(host, str(plan.controller), str(plan.hub), routed)
        deadline = time.monotonic() + SETTLED
        while not host.lets_in():
            if time.monotonic() > deadline:
                raise LabError(f"{host.name}: does not answer SSH once it is prepared")
            time.sleep(0.5)
        return site

    def run(self, rounds: Sequence[Round], name: str, seed: int, taken_away: str = "") -> LockoutReport:
        """All rounds, spread over the hosts. `taken_away` names one of `controls.TAKEN`."""
        report = LockoutReport(name, seed, self.count, self.wait)
        started = time.monotonic()
        with self.lab_up(), ThreadPoolExecutor(self.count) as pool:
            done = [
                pool.submit(self._work, number, rounds, report, taken_away)
                for number in range(1, self.count + 1)
            ]
            for one in done:
                one.result()
        report.outcomes.sort(key=lambda outcome: outcome.number)
        report.seconds = time.monotonic() - started
        return report

    def _work(self, number: int, rounds: Sequence[Round], report: LockoutReport, taken_away: str) -> None:
        started = time.monotonic()
        host, site = self.new_site(number)
        for planned in rounds:
            if planned.number % self.count != number % self.count:
                continue
            if self.minutes and time.monotonic() - started > self.minutes * 60:
                break
            if taken_away:
                controls.take_away(host, taken_away)
            trial = Trial(host, site, planned, self.wait, self.folder / str(planned.number))
            try:
                outcome = trial.run()
            except (LabError, OSError, subprocess.SubprocessError) as error:
                outcome = trial.outcome
                outcome.fail("lost", f"the round broke off: {error}")
            with self._said:
                report.outcomes.append(outcome)
                print(f"    {describe(outcome)}", flush=True)
                if outcome.failure:
                    print(f"    journal and play: {trial.folder}", flush=True)
            if outcome.failure:
                site = self._recover(host, site)

    def _recover(self, host: LabHost, site: Site) -> Site:
        """What nobody could do on a real site: from the console, and if that is not enough, with a new machine."""
        if controls.recover(host):
            print(f"    {host.name}: recovered from its console", flush=True)
        host.remake()
        return self._prepare(host, site.routed)


def new_seed() -> int:
    return random.SystemRandom().randrange(10**6)


def run(
    rounds: int = ROUNDS,
    seed: int | None = None,
    hosts: int = HOSTS,
    only: Sequence[int] = (),
    minutes: float = 0,
) -> LockoutReport:
    """The campaign at full size, or the rounds of it whose numbers are in `only`."""
    seed = new_seed() if seed is None else seed
    print(f"    seed {seed}, {rounds} rounds on {hosts} hosts", flush=True)
    planned = [one for one in plan.rounds(seed, rounds) if not only or one.number in only]
    return Campaign(hosts, minutes=minutes).run(planned, NAME, seed)


def control(seed: int | None = None) -> bool:
    """Take one half of the protection away after the other; whether the campaign has turned red each time."""
    seed = new_seed() if seed is None else seed
    red = True
    for what in controls.TAKEN:
        planned = controls.rounds(what, seed)
        print(f"    without the {what}: seed {seed}", flush=True)
        report = Campaign(len(planned), lab=f"{NAME}-control").run(
            planned, f"{NAME}-without-{what}", seed, taken_away=what
        )
        report.write()
        lost = report.counts()["sites_lost"]
        print(f"    {lost} of {len(planned)} sites lost: {'red, as it has to be' if lost else 'GREEN'}")
        red = red and lost == len(planned)
    return red

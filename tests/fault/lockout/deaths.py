# SPDX-License-Identifier: Apache-2.0
"""What dies during a change, and when."""

from __future__ import annotations

import contextlib
import random
import subprocess
from dataclasses import dataclass

from wattfleet_lab.errors import LabError

from tests.fault.lockout.host import LabHost
from tests.fault.lockout.play import Play

SINGLE = ("session", "controller", "nm-killed", "nm-stopped", "cut", "reboot")
# Moments of a run: after the play's start, after the change is armed, and after the restore has begun.
STARTED, ARMED, RESTORING = "started", "armed", "restoring"

# s; a play's length up to the change, the time in which a change is applied and confirmed, and that of a restore.
BEFORE, APPLYING, UNDOING = 7.0, 3.0, 2.0
# s without power.
DARK = (0.3, 4.0)

# A stop is a command, so it counts only where the guard has something to undo and the daemon runs: what somebody
# stops when a change ends, after that, or before the daemon was started at boot, stays stopped until they start it.
# The host itself looks, before the stop and a second after it.
STOP_WHILE_PENDING = """
test -d /var/lib/energy-guard/pending || exit 0
systemctl --quiet is-active NetworkManager.service || exit 0
systemctl --no-block stop NetworkManager.service
sleep 1
if test -d /var/lib/energy-guard/pending; then echo stopped; else systemctl --no-block start NetworkManager.service; fi
"""


@dataclass(frozen=True)
class Death:
    """`what` dies `delay` seconds after `moment`; a host that was cut is off for `dark` seconds."""

    what: str
    moment: str
    delay: float
    dark: float = 0.0

    def __str__(self) -> str:
        return f"{self.what} {self.delay:.2f} s after {self.moment}"

    @property
    def power(self) -> bool:
        return self.what in ("cut", "reboot")

    def strike(self, host: LabHost, play: Play) -> bool:
        """Do it, and say whether there was anything to stop. The host may be down already: then it dies of that."""
        with contextlib.suppress(LabError, subprocess.TimeoutExpired):
            match self.what:
                case "session":
                    play.kill_sessions()
                case "controller":
                    play.kill()
                case "timer":
                    # With the one that restarts the host much later.
                    host.exec("systemctl", "stop", "energy-guard-restore.timer", "energy-guard-reboot.timer")
                case "nm-killed":
                    host.exec("systemctl", "kill", "--signal=KILL", "NetworkManager.service")
                case "nm-stopped":
                    return "stopped" in host.exec("sh", "-c", STOP_WHILE_PENDING)
                case "cut":
                    host.cut()
                case "reboot":
                    host.reboot()
        return True


def choose(name: str, rng: random.Random, wait: float) -> list[Death]:
    """The deaths that go by `name`: one of `NAMES`."""
    if name == "none":
        return []
    if name == "two":
        first, second = rng.sample(SINGLE, 2)
        return [_death(first, rng, wait), _death(second, rng, wait)]
    if name == "cut-in-restore":
        first = rng.choice(["controller", "session"])
        return [
            Death(first, ARMED, rng.uniform(0, APPLYING)),
            Death("cut", RESTORING, rng.uniform(0, UNDOING), rng.uniform(*DARK)),
        ]
    return [_death(name, rng, wait)]


def _death(what: str, rng: random.Random, wait: float) -> Death:
    moment, longest = rng.choices(
        [(STARTED, BEFORE), (ARMED, APPLYING), (ARMED, wait + UNDOING)], weights=[2, 5, 3]
    )[0]
    if what == "nm-stopped" and moment == STARTED:
        # What was stopped before the guard had looked is nothing that it has to bring back.
        moment, longest = ARMED, APPLYING
    # Most of what can go wrong is near the beginning: the square root of the time is uniform.
    delay = longest * rng.random() ** 2 if moment == ARMED else longest * rng.random()
    return Death(what, moment, delay, rng.uniform(*DARK) if what == "cut" else 0.0)


NAMES = ("none", *SINGLE, "two", "cut-in-restore")

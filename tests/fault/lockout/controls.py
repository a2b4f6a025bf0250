# SPDX-License-Identifier: Apache-2.0
"""The protection taken away, from outside the guard: then the campaign has to turn red."""

from __future__ import annotations

import random
import subprocess
import time

from wattfleet_lab.errors import LabError

from tests.fault.lockout.deaths import ARMED, Death
from tests.fault.lockout.host import LabHost
from tests.fault.lockout.plan import Round

# s after which a host that is being recovered counts as beyond it.
RECOVERY = 20.0
PROGRAM = "/usr/local/lib/energy-guard/energy-guard.pyz"

# The unit is there and enabled, and never runs. A timer that was armed before the cut is gone with it.
_NO_BOOT = """set -eu
mkdir -p /etc/systemd/system/energy-guard-boot.service.d
cat > /etc/systemd/system/energy-guard-boot.service.d/control.conf <<'EOF'
[Unit]
ConditionPathExists=/nonexistent
EOF
systemctl daemon-reload
"""

# The timer is stopped once it is armed, as one of the deaths: a guard whose timer cannot be armed changes nothing.
TAKEN = ("timer", "boot")


def take_away(host: LabHost, what: str) -> None:
    if what == "boot":
        host.exec("sh", "-s", stdin=_NO_BOOT)


def recover(host: LabHost) -> bool:
    """Undo what waits from the host's console, as the guard's page tells a person to; whether that was enough."""
    try:
        if host.power["state"] != "running":
            return False
        host.exec("rm", "-rf", "/etc/systemd/system/energy-guard-boot.service.d")
        host.exec("systemctl", "daemon-reload")
        host.exec("python3", PROGRAM, "restore", "--now")
    except (LabError, subprocess.TimeoutExpired):
        return False
    deadline = time.monotonic() + RECOVERY
    while not host.lets_in():
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def rounds(what: str, seed: int) -> list[Round]:
    """Changes that cut the operator off for good, and a death that what was taken away would have helped against."""
    rng = random.Random(seed)
    kinds = {
        "timer": ("wrong-address", "drop-everything", "deleted-profile", "new-refused"),
        "boot": ("wrong-address", "wrong-gateway", "deleted-profile", "wrong-prefix"),
    }
    planned = []
    for number, kind in enumerate(kinds[what], 1):
        # By then the change is applied, and its controller has not yet given up.
        delay = rng.uniform(5, 12)
        deaths = [Death("timer", ARMED, 0.0), Death("controller", ARMED, delay)]
        if what == "boot":
            deaths = [Death("cut", ARMED, delay, 1.0)]
        planned.append(Round(number, f"{seed}/{number}", kind, deaths[-1].what, tuple(deaths)))
    return planned

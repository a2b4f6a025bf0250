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

# The guard believes that all is well: its timer fires, and what it starts does nothing. In /run and for this unit
# alone, so that nothing which the guard compares or installs is in its way.
_NO_TIMER = """set -eu
mkdir -p /run/systemd/system/energy-guard-restore.service.d
cat > /run/systemd/system/energy-guard-restore.service.d/control.conf <<'EOF'
[Service]
ExecStart=
ExecStart=/bin/true
Restart=no
EOF
systemctl daemon-reload
"""

# The unit is there and enabled, and never runs. A timer that was armed before the cut is gone with it.
_NO_BOOT = """set -eu
mkdir -p /etc/systemd/system/energy-guard-boot.service.d
cat > /etc/systemd/system/energy-guard-boot.service.d/control.conf <<'EOF'
[Unit]
ConditionPathExists=/nonexistent
EOF
systemctl daemon-reload
"""

TAKEN = {"timer": _NO_TIMER, "boot": _NO_BOOT}


def take_away(host: LabHost, what: str) -> None:
    host.exec("sh", "-s", stdin=TAKEN[what])


def recover(host: LabHost) -> bool:
    """Undo what waits from the host's console, as the guard's page tells a person to; whether that was enough."""
    try:
        if host.power["state"] != "running":
            return False
        for unit in ("boot", "restore"):
            host.exec(
                "rm",
                "-rf",
                *(f"/{top}/systemd/system/energy-guard-{unit}.service.d" for top in ("etc", "run")),
            )
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
        death = Death("controller", ARMED, delay) if what == "timer" else Death("cut", ARMED, delay, 1.0)
        planned.append(Round(number, f"{seed}/{number}", kind, death.what, (death,)))
    return planned

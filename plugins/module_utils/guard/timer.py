# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The timer that undoes a change. It is systemd's, so it needs no session, no controller and no process of ours.

It counts from the boot (OnBootSec=), not from its start: each `systemctl daemon-reload` would begin an OnActiveSec=
anew, and so put off the restore. It fires several times, since systemd forgets a moment that passes while it
executes itself anew.
"""

from __future__ import annotations

import re

from .errors import GuardError
from .host import Host

SERVICE = "energy-guard-restore.service"
TEXT = "Undo a change of this host that nobody confirms"
AGAIN = (0, 2, 5, 10, 20, 40, 80, 160)  # seconds after the deadline
UNITS = {
    "w": 604800,
    "d": 86400,
    "h": 3600,
    "min": 60,
    "s": 1,
    "ms": 1e-3,
    "us": 1e-6,
    "month": 2629800,
    "y": 31557600,
}


def seconds(text: str) -> float | None:
    """A time span as systemd prints it, such as '4h 2min 37.5s'."""
    parts = re.findall(r"([\d.]+)([a-z]+)", text)
    if not parts or any(unit not in UNITS for _number, unit in parts):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _boot(host: Host) -> float:
    """Where OnBootSec= counts from: 0 on a machine, the start of its systemd in a container."""
    if host.run(["systemd-detect-virt", "--quiet", "--container"]).code != 0:
        return 0.0
    done = host.run(["systemctl", "show", "--property=UserspaceTimestampMonotonic"])
    return int(done.out.partition("=")[2].strip() or 0) / 1e6


def timer_of(service: str) -> str:
    return service.replace(".service", ".timer")


def next_elapse(host: Host, service: str = SERVICE) -> float | None:
    """When the timer fires next, on the monotonic clock; None if it is not armed."""
    words = [
        "systemctl",
        "show",
        "--property=ActiveState,SubState,NextElapseUSecMonotonic",
        timer_of(service),
    ]
    found = dict(line.partition("=")[::2] for line in host.run(words).out.splitlines())
    if found.get("ActiveState") != "active" or found.get("SubState") != "waiting":
        return None
    return seconds(found.get("NextElapseUSecMonotonic", ""))


def arm(host: Host, deadline: float, service: str = SERVICE, text: str = TEXT) -> None:
    """Have systemd restore the host at a moment of the monotonic clock; nothing may be changed before this returns."""
    disarm(host, service)
    boot = _boot(host)
    done = host.run(
        [
            "systemd-run",
            "--quiet",
            f"--unit={service}",
            *(f"--on-boot={deadline - boot + later:.3f}s" for later in AGAIN),
            "--timer-property=AccuracySec=100ms",
            f"--timer-property=Description={text}",
        ]
    )
    if done.code != 0:
        raise GuardError(
            f"the timer that would undo the change could not be armed, nothing is changed: {done.words}"
        )
    fires = next_elapse(host, service)
    if fires is None or not deadline - 1 <= fires <= deadline + 2:
        disarm(host, service)
        raise GuardError(
            f"{timer_of(service)} would fire at {fires} s instead of {deadline:.1f} s after the boot, so nothing is "
            "changed"
        )


def disarm(host: Host, service: str = SERVICE) -> None:
    host.run(["systemctl", "stop", timer_of(service)])

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The timer that takes an update back: systemd's, counted from the boot, as the guard's is and for the same reasons."""

from __future__ import annotations

from ..guard import timer
from ..guard.errors import GuardError
from .host import FirmwareError, Host

SERVICE = "energy-firmware-settle.service"
TEXT = "Take back an update that nobody confirms"


def arm(host: Host, deadline: float) -> None:
    """Have systemd settle the update at a moment of the monotonic clock. Raises FirmwareError."""
    try:
        timer.arm(host, deadline, SERVICE, TEXT)
    except GuardError as error:
        raise FirmwareError(str(error)) from None


def disarm(host: Host) -> None:
    timer.disarm(host, SERVICE)


def is_armed(host: Host) -> bool:
    return timer.next_elapse(host, SERVICE) is not None

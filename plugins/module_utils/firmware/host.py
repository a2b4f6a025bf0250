# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The gateway as the firmware's program sees it: the guard's host, under another name in the journal."""

from __future__ import annotations

import os
import syslog

from ..guard import host as guard

PATH = guard.PATH
TIMED_OUT = guard.TIMED_OUT
Done = guard.Done
# Set by our units where they have limits.
LIMITED = "ENERGY_FIRMWARE_LIMITED"


class FirmwareError(Exception):
    """It cannot be done now, and one line says why. Nothing was decided: the same may be asked again."""


class Host(guard.Host):
    def is_limited(self) -> bool:
        """Whether this process has the limits of our units, and so has what it runs."""
        return LIMITED in os.environ

    def say(self, text: str, *, bad: bool = False) -> None:
        """Tell the journal."""
        syslog.openlog("energy-firmware")
        syslog.syslog(syslog.LOG_WARNING if bad else syslog.LOG_NOTICE, text)

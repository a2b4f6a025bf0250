# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next try to reach the hub."""

from __future__ import annotations

import random

FIRST = 1.0
LONGEST = 60.0


class ReconnectBackoff:
    """Doubles from a second to a minute. Half of each wait is random, so that fifty sites do not come back
    in step."""

    def __init__(self) -> None:
        self._wait = FIRST

    def next(self) -> float:
        """The wait before the next try, in s."""
        wait, self._wait = self._wait, min(self._wait * 2, LONGEST)
        return wait / 2 + random.uniform(0, wait / 2)  # noqa: S311  (spread, not secrecy)

    def reset(self) -> None:
        """The hub has been reached."""
        self._wait = FIRST

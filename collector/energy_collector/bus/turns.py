# SPDX-License-Identifier: Apache-2.0
"""Who may use the line: so many at once, in the order in which they asked."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Places on a bus. asyncio's semaphore does the same, but lets a newcomer pass those who wait on Python
    3.10."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a place."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was our turn already; the next one gets it.
                self.give()
            raise

    def give(self) -> None:
        """Leave a place: to whoever has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

# SPDX-License-Identifier: Apache-2.0
"""Which batch to send when: pure book-keeping over the batches that are under way on one connection."""

from __future__ import annotations

from dataclasses import dataclass

# Batches under way without the hub's acknowledgement. The hub commits in fractions of a second; the window
# covers a slow link.
WINDOW = 32


@dataclass
class UnderWay:
    """A batch that was sent. Times are monotonic s, `puback` is ms UTC."""

    sequence: int
    sent: float
    message: int
    puback: int | None = None


class Delivery:
    """The window of batches under way, in order of their sequences."""

    def __init__(self, resend: float) -> None:
        self._resend = resend
        self._under_way: dict[int, UnderWay] = {}
        self._by_message: dict[int, int] = {}
        # Highest sequence that was sent on this connection.
        self.cursor = 0

    def reset(self) -> None:
        """A new connection: everything is sent again. Times of PUBACK are kept until then only."""
        self._under_way.clear()
        self._by_message.clear()
        self.cursor = 0

    @property
    def room(self) -> int:
        """How many more batches may be sent now."""
        return max(WINDOW - len(self._under_way), 0)

    def overdue(self, now: float) -> list[int]:
        """Batches to be sent again."""
        return [one.sequence for one in self._under_way.values() if now - one.sent >= self._resend]

    def sent(self, sequence: int, message: int, now: float) -> None:
        """A batch was handed to the broker."""
        before = self._under_way.get(sequence)
        puback = before.puback if before else None
        if before is not None:
            self._by_message.pop(before.message, None)
        self._under_way[sequence] = UnderWay(sequence, now, message, puback)
        self._by_message[message] = sequence
        self.cursor = max(self.cursor, sequence)

    def forget(self, sequence: int) -> UnderWay | None:
        """A batch needs no more care."""
        one = self._under_way.pop(sequence, None)
        if one is not None:
            self._by_message.pop(one.message, None)
        return one

    def received(self, message: int, now: int) -> None:
        """The broker has a message."""
        sequence = self._by_message.pop(message, None)
        if sequence is not None:
            self._under_way[sequence].puback = now

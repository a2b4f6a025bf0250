# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What can go wrong, each with one clear line."""

from __future__ import annotations


class GuardError(Exception):
    """The change was not begun, and nothing of the host has been changed."""


class StepError(Exception):
    """A step of a change failed while it was applied, so the change is undone."""

    def __init__(self, step: str, words: str) -> None:
        super().__init__(f"{step}: {words}")
        self.step = step
        self.words = words


class RefusedError(Exception):
    """A confirmation that confirms nothing. `kind`: no_nonce, wrong_nonce, late, twice, nothing, early, old_connection,
    probe or boot; `outcome` is what has become of the change that it was meant for, as far as that is known."""

    def __init__(self, kind: str, message: str, outcome: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.outcome = outcome

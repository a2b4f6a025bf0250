# SPDX-License-Identifier: Apache-2.0
"""What a rollout and each of its sites can be in, and which steps lead from one to the other.

Everything that walks over states (the ledger's check, the engine, the cases of the tests) reads the tables here.
"""

from __future__ import annotations

from enum import StrEnum


class RolloutState(StrEnum):
    """Where a rollout is as a whole."""

    PLANNED = "planned"  # written down, not begun
    RUNNING = "running"
    PAUSED = "paused"  # by a person: no new dispatch, what runs is finished
    HOLDING = "holding"  # a gate was inconclusive: a person approves, or more readings decide
    HALTED = "halted"  # a gate failed or the budget is spent: nothing is dispatched any more
    DONE = "done"
    ROLLED_BACK = "rolled back"


class SiteState(StrEnum):
    """Where a site is in a rollout."""

    PENDING = "pending"  # its wave has not come
    DUE = "due"  # may be begun
    TRANSFERRING = "transferring"  # the image is on its way; the site measures as ever
    VERIFIED = "verified"  # the image lies on the gateway, checked from its disk
    INSTALLING = "installing"  # the gateway has been told to install, once for each attempt
    REBOOTING = "rebooting"
    SOAKING = "soaking"  # runs the new release, watched
    OK = "ok"
    FAILED = "failed"
    SILENT = "silent"  # not back within its deadline
    PARKED = "parked"  # waits for its next window, with what was transferred kept
    SKIPPED = "skipped"  # has the release already, or a person said so


# A site in one of these may be without readings, or is not known to be well: it counts against the budget.
AT_RISK = frozenset(
    {SiteState.INSTALLING, SiteState.REBOOTING, SiteState.SOAKING, SiteState.FAILED, SiteState.SILENT}
)
# Work is under way there, and goes on when the rollout is paused.
ACTIVE = frozenset(
    {
        SiteState.TRANSFERRING,
        SiteState.VERIFIED,
        SiteState.INSTALLING,
        SiteState.REBOOTING,
        SiteState.SOAKING,
    }
)
# Nothing more happens there by itself.
SETTLED = frozenset({SiteState.OK, SiteState.FAILED, SiteState.SILENT, SiteState.SKIPPED})
# The rollout is over, unless a person says otherwise (rollback, retry).
OVER = frozenset({RolloutState.HALTED, RolloutState.DONE, RolloutState.ROLLED_BACK})

ROLLOUT_STEPS: dict[RolloutState, frozenset[RolloutState]] = {
    RolloutState.PLANNED: frozenset({RolloutState.RUNNING, RolloutState.HALTED}),
    RolloutState.RUNNING: frozenset(
        {
            RolloutState.PAUSED,
            RolloutState.HOLDING,
            RolloutState.HALTED,
            RolloutState.DONE,
            RolloutState.ROLLED_BACK,
        }
    ),
    RolloutState.PAUSED: frozenset({RolloutState.RUNNING, RolloutState.HALTED}),
    RolloutState.HOLDING: frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED}),
    # Back to running: `rollback`, or `retry` of a site.
    RolloutState.HALTED: frozenset({RolloutState.RUNNING}),
    RolloutState.DONE: frozenset({RolloutState.RUNNING}),
    RolloutState.ROLLED_BACK: frozenset(),
}

SITE_STEPS: dict[SiteState, frozenset[SiteState]] = {
    SiteState.PENDING: frozenset({SiteState.DUE, SiteState.SKIPPED}),
    SiteState.DUE: frozenset(
        {
            SiteState.TRANSFERRING,
            SiteState.PARKED,
            SiteState.SKIPPED,
        }
    ),
    SiteState.TRANSFERRING: frozenset(
        {SiteState.VERIFIED, SiteState.PARKED, SiteState.FAILED, SiteState.SILENT, SiteState.SKIPPED}
    ),
    SiteState.VERIFIED: frozenset({SiteState.INSTALLING, SiteState.PARKED, SiteState.SKIPPED}),
    SiteState.INSTALLING: frozenset(
        {SiteState.REBOOTING, SiteState.SOAKING, SiteState.FAILED, SiteState.SILENT}
    ),
    SiteState.REBOOTING: frozenset({SiteState.SOAKING, SiteState.FAILED, SiteState.SILENT}),
    SiteState.SOAKING: frozenset({SiteState.OK, SiteState.FAILED, SiteState.SILENT}),
    SiteState.PARKED: frozenset({SiteState.DUE, SiteState.SKIPPED}),
    # `retry`, and `rollback` of what was touched.
    SiteState.OK: frozenset({SiteState.DUE}),
    SiteState.FAILED: frozenset({SiteState.DUE, SiteState.SKIPPED}),
    SiteState.SILENT: frozenset({SiteState.DUE, SiteState.SKIPPED}),
    SiteState.SKIPPED: frozenset({SiteState.DUE}),
}

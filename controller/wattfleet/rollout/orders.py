# SPDX-License-Identifier: Apache-2.0
"""From the engine's commands to what module `wattfleet.energy.firmware` is asked for, and back to what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from wattfleet.rollout.engine import BACK, Action, Command, Kind, Rollout, Seen, spent_today
from wattfleet.rollout.states import SiteState
from wattfleet.rollout.windows import has_time_for, window_of

# One execution of a transfer lasts at most so long, in s: then its progress is known, and the next site has its turn.
TRANSFER_SECONDS = 300
STEPS = {
    Action.TRANSFER: "transfer",
    Action.INSTALL: "install",
    Action.LOOK: "look",
    Action.WATCH: "look",
    Action.CONFIRM: "confirm",
}
# With less than this left of the day's bytes a transfer waits for the next day.
LEAST_BUDGET = 65536


def order_of(rollout: Rollout, command: Command, now: int) -> dict[str, Any] | None:
    """The module's options; None when the site has to wait, since its bytes of the day are used up."""
    record = rollout.sites[command.site]
    release, files = rollout.record.data["release"], rollout.record.data["files"]
    settings = rollout.settings
    step = STEPS[command.action]
    if command.direction == BACK and command.action is Action.INSTALL:
        step = "back"
    needs_files = step in ("transfer", "install")
    budget = 0
    if step == "transfer" and (most := record.data.get("transfer_budget")):
        budget = int(most) - spent_today(record, now)
        if budget < LEAST_BUDGET:
            return None
    return {
        "step": step,
        "attempt": f"{rollout.name}/{command.site}/{command.attempt}",
        "kind": release["kind"],
        "image": files["image"] if needs_files else "",
        "manifest": files["manifest"] if needs_files else "",
        "rate": int(record.data.get("transfer_rate") or 0),
        "budget": budget,
        "seconds": TRANSFER_SECONDS if step == "transfer" else 0,
        "confirm_within": settings.reboot_deadline + settings.soak + settings.patience,
    }


def needs_nobody(command: Command) -> Seen | None:
    """What is known without asking: on the way back the old release is on the gateway still."""
    if command.direction == BACK and command.action is Action.TRANSFER:
        return Seen(Kind.TRANSFERRED, "the gateway has kept what it ran before")
    return None


def seen_of(answer: Mapping[str, Any]) -> Seen:
    """What a site's answer says. One that nobody understands is trouble, and no sign of life."""
    try:
        kind = Kind(answer["kind"])
    except (KeyError, ValueError):
        return Seen(
            Kind.TROUBLE, f"error: an answer of the kind {answer.get('kind')!r}, which nobody knows here"
        )
    return Seen(kind, str(answer.get("why") or ""), dict(answer.get("data") or {}))


def open_windows(rollout: Rollout, now: int) -> list[str]:
    """Of the sites that wait in the open wave, those that may be interrupted now for as long as it takes."""
    if rollout.wave >= len(rollout.waves):
        return []
    moment = datetime.fromtimestamp(now / 1000, UTC)
    install = float(rollout.record.data["release"]["install"])
    waiting = rollout.by_state[SiteState.PARKED] | rollout.by_state[SiteState.VERIFIED]
    return [
        name
        for name in rollout.waves[rollout.wave]
        if name in waiting
        and has_time_for(window_of(rollout.sites[name].data.get("window")), moment, install)
    ]

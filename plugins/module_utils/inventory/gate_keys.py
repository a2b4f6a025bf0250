# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The keys of a fleet file that concern the gates of a rollout."""

from __future__ import annotations

from .kinds import OPTIONAL, Flag, Key, Number, Record

SAMPLES = 50
SETTLE = 60
# Settings of a check by name: default, bounds, meaning.
Settings = dict[str, tuple[float, tuple[float, float], str]]
_LEAST = "The least part of the baseline that is right."
_MARGIN: tuple[float, tuple[float, float], str] = (
    1.5,
    (1, 100),
    "How many times the baseline's share is right in any case; where little was counted, chance may bring more.",
)
_SHARE: Settings = {
    "limit": (0, (0, 1), "A share that is right whatever the baseline was."),
    "margin": _MARGIN,
}
_ERRORS: Settings = {
    "limit": (0, (0, 1000), "So many are right whatever the baseline was."),
    "margin": _MARGIN,
}
# Of each check: its title, what it looks at, and its settings.
CHECKS: dict[str, tuple[str, str, Settings]] = {
    "readings": (
        "Readings",
        "Values a second, in relation to the baseline.",
        {"limit": (0.95, (0, 1), _LEAST)},
    ),
    "meters": ("Meters", "The same of the meter that lost most.", {"limit": (0.8, (0, 1), _LEAST)}),
    "nulls": ("Nulls", "The share of readings without a value.", _SHARE),
    "uncertain": ("Uncertain", "The share of readings of uncertain quality.", _SHARE),
    "crc_errors": ("CRC errors", "Per 1,000 requests, of all buses.", _ERRORS),
    "timeouts": ("Time-outs", "Per 1,000 requests, of all buses.", _ERRORS),
    "services": ("Services", "Whether the gateway's services are active.", {}),
    "clock": (
        "Clock",
        "How far off the gateway's clock is.",
        {"limit": (5, (0.01, 3600), "Seconds that it may be off.")},
    ),
    "version": ("Version", "Whether the device itself tells the version that it was to get.", {}),
}


def gates() -> Key:
    keys = {
        "samples": Key(
            Number(1, 100_000, whole=True),
            "Fewest samples",
            "With fewer a check is inconclusive, which holds a rollout.",
            OPTIONAL,
            SAMPLES,
            (100,),
        ),
        "settle": Key(
            Number(0, 3600, "(seconds)"),
            "Time to settle",
            "Seconds after a site is back of which nothing is judged; at most a quarter of the soak.",
            OPTIONAL,
            SETTLE,
            (120,),
        ),
    }
    for name, (title, what, settings) in CHECKS.items():
        keys[name] = Key(_check(settings), title, what, OPTIONAL, examples=({"dry_run": True},))
    return Key(
        Record(keys, "a mapping of the checks of a gate"),
        "Gates",
        "What is asked of a site that runs a new release before the rollout goes on; see "
        "[gates](../explanation/gates.md).",
        OPTIONAL,
        examples=({"samples": 100, "uncertain": {"dry_run": True}},),
    )


def _check(settings: Settings) -> Record:
    keys = {
        name: Key(Number(*bounds), name.capitalize(), meaning, OPTIONAL, default, (default,))
        for name, (default, bounds, meaning) in settings.items()
    }
    keys |= {
        "enabled": Key(Flag(), "Enabled", "False switches the check off.", OPTIONAL, True, (False,)),
        "dry_run": Key(
            Flag(),
            "Dry run",
            "True to have it measured and shown, deciding nothing.",
            OPTIONAL,
            False,
            (True,),
        ),
    }
    return Record(keys, 'a mapping such as "{dry_run: true}"')

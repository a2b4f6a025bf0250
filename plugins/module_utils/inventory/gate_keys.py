# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The keys of a fleet file that concern the gates of a rollout."""

from __future__ import annotations

from .kinds import OPTIONAL, Flag, Key, Number, Record

SAMPLES = 50
SETTLE = 60
# Of each check: its title, what it looks at, and its setting with default, bounds and meaning.
_LEAST = "The least part of the baseline that is right."
_MARGIN = "How many times the baseline's share is right; what chance may bring besides is allowed for."
CHECKS = {
    "readings": (
        "Readings",
        "Values a second, in relation to the baseline.",
        ("limit", 0.95, (0, 1), _LEAST),
    ),
    "meters": ("Meters", "The same of the meter that lost most.", ("limit", 0.8, (0, 1), _LEAST)),
    "nulls": ("Nulls", "The share of readings without a value.", ("margin", 1.5, (1, 100), _MARGIN)),
    "uncertain": (
        "Uncertain",
        "The share of readings of uncertain quality.",
        ("margin", 1.5, (1, 100), _MARGIN),
    ),
    "crc_errors": ("CRC errors", "Per 1,000 requests, of all buses.", ("margin", 1.5, (1, 100), _MARGIN)),
    "timeouts": ("Time-outs", "Per 1,000 requests, of all buses.", ("margin", 1.5, (1, 100), _MARGIN)),
    "services": ("Services", "Whether the gateway's services are active.", None),
    "clock": (
        "Clock",
        "How far off the gateway's clock is.",
        ("limit", 5, (0.01, 3600), "Seconds that it may be off."),
    ),
    "version": ("Version", "Whether the device itself tells the version that it was to get.", None),
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
    for name, (title, what, setting) in CHECKS.items():
        keys[name] = Key(_check(setting), title, what, OPTIONAL, examples=({"dry_run": True},))
    return Key(
        Record(keys, "a mapping of the checks of a gate"),
        "Gates",
        "What is asked of a site that runs a new release before the rollout goes on; see "
        "[gates](../explanation/gates.md).",
        OPTIONAL,
        examples=({"samples": 100, "uncertain": {"dry_run": True}},),
    )


def _check(setting: tuple[str, float, tuple[float, float], str] | None) -> Record:
    keys = {}
    if setting is not None:
        name, default, bounds, meaning = setting
        keys[name] = Key(Number(*bounds), name.capitalize(), meaning, OPTIONAL, default, (default,))
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
    return Record(
        keys, f'a mapping such as "{{{next(iter(keys))}: {"true" if setting is None else setting[1]}}}"'
    )

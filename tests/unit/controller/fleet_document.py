# SPDX-License-Identifier: Apache-2.0
"""A document as `energy-hub fleet` prints it, of sites that are in order unless something else is said."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema

NOW = datetime(2026, 1, 10, 12, 30, tzinfo=UTC)
SCHEMA = Path(__file__).parents[3] / "docs/reference/schema/fleet-status.schema.json"
FLOWS = ("load", "generation", "storage", "net")
STATES = ("online", "late", "offline", "never seen")
HOURS = 25


def clock(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(**parts: float) -> str:
    return clock(NOW - timedelta(**parts))


SITE: dict[str, Any] = {
    "label": "Plant",
    "region": "north",
    "described": True,
    "state": "online",
    "since": ago(days=3),
    "last_reading": ago(seconds=12),
    "last_seen": ago(seconds=3),
    "delay": {"p50": 5.0, "p95": 9.0, "samples": 59},
    "completeness": {"hours": 24, "expected": 8640, "received": 8640, "missing": 0, "null": 0},
    "bus_errors": {
        "requests": 8640,
        "crc_errors": 0,
        "timeouts": 0,
        "crc_by_hour": [],
        "timeouts_by_hour": [],
    },
    "certificate": {"expires": clock(NOW + timedelta(days=200)), "days_left": 200},
    "chain": "ok",
    "collector": "0.3.0",
    "power_kw": {"load": 10.0, "generation": -4.0, "storage": 1.0, "net": 7.0},
    "energy_kwh": {"load": 100.0, "generation": -40.0, "storage": 10.0, "net": 70.0},
    "agreement": {
        "since": ago(hours=36, minutes=30),
        "until": ago(hours=12, minutes=30),
        "state": "agrees",
        "supply_kwh": 168.0,
        "parts_kwh": 167.5,
        "share": 0.0031,
        "meter": None,
        "causes": [],
    },
}
NEVER: dict[str, Any] = {
    **dict.fromkeys(("last_reading", "last_seen", "delay", "completeness", "bus_errors", "certificate")),
    **dict.fromkeys(("chain", "collector", "agreement")),
    "state": "never seen",
    "power_kw": dict.fromkeys(FLOWS),
    "energy_kwh": dict.fromkeys(FLOWS),
}


def site(**other: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SITE), **other}


def document(**sites: dict[str, Any]) -> dict[str, Any]:
    """Of these sites (with - for _ in their names), by the schema."""
    named = {name.replace("_", "-"): one for name, one in sites.items()}
    until = NOW.replace(minute=0)
    found = {
        "version": 1,
        "time": clock(NOW),
        "window": {"since": clock(until - timedelta(days=1)), "until": clock(until)},
        "fleet": {
            "sites": len(named),
            "states": {state: sum(one["state"] == state for one in named.values()) for state in STATES},
            "completeness": _sums(named, "completeness", ("expected", "received", "missing", "null")),
            "bus_errors": _sums(named, "bus_errors", ("requests", "crc_errors", "timeouts")),
            "certificate_days_least": 200,
            "collectors": {"0.3.0": len(named)},
            "power_kw": _totals(named, "power_kw"),
            "energy_kwh": _totals(named, "energy_kwh"),
            "agreement": {
                state: sum(
                    bool(one["agreement"]) and one["agreement"]["state"] == state for one in named.values()
                )
                for state in ("agrees", "differs", "unknown")
            },
        },
        "hours": {
            "start": [clock(until - timedelta(hours=HOURS - 1 - hour)) for hour in range(HOURS)],
            "sites": [len(named)] * HOURS,
            **{flow: [float(hour) for hour in range(HOURS)] for flow in FLOWS},
        },
        "sites": named,
    }
    check(found)
    return found


def check(found: object) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(found)


def _sums(sites: dict[str, Any], key: str, names: tuple[str, ...]) -> dict[str, int]:
    return {name: sum(one[key][name] for one in sites.values() if one[key]) for name in names}


def _totals(sites: dict[str, Any], key: str) -> dict[str, Any]:
    known = {flow: [one[key][flow] for one in sites.values() if one[key][flow] is not None] for flow in FLOWS}
    return {
        **{flow: sum(values) if values else None for flow, values in known.items()},
        "known": {flow: len(values) for flow, values in known.items()},
    }

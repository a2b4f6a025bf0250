# SPDX-License-Identifier: Apache-2.0
"""A plan as a file: what `plan` has shown, for `start` to take by its digest."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wattfleet.rollout.model import Release, Settings
from wattfleet.rollout.planning import Plan, PlanError, PlannedSite

FORMAT = 1
# Of a digest that somebody types.
LEAST_DIGITS = 12
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class PlanFile:
    """A plan with what it is called, and where the release's files are."""

    name: str
    plan: Plan
    files: dict[str, str]
    made: datetime


def check_name(name: str) -> str:
    """Raises PlanError; a name is part of file names and of each attempt's."""
    if not NAME.fullmatch(name):
        raise PlanError(f'found "{name}", expected a name of up to 63 characters a-z, 0-9, ".", "_" and "-"')
    return name


def save(path: Path, one: PlanFile) -> None:
    document = {
        "format": FORMAT,
        "name": one.name,
        "digest": one.plan.digest,
        "made": one.made.isoformat(),
        "files": one.files,
        "plan": asdict(one.plan),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, default=datetime.isoformat) + "\n", encoding="utf-8")


def load(path: Path) -> PlanFile:
    """Raises PlanError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        plan = _plan(document["plan"])
        found = PlanFile(
            document["name"], plan, dict(document["files"]), datetime.fromisoformat(document["made"])
        )
    except FileNotFoundError:
        raise PlanError(f"{path}: there is no such plan; make it with `wattfleet rollout plan`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{path}: not a plan: {error}") from None
    if plan.digest != document.get("digest"):
        raise PlanError(f"{path}: was changed after it was made: make the plan again")
    return found


def check_digest(one: PlanFile, given: str) -> None:
    """Raises PlanError unless `given` is the plan's digest, or at least its first 12 digits."""
    if len(given) < LEAST_DIGITS or not one.plan.digest.startswith(given.lower()):
        raise PlanError(
            f"{one.name}: the plan's digest is {one.plan.digest[:LEAST_DIGITS]}…, not {given}: read the plan again"
        )


def _plan(data: dict[str, Any]) -> Plan:
    release = {**data["release"], "models": tuple(data["release"]["models"])}
    times = ("begin", "install", "end")
    return Plan(
        Release(**release),
        Settings(**data["settings"]),
        tuple(tuple(wave) for wave in data["waves"]),
        data["skipped"],
        data["terms"],
        tuple(
            PlannedSite(**{**one, **{key: datetime.fromisoformat(one[key]) for key in times}})
            for one in data["sites"]
        ),
        data.get("doubts", {}),  # older plans have none
    )

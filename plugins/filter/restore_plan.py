# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Which backup a cluster is restored from, by what the repository says."""

from __future__ import annotations

import datetime as dt
import typing as t

DOCUMENTATION = r"""
name: restore_plan
short_description: Choose the backup that a point in time is restored from
version_added: 0.3.0
description:
  - Chooses among what C(pgbackrest info --output=json) tells of a stanza, and says in one line why there is none.
  - A backup counts only where it lies on the way to the timeline that is restored. pgBackRest takes the newest one
    before the time, and PostgreSQL then refuses to start where an earlier restore has left that one behind.
options:
  _input:
    description: The stanza, as C(pgbackrest info --output=json) describes it; empty for one that is not there.
    type: dict
    required: true
  to:
    description: A time with its offset, in ISO 8601, or V(latest).
    type: str
    required: true
  now:
    description: The controller's time in seconds since 1970.
    type: float
    required: true
  timeline:
    description: Timeline to be restored, V(0) for the newest.
    type: int
    default: 0
  history:
    description: The content of that timeline's history file, empty for the first timeline.
    type: str
    default: ""
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Choose
  ansible.builtin.set_fact:
    plan: "{{ stanza | wattfleet.energy.restore_plan('2026-11-29 06:00:00+00', now().timestamp()) }}"
"""

RETURN = r"""
_value:
  description:
    - C(problem), empty where there is none; C(set), the label of the backup; C(repo), the number of its repository;
      C(type) and C(target) as pgBackRest has them; C(timeline); C(size), the bytes of the cluster; C(earliest), the
      first time that can be restored.
  type: dict
  sample:
    problem: ""
    set: 20261129-013000F
    repo: 1
    type: time
    target: 2026-11-29 06:00:00.000000+00
    timeline: 2
    size: 23025326
    earliest: "2026-11-01T01:30:12Z"
"""


def restore_plan(
    stanza: t.Mapping[str, t.Any], to: str, now: float, timeline: int = 0, history: str = ""
) -> dict[str, t.Any]:
    """The plan; `problem` says why there is none."""
    plan: dict[str, t.Any] = dict.fromkeys(("problem", "set", "type", "target", "earliest"), "")
    plan |= {"timeline": timeline or newest_timeline(stanza), "size": 0, "repo": 0}
    try:
        moment = None if to == "latest" else _moment(to)
        chosen, earliest = _choose(stanza, moment, now, plan["timeline"], history)
    except ValueError as error:
        return plan | {"problem": str(error)}
    return plan | {
        "set": chosen["label"],
        "repo": chosen["database"]["repo-key"],
        "type": "default" if moment is None else "time",
        "target": "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S.%f}+00",
        "size": chosen["info"]["size"],
        "earliest": _text(earliest),
    }


def newest_timeline(stanza: t.Mapping[str, t.Any]) -> int:
    """By the last segment of the archive, and 1 for an empty one."""
    newest = [one["max"] for one in stanza.get("archive", []) if one.get("max")]
    return int(newest[-1][:8], 16) if newest else 1


def _moment(to: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(to.strip())
    except ValueError:
        raise ValueError(f"{to!r} is no time; write it as 2026-11-29 06:00:00+00, or say latest") from None
    if moment.tzinfo is None:
        raise ValueError(f"{to!r} has no offset from UTC; write it as 2026-11-29 06:00:00+00")
    return moment.astimezone(dt.timezone.utc)


def _choose(
    stanza: t.Mapping[str, t.Any], moment: dt.datetime | None, now: float, timeline: int, history: str
) -> tuple[t.Mapping[str, t.Any], float]:
    """The backup, and the earliest time that any could be restored to. Raises ValueError."""
    forks = _forks(history)
    database = stanza["db"][-1]["id"] if stanza.get("db") else 0
    usable = sorted(
        (
            one
            for one in stanza.get("backup", [])
            if not one.get("error")
            and one["database"]["id"] == database
            and _is_on_the_way(one, timeline, forks)
        ),
        # Of two that are as new, the one of the first repository is the last one here.
        key=lambda one: (one["timestamp"]["stop"], -one["database"]["repo-key"]),
    )
    if not usable:
        name = stanza.get("name", "this cluster")
        raise ValueError(f"the repository has no backup of {name} that leads to timeline {timeline}")
    earliest = usable[0]["timestamp"]["stop"]
    if moment is None:
        return usable[-1], earliest
    between = f"possible is from {_text(earliest)}, when the oldest backup was complete, to {_text(now)}, which is now"
    if moment.timestamp() > now:
        raise ValueError(f"{_text(moment.timestamp())} has not come yet: {between}")
    before = [one for one in usable if one["timestamp"]["stop"] <= moment.timestamp()]
    if not before:
        raise ValueError(f"there is no backup from before {_text(moment.timestamp())}: {between}")
    return before[-1], earliest


def _forks(history: str) -> dict[int, int]:
    """timeline -> where the next one left it, from lines as `1<tab>0/3000148<tab>reason`."""
    found = {}
    for line in history.splitlines():
        parts = line.split()
        if len(parts) >= 2 and parts[0].isdigit():
            found[int(parts[0])] = _position(parts[1])
    return found


def _is_on_the_way(backup: t.Mapping[str, t.Any], timeline: int, forks: t.Mapping[int, int]) -> bool:
    own = int(backup["archive"]["start"][:8], 16)
    if own == timeline:
        return True
    return own in forks and _position(backup["lsn"]["stop"]) <= forks[own]


def _position(text: str) -> int:
    """A place in the write-ahead log, `high/low`."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def _text(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(seconds, dt.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"restore_plan": restore_plan}

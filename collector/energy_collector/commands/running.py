# SPDX-License-Identifier: Apache-2.0
"""What only the running gateway can tell or do: status, counters, reload."""

from __future__ import annotations

import argparse
import json
from typing import Any

from energy_collector import config, control
from energy_collector.commands import FAILED, OK, complain
from energy_collector.commands.table import table


def status(options: argparse.Namespace) -> int:
    """How the buses, the meters and the buffer are."""
    answer = _ask(options, {"op": "status"})
    if answer is None:
        return FAILED
    if options.json:
        print(json.dumps(answer, indent=2))
        return OK
    print(f"site {answer['site']}, version {answer['version']}, running since {answer['started']}")
    buses = [(one["name"], "yes" if one["connected"] else "no", one["last_error"]) for one in answer["buses"]]
    print("\n" + table(("bus", "connected", "last error"), buses))
    radios = [
        (one["name"], one["type"], "yes" if one["connected"] else "no", one["last_error"])
        for one in answer.get("radios", ())
    ]
    if radios:
        print("\n" + table(("radio", "type", "connected", "last error"), radios))
    meters = [
        (
            one["name"],
            one["bus"],
            one["unit"],
            one["profile"],
            one["last_success"],
            one["consecutive_failures"],
            one["last_error"],
        )
        for one in answer["meters"]
    ]
    head = ("meter", "bus", "unit", "profile", "last success", "failures", "last error")
    print("\n" + table(head, meters, right=[2, 5]))
    print("\n" + table(("buffer", ""), answer["buffer"].items()))
    return OK


def counters(options: argparse.Namespace) -> int:
    """Requests, answers and errors since the start, by bus and meter."""
    answer = _ask(options, {"op": "counters"})
    if answer is None:
        return FAILED
    if options.json:
        print(json.dumps(answer, indent=2))
        return OK
    for kind in ("buses", "radios", "meters"):
        if kind not in answer:
            continue
        counted: dict[str, dict[str, int]] = answer[kind]
        names = [name.replace("_", " ") for name in next(iter(counted.values()), {})]
        rows = [(name, *one.values()) for name, one in counted.items()]
        print(
            table((kind, *names), rows, right=range(1, len(names) + 1)),
            end="\n" if kind == "meters" else "\n\n",
        )
    return OK


def reload(options: argparse.Namespace) -> int:
    """Have the running gateway read its configuration again; it refuses one with a fault."""
    answer = _ask(options, {"op": "reload"})
    if answer is None:
        return FAILED
    changed = ", ".join(answer["changed"]) or "nothing"
    print(f"changed: {changed}{'; the service starts anew' if answer['restarts'] else ''}")
    return OK


def _ask(options: argparse.Namespace, request: dict[str, Any]) -> dict[str, Any] | None:
    answer = control.ask(config.load(options.config).control_socket, request)
    if not answer["ok"]:
        complain(f"{answer['error']}. Likely cause: {answer['cause']}")
        return None
    return answer

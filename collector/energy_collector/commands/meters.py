# SPDX-License-Identifier: Apache-2.0
"""Asking meters now: probe, read, run --once."""

from __future__ import annotations

import argparse
import json
from typing import Any

from energy_collector import config
from energy_collector.commands import FAILED, OK, complain
from energy_collector.commands.asking import ask
from energy_collector.commands.table import table


def probe(options: argparse.Namespace) -> int:
    """Whether every meter answers, with the likely cause where one does not."""
    settings = config.load(options.config)
    found = []
    answers = ask(settings, ({"op": "read_meter", "meter": meter.name} for meter in settings.all_meters))
    for meter, answer in zip(settings.all_meters, answers, strict=True):
        place, where = _place(meter)
        verdict: dict[str, Any] = {"meter": meter.name, **place, "profile": meter.profile, "ok": answer["ok"]}
        if answer["ok"]:
            good = sum(one["value"] is not None for one in answer["readings"])
            verdict |= {"points": len(answer["readings"]), "with_value": good}
            line = f"ok      {where}: {good} of {len(answer['readings'])} points have a value"
        else:
            verdict |= {"error": answer["error"], "cause": answer["cause"]}
            line = f"FAILED  {where}: {answer['error']}. Likely cause: {answer['cause']}"
        found.append(verdict)
        if not options.json:
            # At once: a silent meter takes its time, and somebody is waiting.
            print(line, flush=True)
    if options.json:
        print(json.dumps(found, indent=2))
    return OK if all(one["ok"] for one in found) else FAILED


def _place(meter: config.MeterConfig | config.RadioMeterConfig) -> tuple[dict[str, Any], str]:
    """Where a meter is, for programs and for people."""
    if isinstance(meter, config.RadioMeterConfig):
        return (
            {"radio": meter.radio, "device": meter.device},
            f"{meter.name}: radio {meter.radio}, {meter.device}, {meter.profile}",
        )
    return (
        {"bus": meter.bus, "unit": meter.unit},
        f"{meter.name}: bus {meter.bus}, unit {meter.unit}, {meter.profile}",
    )


def read(options: argparse.Namespace) -> int:
    """All points of one meter."""
    (answer,) = ask(config.load(options.config), [{"op": "read_meter", "meter": options.meter}])
    if not answer["ok"]:
        complain(f"{answer['error']}. Likely cause: {answer['cause']}")
        return FAILED
    _show([answer], as_json=options.json)
    return OK


def run_once(options: argparse.Namespace) -> int:
    """All points of all meters."""
    settings = config.load(options.config)
    good = []
    failed = False
    answers = ask(settings, ({"op": "read_meter", "meter": meter.name} for meter in settings.all_meters))
    for meter, answer in zip(settings.all_meters, answers, strict=True):
        if answer["ok"]:
            good.append(answer)
        else:
            failed = True
            complain(f"{meter.name}: {answer['error']}. Likely cause: {answer['cause']}")
    _show(good, as_json=options.json)
    return FAILED if failed else OK


def _show(answers: list[dict[str, Any]], *, as_json: bool) -> None:
    rows = [{"time": answer["time"], **one} for answer in answers for one in answer["readings"]]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    cells = [
        (
            one["time"],
            one["point"],
            None if one["value"] is None else f"{one['value']:.10g}",
            one["unit"],
            one["quality"],
        )
        for one in rows
    ]
    print(table(("time", "point", "value", "unit", "quality"), cells, right=[2]))

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Faults of a site file in what concerns its meters' statistics, dates and calibrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from .findings import Finding, Steps, text_at
from .kinds import unknown_word


def findings(site: Mapping[str, Any]) -> Iterator[Finding]:
    """Faults of the reporting intervals, of the meters' dates and of the calibrations."""
    meters = site.get("meters")
    named = []
    for index, meter in enumerate(meters if isinstance(meters, list) else ()):
        if isinstance(meter, dict):
            yield from _report(meter, index, site.get("interval"))
            yield from _exists(text_at(meter, "since"), ("meters", index, "since"))
            named.append(meter.get("name"))
    mapping = site.get("device_mapping")
    known = [name for name in named if isinstance(name, str)]
    for point, entries in mapping.items() if isinstance(mapping, dict) else ():
        meter_name = str(point).partition("/")[0]
        if len(known) == len(named) and meter_name not in known:
            wrong = unknown_word(meter_name, known, "one of the site's meters")
            yield Finding(("device_mapping", point), wrong)
        yield from _ascending(entries, point)


def _report(meter: Mapping[str, Any], index: int, site_interval: object) -> Iterator[Finding]:
    report, interval = meter.get("report"), meter.get("interval", site_interval)
    if isinstance(report, int | float) and isinstance(interval, int | float):
        count = report / interval
        if round(count) < 1 or abs(count - round(count)) > 1e-6:
            yield Finding(
                ("meters", index, "report"),
                f"found {report}, expected a multiple of the polling interval, {interval} s",
            )
    if meter.get("raw") is not None and report is None:
        yield Finding(
            ("meters", index, "raw"),
            "found without report, expected both: without report every sample travels",
        )


def _ascending(entries: object, point: str) -> Iterator[Finding]:
    before = ""
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        moment = text_at(entry, "from")
        if moment is not None:
            yield from _exists(moment, ("device_mapping", point, index, "from"))
            if moment <= before:
                yield Finding(
                    ("device_mapping", point, index, "from"),
                    f'found "{moment}", expected a time after "{before}"',
                )
            before = moment


def _exists(moment: str | None, steps: Steps) -> Iterator[Finding]:
    """The form alone lets the 30th of February through."""
    if moment is not None:
        try:
            datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007  (nothing is made of it)
        except ValueError:
            yield Finding(steps, f'found "{moment}", expected a day and a time that exist')

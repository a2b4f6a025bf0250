# SPDX-License-Identifier: Apache-2.0
"""The fleet as one page: a file that fetches nothing, with tables for everything and plots by uPlot."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wattfleet.errors import WattfleetError
from wattfleet.status import judge
from wattfleet.status.judge import moment
from wattfleet.status.table import UNKNOWN, kilo

HERE = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "page.html.j2", "page.css", "page.js"
PLOTS, PLOTS_STYLE = Path("uplot/uPlot.iife.min.js"), Path("uplot/uPlot.min.css")
DIGEST = re.compile(r'<meta name="figures-digest" content="([0-9a-f]{64})">')
FLOWS = ("load", "generation", "storage", "net")
STATES = ("online", "late", "offline", "never seen")
# More versions than this are no plot any more.
MOST_BARS = 12
NOT_KNOWN = "n/a"
# Laid out at first where scripts run; page.css has the same number.
MOST_ROWS = 200


@dataclass(frozen=True)
class Series:
    """`dash` tells lines apart without their colours."""

    name: str
    values: Sequence[float | None]
    dash: Sequence[int] = ()


@dataclass(frozen=True)
class Plot:
    """`labels` are the places of bars; lines have `times` in seconds since 1970. `unit` is what is plotted."""

    key: str
    title: str
    unit: str
    series: Sequence[Series]
    labels: Sequence[str]
    times: Sequence[float] = ()

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """The same as a table."""
        return [
            (label, [_number(series.values[place]) for series in self.series])
            for place, label in enumerate(self.labels)
        ]


def write(document: Mapping[str, Any], file: Path, *, check: bool = False) -> bool:
    """Whether the page that is there shows other figures, and so was written (with `check`: would be).

    The time of the figures alone is no difference, or every run would be one. Raises WattfleetError.
    """
    digest = digest_of(document)
    try:
        if _is_there(file, digest):
            return False
        if not check:
            new = file.with_name(f".{file.name}.new")
            new.write_text(render(document, digest), encoding="utf-8")
            new.replace(file)
    except OSError as error:
        raise WattfleetError(f"{file}: the page cannot be written: {error.strerror}") from None
    return True


def _is_there(file: Path, digest: str) -> bool:
    try:
        here = DIGEST.search(file.read_text(encoding="utf-8", errors="replace")[:4096])
    except FileNotFoundError:
        return False
    return here is not None and here[1] == digest


def digest_of(document: Mapping[str, Any]) -> str:
    """Of all that the page shows but the time, and of how it shows it."""
    figures = {key: value for key, value in document.items() if key != "time"}
    hashed = hashlib.sha256(json.dumps(figures, sort_keys=True, separators=(",", ":")).encode())
    for name in (TEMPLATE, STYLE, SCRIPT, PLOTS, PLOTS_STYLE):
        hashed.update((HERE / name).read_bytes())
    hashed.update(Path(__file__).read_bytes())
    return hashed.hexdigest()


def render(document: Mapping[str, Any], digest: str) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    styles = [_text(PLOTS_STYLE), _text(STYLE)]
    scripts = [_text(PLOTS), _text(SCRIPT)]
    plots = _plots(document)
    ordered = judge.worst_first(document["sites"])
    return environment.get_template(TEMPLATE).render(
        digest=digest,
        policy=_policy(styles, scripts),
        # Ours, and hashed: the only texts that are not escaped. Neither holds the end of its element.
        styles=styles,
        scripts=scripts,
        time=_clock(document["time"]),
        window=[_clock(document["window"][end]) for end in ("since", "until")],
        fleet=document["fleet"],
        agreed=document["fleet"].get("agreement"),
        states=STATES,
        complete=_complete(document["fleet"]["completeness"]),
        need=sum(judge.needs_somebody(site) for site in document["sites"].values()),
        flows=[(name, *_total(document, name)) for name in FLOWS],
        plots=plots,
        drawn=[asdict(plot) for plot in plots],
        most_rows=MOST_ROWS,
        rows=[_row(name, site) for name, site in ordered],
    )


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Nothing is fetched, and nothing runs but what is hashed here."""

    def hashes(texts: Sequence[str]) -> str:
        found = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        return " ".join(f"'sha256-{one}'" for one in found)

    return (
        f"default-src 'none'; style-src {hashes(styles)}; script-src {hashes(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(name: str | Path) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    assert "</s" not in text.lower(), f"{name} would end its own element"
    return text


# What is plotted


def _plots(document: Mapping[str, Any]) -> list[Plot]:
    hours, sites, fleet = document["hours"], document["sites"].values(), document["fleet"]
    times = [datetime.fromisoformat(start) for start in hours["start"]]
    labels = [f"{time:%d %b %H:%M}" for time in times]
    seconds = [time.timestamp() for time in times]
    dashes: dict[str, Sequence[int]] = {
        "load": (),
        "generation": (8, 4),
        "storage": (2, 3),
        "net": (12, 3, 2, 3),
    }
    return [
        Plot(
            "flow",
            "Load, generation, storage and net of the fleet, mean of each hour",
            "kW",
            [Series(name, hours[name], dashes[name]) for name in FLOWS],
            labels,
            seconds,
        ),
        _bars("states", "Sites by state", {state: fleet["states"][state] for state in STATES}),
        _steps(
            "delay",
            "Sites by delivery delay (p95 of the last hour)",
            sites,
            lambda site: site["delay"]["p95"] if site["delay"] else None,
            [
                ("≤ 5 s", 5),
                ("≤ 15 s", 15),
                ("≤ 60 s", 60),
                ("≤ 5 min", 300),
                ("≤ 10 min", 600),
                ("more", float("inf")),
            ],
        ),
        _steps(
            "complete",
            "Sites by missing readings (24 h)",
            sites,
            lambda site: (
                None
                if judge.complete(site["completeness"]) is None
                else site["completeness"]["missing"] / site["completeness"]["expected"]
            ),
            [
                ("none", 0),
                ("≤ 0.1 %", 0.001),
                ("≤ 1 %", 0.01),
                ("≤ 5 %", 0.05),
                ("≤ 50 %", 0.5),
                ("more", float("inf")),
            ],
        ),
        Plot(
            "errors",
            "CRC errors and time-outs of all buses, hour by hour",
            "errors",
            [
                Series("CRC errors", _by_hour(sites, "crc_by_hour", len(times))),
                Series("time-outs", _by_hour(sites, "timeouts_by_hour", len(times)), (6, 4)),
            ],
            labels,
            seconds,
        ),
        _steps(
            "certificates",
            "Sites by days that their certificate is good for",
            sites,
            lambda site: site["certificate"]["days_left"] if site["certificate"] else None,
            [
                ("ended", -1),
                ("< 30", 29),
                ("< 90", 89),
                ("< 180", 179),
                ("< 365", 364),
                ("more", float("inf")),
            ],
        ),
        _bars("firmware", "Sites by firmware", fleet["firmwares"]),
        _bars("collector", "Sites by version of the collector", fleet["collectors"]),
    ]


def _bars(key: str, title: str, counted: Mapping[str, int]) -> Plot:
    largest = (
        sorted(counted.items(), key=lambda one: -one[1])
        if len(counted) > MOST_BARS
        else list(counted.items())
    )
    shown = dict(largest[:MOST_BARS])
    if len(largest) > MOST_BARS:
        shown["others"] = sum(count for _, count in largest[MOST_BARS:])
    return Plot(key, title, "sites", [Series("sites", list(shown.values()))], list(shown))


def _steps(
    key: str,
    title: str,
    sites: Any,
    value: Callable[[Mapping[str, Any]], float | None],
    steps: Sequence[tuple[str, float]],
) -> Plot:
    """Sites counted by the first step that their value is not above."""
    counted: Counter[str] = Counter()
    for site in sites:
        found = value(site)
        counted[NOT_KNOWN if found is None else next(name for name, limit in steps if found <= limit)] += 1
    return _bars(key, title, {name: counted[name] for name in (*(name for name, _ in steps), NOT_KNOWN)})


def _by_hour(sites: Any, name: str, hours: int) -> list[int]:
    total = [0] * hours
    for site in sites:
        for hour, count in enumerate(site["bus_errors"][name] if site["bus_errors"] else ()):
            total[hour] += count
    return total


# What the table has


def _row(name: str, site: Mapping[str, Any]) -> dict[str, Any]:
    errors, power, energy = site["bus_errors"], site["power_kw"], site["energy_kwh"]
    part = judge.complete(site["completeness"])
    level = "act" if judge.needs_somebody(site) else "watch" if site["findings"] else "well"
    return {
        "name": name,
        "label": site["label"] if site["label"] != name else None,
        "level": level,
        "state": site["state"],
        "since": _clock(site["since"]),
        "findings": site["findings"],
        "cells": [
            _clock(site["last_reading"]),
            f"{site['delay']['p50']:.0f}" if site["delay"] else UNKNOWN,
            f"{site['delay']['p95']:.0f}" if site["delay"] else UNKNOWN,
            UNKNOWN if part is None else f"{part:.1f}",
            str(site["completeness"]["missing"]) if site["completeness"] else UNKNOWN,
            str(site["completeness"]["null"]) if site["completeness"] else UNKNOWN,
            str(errors["crc_errors"]) if errors else UNKNOWN,
            str(errors["timeouts"]) if errors else UNKNOWN,
            str(site["certificate"]["days_left"]) if site["certificate"] else UNKNOWN,
            judge.agreement(site) or UNKNOWN,
            site["collector"] or UNKNOWN,
            site["firmware"] or UNKNOWN,
            *(kilo(power[flow]) for flow in FLOWS),
            kilo(energy["net"]),
        ],
        "trend": judge.sparkline(errors["crc_by_hour"]) if errors else "",
    }


def _total(document: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    """kW now, kWh today, and of how many sites when not of all."""
    power, energy = document["fleet"]["power_kw"], document["fleet"]["energy_kwh"]
    known, sites = power["known"][name], document["fleet"]["sites"]
    return kilo(power[name]), kilo(energy[name]), "" if known == sites else f"of {known} of {sites} sites"


def _complete(counted: Mapping[str, int]) -> str:
    part = judge.complete(counted)
    return UNKNOWN if part is None else f"{part:.1f} %"


def _clock(text: str | None) -> str:
    time = moment(text)
    return UNKNOWN if time is None else f"{time:%Y-%m-%d %H:%M}"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}" if isinstance(value, int) else kilo(value)

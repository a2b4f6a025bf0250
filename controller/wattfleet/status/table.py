# SPDX-License-Identifier: Apache-2.0
"""The fleet in a terminal: the sites that somebody has to look at first, then what the fleet is as one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from wattfleet.status import judge
from wattfleet.status.judge import ACT, moment, span

STYLES = {"online": "green", "late": "yellow", "offline": "red", "never seen": "red"}
UNKNOWN = "-"
# Lines beside the sites: the head, what the fleet is as one, and a prompt.
BESIDE = 9


def console() -> Console:
    """For standard output; wide where nobody watches, so that nothing is cut off in a file."""
    here = Console()
    return here if here.is_terminal else Console(width=200)


def shown(document: Mapping[str, Any], most: int | None) -> RenderableType:
    """At most so many sites; None is all."""
    now = datetime.fromisoformat(document["time"])
    table = Table(box=None, pad_edge=False)
    for head in (
        "site",
        "state",
        "for",
        "reading",
        "p95",
        "complete",
        "CRC",
        "cert",
        "meters",
        "load",
        "gen",
        "store",
        "net",
    ):
        table.add_column(head, justify="left" if head in ("site", "state") else "right", no_wrap=True)
    table.add_column("what is the matter", overflow="fold", min_width=20)
    ordered = judge.worst_first(document["sites"])
    for name, site in ordered[:most]:
        table.add_row(*_row(name, site, now))
    rest = [] if most is None else ordered[most:]
    parts: list[RenderableType] = [table]
    if rest:
        bad = sum(bool(site["findings"]) for _, site in rest)
        parts.append(Text(f"and {len(rest)} more, {bad or 'none'} of them with something: --all"))
    return Group(*parts, Text(), *_fleet(document))


def _row(name: str, site: Mapping[str, Any], now: datetime) -> list[Text]:
    since, last = moment(site["since"]), moment(site["last_reading"])
    counted, errors, power = judge.complete(site["completeness"]), site["bus_errors"], site["power_kw"]
    cells = [
        name,
        site["state"],
        UNKNOWN if since is None else span(now - since),
        UNKNOWN if last is None else f"{span(now - last)} ago",
        f"{site['delay']['p95']:.0f} s" if site["delay"] else UNKNOWN,
        UNKNOWN if counted is None else f"{counted:.1f} %",
        str(errors["crc_errors"]) if errors else UNKNOWN,
        f"{site['certificate']['days_left']} d" if site["certificate"] else UNKNOWN,
        judge.agreement(site) or UNKNOWN,
        *(kilo(power[figure]) for figure in ("load", "generation", "storage", "net")),
        # A mark for those who do not see the colour.
        "; ".join(("! " if one["level"] == ACT else "") + one["text"] for one in site["findings"]),
    ]
    # Text and not markup: what a site's file says is data.
    row = [Text(cell) for cell in cells]
    row[1].stylize(STYLES[site["state"]])
    if site["findings"]:
        row[-1].stylize("red" if judge.needs_somebody(site) else "yellow")
    return row


def kilo(value: float | None) -> str:
    """kW or kWh, so that a site and a fleet can be read in one column."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def _fleet(document: Mapping[str, Any]) -> list[Text]:
    fleet = document["fleet"]
    bad = sum(judge.needs_somebody(site) for site in document["sites"].values())
    watch = sum(bool(site["findings"]) for site in document["sites"].values()) - bad
    states = ", ".join(f"{count} {state}" for state, count in fleet["states"].items() if count)
    lines = [
        Text.assemble(
            (f"{judge.plural(fleet['sites'], 'site')}: ", "bold"),
            f"{states}; ",
            (f"{bad} need somebody" if bad != 1 else "1 needs somebody", "bold red" if bad else "bold green"),
            f", {watch} to watch",
        ),
        _flow("kW now", fleet["power_kw"], fleet["sites"]),
        _flow("kWh today", fleet["energy_kwh"], fleet["sites"]),
    ]
    counted, part, errors = fleet["completeness"], judge.complete(fleet["completeness"]), fleet["bus_errors"]
    lines.append(
        Text(
            f"24 h: {UNKNOWN if part is None else f'{part:.1f} %'} complete, {counted['missing']} missing, "
            f"{counted['null']} without a value; {judge.plural(errors['crc_errors'], 'CRC error')}, "
            f"{judge.plural(errors['timeouts'], 'time-out')}"
        )
    )
    if agreed := fleet.get("agreement"):
        lines.append(
            Text(
                f"last whole day: the meters of {judge.plural(agreed['agrees'], 'site')} agree, "
                f"of {agreed['differs']} differ, {agreed['unknown']} not known"
            )
        )
    versions = [
        f"{what} {_versions(fleet[key])}"
        for what, key in (("collector", "collectors"), ("firmware", "firmwares"))
    ]
    lines.append(Text("; ".join(versions) + f"; figures of {document['time'][:19].replace('T', ' ')} UTC"))
    return lines


def _flow(what: str, totals: Mapping[str, Any], sites: int) -> Text:
    text = ", ".join(f"{name} {kilo(totals[name])}" for name in ("load", "generation", "storage", "net"))
    known = min(totals["known"].values())
    return Text(
        f"{what}: {text}"
        + (
            f" (net of {totals['known']['net']}, load of {totals['known']['load']} sites)"
            if known < sites
            else ""
        )
    )


def _versions(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{version} ({count})" for version, count in sorted(counted.items())) or UNKNOWN

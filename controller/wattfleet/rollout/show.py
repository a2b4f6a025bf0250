# SPDX-License-Identifier: Apache-2.0
"""Plans, states and entries for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wattfleet.rollout.ledger import Entry
from wattfleet.rollout.plan_file import PlanFile
from wattfleet.rollout.states import ACTIVE, SiteState
from wattfleet.rollout.status import SiteStatus, Status
from wattfleet.rollout.windows import Always, window_of

STYLES = {
    "ok": "green",
    "failed": "red",
    "silent": "red",
    "halted": "red",
    "holding": "yellow",
    "paused": "yellow",
}
# Sites that nothing happens at are summed up beyond so many lines.
MOST_LINES = 30
BAR_WIDTH = 20


def console() -> Console:
    """For standard output; wide where nobody watches, so that nothing is cut off in a file."""
    here = Console()
    return here if here.is_terminal else Console(width=180)


def as_text(one: RenderableType) -> str:
    """Without colours, for a log."""
    wide = Console(width=180, file=io.StringIO())
    wide.print(one, highlight=False)
    assert isinstance(wide.file, io.StringIO)
    return "\n".join(line.rstrip() for line in wide.file.getvalue().splitlines())


def size(count: float) -> str:
    """Bytes with a unit of the decimal kind, as links are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def plan(one: PlanFile) -> RenderableType:
    """The whole plan."""
    made, release, settings = one.plan, one.plan.release, one.plan.settings
    head = Text(
        f"{one.name}: {release.kind} {release.version}, {size(release.size)}, at {len(made.sites)} sites in "
        f"{len(made.waves)} waves\n"
        f"at most {settings.max_offline} at risk at once, {settings.max_failed} failures allowed, "
        f"soak {settings.soak:.0f} s\n"
    )
    table = _table("wave", "site", "why", "window", "bytes", "cost", "transfer", "installation", "done")
    for site in made.sites:
        window = window_of(made.terms[site.site].get("window"))
        zone = UTC if isinstance(window, Always) else window.zone
        table.add_row(
            str(site.wave + 1),
            site.site,
            site.why,
            str(window),
            size(site.bytes),
            f"{site.cost:.2f}" if site.cost else "",
            *(
                f"{moment.astimezone(zone):%a %d %b %H:%M %Z}"
                for moment in (site.begin, site.install, site.end)
            ),
        )
    parts: list[RenderableType] = [head, table]
    if made.skipped:
        parts.append(Text("\nleft out:"))
        parts += [Text(f"  {site}: {why}") for site, why in sorted(made.skipped.items())]
    if made.doubts:
        parts.append(Text("\nwould wait for a person:"))
        parts += [Text(f"  {some(sites)}: {why}") for why, sites in _by_reason(made.doubts).items()]
    cost = sum(site.cost for site in made.sites)
    total = sum(site.bytes for site in made.sites)
    end = f", the last one done by {made.end:%a %d %b %Y %H:%M} UTC" if made.end else ""
    parts.append(Text(f"\n{size(total)} over all links" + (f", {cost:.2f} in cost" if cost else "") + end))
    parts.append(Text(f"digest {made.digest}"))
    return Group(*parts)


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _by_reason(sites: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for site, why in sorted(sites.items()):
        found.setdefault(why, []).append(site)
    return found


def status(one: Status) -> RenderableType:
    """The rollout, its counts, and the sites at which something happens or something is wrong."""
    head = Text.assemble(
        f"{one.rollout}: {one.kind} {one.version}"
        + (" (taking back)" if one.direction == "back" else "")
        + ", ",
        (one.state, STYLES.get(one.state, "bold")),
        f" since {_local(one.since)}: {one.why}",
    )
    done = sum(one.counts.get(state, 0) for state in ("ok", "skipped"))
    total = len(one.sites)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(one.counts.items()))
    line = Text(
        f"wave {min(one.wave, one.waves)} of {one.waves}; {counts}; {one.at_risk} of {one.max_offline} at risk"
        + (f"; done by {_local(one.end)}" if one.end else "")
    )
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(total, 1), completed=done, width=2 * BAR_WIDTH),
        Text(f"{done} of {total} sites"),
    )
    table = _table("wave", "site", "state", "transfer", "rate", "since", "until", "done by", "what is known")
    busy = [site for site in one.sites if _matters(site)]
    for site in busy[:MOST_LINES]:
        table.add_row(
            str(site.wave or ""),
            site.site,
            Text(site.state, STYLES.get(site.state, "")),
            ProgressBar(total=1.0, completed=site.part, width=BAR_WIDTH)
            if site.state == SiteState.TRANSFERRING.value
            else "",
            f"{size(site.rate)}/s" if site.rate else "",
            _local(site.since),
            _local(site.deadline) if site.deadline else "",
            _local(site.end) if site.end else "",
            site.trouble or site.why,
        )
    parts: list[RenderableType] = [head, line, bar]
    if busy:
        parts.append(table)
    if len(busy) > MOST_LINES:
        parts.append(Text(f"and {len(busy) - MOST_LINES} more: --json has them all"))
    return Group(*parts)


def entry(one: Entry) -> str:
    """An entry of the ledger on one line."""
    moment = datetime.fromtimestamp(one.at / 1000, UTC)
    step = one.step
    change = step.new if step.old in ("", step.new) else f"{step.old} -> {step.new}"
    where = f"{step.rollout} {step.site or '*'}"
    return f"{one.number:>7} {moment:%Y-%m-%d %H:%M:%S} {where} {change}: {step.why} ({one.who})"


def entry_document(one: Entry) -> dict[str, Any]:
    """The same for programs."""
    step = one.step
    return {
        "number": one.number,
        "at": datetime.fromtimestamp(one.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "who": one.who,
        "rollout": step.rollout,
        "site": step.site or None,
        "old": step.old or None,
        "new": step.new,
        "why": step.why,
        "data": step.data,
        "hash": one.hash.hex(),
    }


def _matters(site: SiteStatus) -> bool:
    state = SiteState(site.state)
    return state in ACTIVE or state in (SiteState.DUE, SiteState.PARKED, SiteState.FAILED, SiteState.SILENT)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        right = column in ("wave", "bytes", "cost", "rate")
        table.add_column(
            column,
            justify="right" if right else "left",
            no_wrap=column not in ("why", "what is known"),
            overflow="fold",
        )
    return table


def _local(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone():%d %b %H:%M:%S}"

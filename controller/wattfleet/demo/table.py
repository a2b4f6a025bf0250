# SPDX-License-Identifier: Apache-2.0
"""The demo's closing table: a line a site, and the fleet's totals at both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.table import Table

from wattfleet.demo.totals import Comparison, FleetTotal
from wattfleet.hub import SiteState


def sites_table(
    meters: Mapping[str, Sequence[str]], states: Mapping[str, SiteState], buffered: Mapping[str, int | None]
) -> Table:
    """`meters` is site -> names of its meters, `buffered` is site -> readings that wait on the gateway."""
    table = Table(title="Sites", title_justify="left")
    for column in ("site", "meters"):
        table.add_column(column)
    for column in ("newest reading", "delivered", "in the buffer", "certificate"):
        table.add_column(column, justify="right", no_wrap=True)
    now = datetime.now(UTC)
    for site, names in sorted(meters.items()):
        state = states.get(site)
        waiting = buffered.get(site)
        table.add_row(
            site,
            " ".join(names),
            f"{(now - state.newest).total_seconds():.0f} s ago"
            if state and state.newest
            else "[red]none[/red]",
            f"{state.readings:,}" if state else "0",
            "?" if waiting is None else f"{waiting:,}",
            f"{(state.certificate_expires - now).days} days" if state and state.certificate_expires else "?",
        )
    return table


def fleet_table(comparison: Comparison) -> Table:
    """kWh since the meters' counters began, database beside simulators."""
    table = Table(title="Fleet, kWh on the meters' counters", title_justify="left")
    table.add_column("")
    for column in ("import", "export", "generation", "storage", "net"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, total in (("database", comparison.database), ("simulators", comparison.simulators)):
        table.add_row(name, *(f"{value / 1000:,.1f}" for value in _columns(total)))
    return table


def _columns(total: FleetTotal) -> tuple[float, ...]:
    return (total.grid_import, total.grid_export, total.generation, total.storage, total.net)

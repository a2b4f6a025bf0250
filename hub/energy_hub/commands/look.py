# SPDX-License-Identifier: Apache-2.0
"""What the hub knows: its sites, how they fared, their energy, and every reading."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from energy_hub import completeness, health, reconcile, report, totals
from energy_hub.commands import tools
from energy_hub.fleet import document as fleet


def add(commands: Any) -> None:
    one = tools.command(commands, "status", _status, "newest readings and state of every site", "energy_read")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = tools.command(commands, "fleet", _fleet, "the fleet at a glance, as JSON", "energy_read")
    one.add_argument(
        "--sites",
        type=Path,
        metavar="FILE",
        help="only these sites, one a line, known or not (default: all that are known); - is standard input",
    )

    one = tools.command(
        commands, "committed", _committed, "readings committed lately, by site", "energy_read"
    )
    one.add_argument("--minutes", type=float, default=5.0)
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = tools.command(commands, "health", _health, "how sites fared over a span of time", "energy_read")
    one.add_argument("--since", type=tools.moment, required=True, help="first time, ISO 8601")
    one.add_argument("--until", type=tools.moment, required=True, help="time after the last, ISO 8601")
    one.add_argument(
        "--site",
        action="append",
        default=[],
        metavar="S[@SINCE/UNTIL]",
        help="only this site, given again for each; with a span of its own after an @",
    )
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = tools.command(
        commands,
        "reconcile",
        _reconcile,
        "hold each site's supply meter against its other meters",
        "energy_read",
    )
    one.add_argument("--site", help="one site (default: all)")
    one.add_argument("--since", type=tools.moment, help="ISO 8601 (default: seven days ago)")
    one.add_argument("--until", type=tools.moment, help="ISO 8601 (default: now)")
    one.add_argument(
        "--limit",
        type=float,
        default=reconcile.LIMIT,
        help="part of the supply that may be missing: %(default)s",
    )
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = tools.command(
        commands,
        "completeness",
        _completeness,
        "readings that are here, of those that each site's file lets expect",
        "energy_read",
    )
    one.add_argument("--site", help="one site, with its meters (default: all, without)")
    one.add_argument("--since", type=tools.moment, required=True, help="first time, ISO 8601")
    one.add_argument("--until", type=tools.moment, help="time after the last, ISO 8601 (default: now)")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = tools.command(
        commands, "totals", _totals, "the fleet's energy by what its meters measure", "energy_read"
    )
    one.add_argument("--since", type=tools.moment, required=True, help="first time, ISO 8601")
    one.add_argument("--until", type=tools.moment, required=True, help="time after the last, ISO 8601")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = tools.command(
        commands, "export-identities", _export, "every reading of a site, one a line", "energy_read"
    )
    one.add_argument("--site", required=True)
    one.add_argument("--since", type=tools.moment, help="first time, ISO 8601")
    one.add_argument("--until", type=tools.moment, help="time after the last, ISO 8601")
    one.add_argument("--point", action="append", help="only this point; may be given more than once")
    one.add_argument("--format", choices=("csv", "jsonl"), default="csv")


def _status(options: argparse.Namespace) -> int:
    with tools.reader(options) as databases:
        found = databases.merged(lambda one: {row["site"]: row for row in report.sites(one)})
    rows = list(found.values())
    if options.json:
        tools.print_json({"sites": {row.pop("site"): row for row in rows}})
        return tools.OK
    tools.print_table(
        ("site", "state", "last seen", "newest reading", "readings", "batches", "missing", "chain"),
        [
            (
                row["site"],
                row["state"],
                tools.iso(row["last_seen"]),
                tools.iso(row["newest_reading"]),
                row["readings"],
                row["batches"],
                row["missing_batches"],
                row["chain"],
            )
            for row in rows
        ],
    )
    return tools.OK


def _fleet(options: argparse.Namespace) -> int:
    names = None
    if options.sites is not None:
        text = sys.stdin.read() if options.sites == Path("-") else options.sites.read_text(encoding="utf-8")
        names = list(dict.fromkeys(text.split()))
    with tools.reader(options) as databases:
        found = fleet.of_all(databases.shards(), names)
    # Of thousands of sites, blanks would be a third of what travels.
    json.dump(found, sys.stdout, default=tools.iso, separators=(",", ":"))
    print()
    return tools.OK


def _committed(options: argparse.Namespace) -> int:
    with tools.reader(options) as databases:
        found = databases.merged(lambda one: report.committed(one, options.minutes))
    if options.json:
        tools.print_json({"minutes": options.minutes, "sites": found})
        return tools.OK
    tools.print_table(
        ("site", "readings", "batches"),
        [(site, row["readings"], row["batches"]) for site, row in found.items()],
    )
    return tools.OK


def _health(options: argparse.Namespace) -> int:
    spans: dict[str, health.Span] = {}
    names = []
    for text in options.site:
        name, at, span = text.partition("@")
        names.append(name)
        if at:
            since, _, until = span.partition("/")
            try:
                spans[name] = tools.moment(since), tools.moment(until)
            except ValueError:
                return tools.fail(
                    f"--site {text}: expected a site, or a site and its span: S@SINCE/UNTIL", tools.USAGE
                )
    for since, until in ((options.since, options.until), *spans.values()):
        if since >= until:
            return tools.fail(
                f"the span from {tools.iso(since)} to {tools.iso(until)}: expected one that ends later",
                tools.USAGE,
            )
    with tools.reader(options) as databases:
        found = health.of_all(databases.shards(names or None), options.since, options.until, names, spans)
    if options.json:
        tools.print_json(found)
        return tools.OK
    for name in found["unknown"]:
        print(f"energy-hub: ERR {name}: the hub has never heard of it", file=sys.stderr)
    tools.print_table(
        ("site", "meter", "polls", "answered", "readings", "nulls", "uncertain"),
        [
            (
                name,
                meter,
                *(row[column] for column in ("polls", "answered", "readings", "nulls", "uncertain")),
            )
            for name, site in found["sites"].items()
            for meter, row in (site["meters"] | site["sources"]).items()
        ],
    )
    return tools.FAILED if found["unknown"] else tools.OK


def _reconcile(options: argparse.Namespace) -> int:
    until = options.until or datetime.now(UTC)
    since = options.since or until - timedelta(days=7)
    with tools.reader(options) as databases:
        found = databases.merged(
            lambda one: reconcile.of_database(one, since, until, options.site, options.limit), options.site
        )
    if options.json:
        tools.print_json({"sites": {site: asdict(one) for site, one in found.items()}})
    else:
        tools.print_table(
            ("site", "state", "quarters", "supply kWh", "others kWh", "residual kWh", "share", "likely"),
            [
                (
                    site, one.state, one.quarters, f"{one.supply:.1f}", f"{one.parts:.1f}", f"{one.residual:.1f}",
                    "-" if one.share is None else f"{100 * one.share:.1f} %", "; ".join(one.causes) or "-",
                )
                for site, one in found.items()
            ],
        )  # fmt: skip
    return tools.FAILED if any(one.state == "differs" for one in found.values()) else tools.OK


def _completeness(options: argparse.Namespace) -> int:
    until = options.until or datetime.now(UTC)
    with tools.reader(options) as databases:
        found = databases.merged(
            lambda one: completeness.of_database(one, options.since, until, options.site), options.site
        )
    if options.json:
        tools.print_json({"sites": {site: asdict(one) for site, one in found.items()}})
        return tools.OK
    rows: list[tuple[str, str, completeness.Count]] = [(site, "all", one) for site, one in found.items()]
    if options.site is not None:
        rows += [(site, meter, one) for site, whole in found.items() for meter, one in whole.meters.items()]
    tools.print_table(
        ("site", "meter", "points", "expected", "received", "missing", "null", "complete"),
        [
            (
                site, meter, one.points, one.expected, one.received, one.missing, one.null,
                f"{100 * (1 - one.missing / one.expected):.2f} %" if one.expected else "-",
            )
            for site, meter, one in rows
        ],
    )  # fmt: skip
    return tools.OK


def _totals(options: argparse.Namespace) -> int:
    with tools.reader(options) as databases:
        found = totals.of_all(databases.shards(), options.since, options.until)
    if options.json:
        tools.print_json({"roles": {role: asdict(one) for role, one in found.items()}})
        return tools.OK
    tools.print_table(
        ("role", "energy kWh", "quarters", "sites", "meters not known"),
        [
            (role, f"{one.energy_kwh:.3f}", one.quarters, one.sites, one.unknown)
            for role, one in found.items()
        ],
    )
    return tools.OK


def _export(options: argparse.Namespace) -> int:
    with tools.reader(options) as databases:
        rows = report.identities(
            databases.of(options.site), options.site, options.since, options.until, options.point
        )
        if options.format == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(("point", "time", "value", "quality"))
            for point, time, value, quality in rows:
                writer.writerow((point, tools.iso(time), "" if value is None else repr(value), quality))
        else:
            for point, time, value, quality in rows:
                print(
                    json.dumps({"point": point, "time": tools.iso(time), "value": value, "quality": quality})
                )
    return tools.OK

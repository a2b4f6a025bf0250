# SPDX-License-Identifier: Apache-2.0
"""The command `energy-hub`."""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from energy_hub import (
    __version__,
    config,
    description,
    health,
    ingest,
    logs,
    migrate,
    reconcile,
    report,
    revocation,
    rollup,
)
from energy_hub.description import DescriptionError
from energy_hub.revocation import RevocationError, Revocations
from energy_hub.trust import TrustError, load_authorities

OK, FAILED, USAGE, WOULD_CHANGE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 3 (`migrate --check`) something would be changed."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (
        config.ConfigError, DescriptionError, migrate.MigrationError, RevocationError, TrustError
    ) as error:  # fmt: skip
        return _fail(str(error))
    except psycopg.Error as error:
        lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
        return _fail(f"{'CONNECTION_REFUSED ' if lost else ''}database: {' '.join(str(error).split())}")
    except BrokenPipeError:
        # The reader of our output has seen enough. Python would complain once more when it closes standard
        # output.
        sys.stdout = None
        return OK
    except OSError as error:
        return _fail(str(error))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="energy-hub", description="The hub of a fleet of energy gateways.")
    parser.add_argument("--version", action="version", version=f"energy-hub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    one = _command(
        commands, "migrate", _migrate, "bring the database's schema to this release", "energy_migrate"
    )
    one.add_argument(
        "--check", action="store_true", help="only say what would be done; exit code 3 if anything"
    )

    one = commands.add_parser("ingest", help="take batches from the broker into the database")
    one.add_argument("--config", type=Path, default=Path("/etc/energy-hub/ingest.yaml"))
    one.add_argument("--check", action="store_true", help="only read and check the configuration")
    one.set_defaults(run=_ingest)

    one = commands.add_parser("crl", help="how long the revocation lists are good for")
    one.add_argument("--file", type=Path, default=Path("/etc/ssl/energy/crl.pem"))
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")
    one.add_argument(
        "--watch",
        type=float,
        metavar="PART",
        help="only warn: log a line for each list that has less than this part of its life left, 0 to 1",
    )
    one.add_argument("--log", type=Path, help="with --watch, a file for these lines beside the journal")
    one.set_defaults(run=_crl)

    one = _command(
        commands, "rollup", _rollup, "keep the figures by minute, quarter, hour and day", "energy_rollup"
    )
    one.add_argument("--once", action="store_true", help="count what waits, and end")
    one.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="default: 10")
    one.add_argument("--log", type=Path, help="a file for the lines beside the journal")

    one = _command(commands, "describe", _describe, "keep what the sites' files say, dated", "energy_ingest")
    one.add_argument("file", type=Path, help="JSON object of site -> the site's file; - is standard input")
    one.add_argument("--since", type=_moment, help="from when on it holds, ISO 8601 (default: now)")

    one = _command(commands, "status", _status, "newest readings and state of every site", "energy_read")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = _command(commands, "committed", _committed, "readings committed lately, by site", "energy_read")
    one.add_argument("--minutes", type=float, default=5.0)
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = _command(commands, "health", _health, "how sites fared over a span of time", "energy_read")
    one.add_argument("--since", type=_moment, required=True, help="first time, ISO 8601")
    one.add_argument("--until", type=_moment, required=True, help="time after the last, ISO 8601")
    one.add_argument(
        "--site",
        action="append",
        default=[],
        metavar="S[@SINCE/UNTIL]",
        help="only this site, given again for each; with a span of its own after an @",
    )
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = _command(
        commands,
        "reconcile",
        _reconcile,
        "hold each site's supply meter against its other meters",
        "energy_read",
    )
    one.add_argument("--site", help="one site (default: all)")
    one.add_argument("--since", type=_moment, help="ISO 8601 (default: seven days ago)")
    one.add_argument("--until", type=_moment, help="ISO 8601 (default: now)")
    one.add_argument(
        "--limit",
        type=float,
        default=reconcile.LIMIT,
        help="part of the supply that may be missing: %(default)s",
    )
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = _command(
        commands, "export-identities", _export, "every reading of a site, one a line", "energy_read"
    )
    one.add_argument("--site", required=True)
    one.add_argument("--since", type=_moment, help="first time, ISO 8601")
    one.add_argument("--until", type=_moment, help="time after the last, ISO 8601")
    one.add_argument("--format", choices=("csv", "jsonl"), default="csv")
    return parser


def _command(commands: Any, name: str, run: Any, text: str, role: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument("--database", default=f"dbname=energy user={role}", help="libpq connection string")
    parser.set_defaults(run=run)
    return parser


def _migrate(options: argparse.Namespace) -> int:
    with psycopg.connect(options.database, autocommit=True, connect_timeout=10) as connection:
        if options.check:
            lines = migrate.plan(connection)
            for line in lines:
                print(f"would apply {line}")
            return WOULD_CHANGE if lines else OK
        for line in migrate.apply(connection):
            print(f"applied {line}", flush=True)
    return OK


def _ingest(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    authorities = load_authorities(settings.authorities)
    revocations = Revocations(settings.crl, authorities)
    ingest.tls_context(settings.broker)
    if options.check:
        return OK
    logs.set_up(settings.log, for_journal=not sys.stdout.isatty())
    worker = ingest.Worker(settings, authorities, revocations)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()
    return OK


def _rollup(options: argparse.Namespace) -> int:
    logs.set_up(options.log, for_journal=not sys.stdout.isatty())
    if options.once:
        with psycopg.connect(options.database, autocommit=True, connect_timeout=10) as connection:
            moved = rollup.moved_zones(connection)
            batches = 0
            while done := rollup.step(connection):
                batches += done
        print(f"counted {batches} batches" + (f"; days again: {', '.join(moved)}" if moved else ""))
        return OK
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    rollup.follow(options.database, options.every, stop)
    return OK


def _describe(options: argparse.Namespace) -> int:
    text = sys.stdin.read() if options.file == Path("-") else options.file.read_text(encoding="utf-8")
    found = description.read(text)
    since = options.since or datetime.now(UTC)
    with psycopg.connect(options.database, autocommit=True, connect_timeout=10) as connection:
        for site in description.keep(connection, found, since):
            print(f"described {site}")
    return OK


def _crl(options: argparse.Namespace) -> int:
    lists = revocation.load(options.file)
    now = datetime.now(UTC)
    if options.watch is not None:
        logs.set_up(options.log, for_journal=not sys.stdout.isatty())
        return FAILED if revocation.warn(lists, options.watch, now) else OK
    names = ("issuer", "number", "begins", "ends", "days_left", "revoked")
    days = [round(one.left(now).total_seconds() / 86400, 1) for one in lists]
    rows = [
        (one.issuer, one.number, _text(one.begins), _text(one.ends), left, len(one.revoked))
        for one, left in zip(lists, days, strict=True)
    ]
    if options.json:
        _print_json({"days_left": min(days), "lists": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        _print_table([name.replace("_", " ") for name in names], rows)
    return OK


def _status(options: argparse.Namespace) -> int:
    with _reader(options) as connection:
        rows = report.sites(connection)
    if options.json:
        _print_json({"sites": {row.pop("site"): row for row in rows}})
        return OK
    _print_table(
        ("site", "state", "last seen", "newest reading", "readings", "batches", "missing", "chain"),
        [
            (
                row["site"],
                row["state"],
                _text(row["last_seen"]),
                _text(row["newest_reading"]),
                row["readings"],
                row["batches"],
                row["missing_batches"],
                row["chain"],
            )
            for row in rows
        ],
    )
    return OK


def _committed(options: argparse.Namespace) -> int:
    with _reader(options) as connection:
        found = report.committed(connection, options.minutes)
    if options.json:
        _print_json({"minutes": options.minutes, "sites": found})
        return OK
    _print_table(
        ("site", "readings", "batches"),
        [(site, row["readings"], row["batches"]) for site, row in found.items()],
    )
    return OK


def _health(options: argparse.Namespace) -> int:
    spans: dict[str, health.Span] = {}
    names = []
    for text in options.site:
        name, at, span = text.partition("@")
        names.append(name)
        if at:
            since, _, until = span.partition("/")
            try:
                spans[name] = _moment(since), _moment(until)
            except ValueError:
                return _fail(f"--site {text}: expected a site, or a site and its span: S@SINCE/UNTIL", USAGE)
    for since, until in ((options.since, options.until), *spans.values()):
        if since >= until:
            return _fail(
                f"the span from {_text(since)} to {_text(until)}: expected one that ends later", USAGE
            )
    with _reader(options) as connection:
        found = health.health(connection, options.since, options.until, names, spans)
    if options.json:
        _print_json(found)
        return OK
    for name in found["unknown"]:
        print(f"energy-hub: ERR {name}: the hub has never heard of it", file=sys.stderr)
    _print_table(
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
    return FAILED if found["unknown"] else OK


def _reconcile(options: argparse.Namespace) -> int:
    until = options.until or datetime.now(UTC)
    since = options.since or until - timedelta(days=7)
    with _reader(options) as connection:
        found = reconcile.of_database(connection, since, until, options.site, options.limit)
    if options.json:
        _print_json({"sites": {site: asdict(one) for site, one in found.items()}})
    else:
        _print_table(
            ("site", "state", "quarters", "supply kWh", "others kWh", "residual kWh", "share", "likely"),
            [
                (
                    site, one.state, one.quarters, f"{one.supply:.1f}", f"{one.parts:.1f}", f"{one.residual:.1f}",
                    "-" if one.share is None else f"{100 * one.share:.1f} %", "; ".join(one.causes) or "-",
                )
                for site, one in found.items()
            ],
        )  # fmt: skip
    return FAILED if any(one.state == "differs" for one in found.values()) else OK


def _export(options: argparse.Namespace) -> int:
    with _reader(options) as connection:
        rows = report.identities(connection, options.site, options.since, options.until)
        if options.format == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(("point", "time", "value", "quality"))
            for point, time, value, quality in rows:
                writer.writerow((point, _text(time), "" if value is None else repr(value), quality))
        else:
            for point, time, value, quality in rows:
                print(json.dumps({"point": point, "time": _text(time), "value": value, "quality": quality}))
    return OK


def _reader(options: argparse.Namespace) -> psycopg.Connection:
    return psycopg.connect(
        options.database, autocommit=True, connect_timeout=10, options="-c timezone=UTC -c datestyle=ISO"
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(moment: datetime | None) -> str:
    if moment is None:
        return "-"
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _print_json(document: object) -> None:
    json.dump(document, sys.stdout, default=_text, indent=2)
    print()


def _print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    lines = [tuple(head), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _fail(text: str, code: int = FAILED) -> int:
    print(f"energy-hub: ERR {text}", file=sys.stderr)
    return code

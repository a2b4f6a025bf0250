# SPDX-License-Identifier: Apache-2.0
"""The command `energy-hub`."""

from __future__ import annotations

import argparse
import csv
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from energy_hub import (
    __version__,
    config,
    description,
    health,
    ingest,
    lanes,
    link,
    logs,
    migrate,
    move,
    partitions,
    reconcile,
    report,
    revocation,
    rollup,
    shards,
    totals,
)
from energy_hub.audit import command as audit
from energy_hub.databases import CONFIG, Opened, configured, opened
from energy_hub.description import DescriptionError
from energy_hub.evidence import commands as evidence_commands
from energy_hub.evidence import keys
from energy_hub.evidence.keys import KeyFileError
from energy_hub.evidence.stamps import Authority
from energy_hub.evidence.step import latest_sites
from energy_hub.fleet import document as fleet
from energy_hub.revocation import RevocationError, Revocations
from energy_hub.trust import TrustError, load_authorities

if TYPE_CHECKING:
    from energy_hub.metrics import Metrics

log = logging.getLogger(__name__)

OK, FAILED, USAGE, WOULD_CHANGE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 3 (`migrate --check`) something would be changed."""
    if arguments is None:
        arguments = sys.argv[1:]
        # The same file under another name.
        if Path(sys.argv[0]).name == "energy-audit":
            arguments = ["audit", *arguments]
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (
        config.ConfigError, DescriptionError, KeyFileError, migrate.MigrationError, move.MoveError, RevocationError,
        TrustError,
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

    one = _command(
        commands,
        "partitions",
        _partitions,
        "make the months ahead, and drop those that are older than what is kept",
        "energy_migrate",
    )
    one.add_argument("--dry-run", action="store_true", help="only say what would be dropped")
    one.add_argument(
        "--raw-months",
        type=int,
        metavar="N",
        help="whole months of readings that are kept beside this one, 0 is for ever (default: the configuration's)",
    )

    one = commands.add_parser("move-site", help="move a site to another database while its data flows")
    one.add_argument("site")
    one.add_argument("shard", help="name of the database, as the configuration has it")
    one.add_argument("--purge", action="store_true", help="then delete the copies where it does not live")
    one.add_argument("--config", type=Path, help=f"where the databases are named (default: {CONFIG})")
    one.set_defaults(run=_move_site)

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

    one = commands.add_parser(
        "checkpoint-key", help="make the key that signs checkpoints, when there is none"
    )
    one.add_argument("--key", type=Path, default=evidence_commands.KEY)
    one.set_defaults(run=_checkpoint_key)

    one = _command(
        commands, "checkpoint", _checkpoint, "take batches into the trees and sign them", "energy_ingest"
    )
    one.add_argument("--key", type=Path, default=evidence_commands.KEY)
    one.add_argument("--stamp-url", metavar="URL", help="time stamp authority (RFC 3161)")
    one.add_argument(
        "--stamp-ca", type=Path, metavar="FILE", help="certificates that its stamps are checked against"
    )
    one.add_argument(
        "--stamp-interval", type=float, default=3600.0, metavar="SECONDS", help="time between two stamps"
    )
    one.add_argument("--log", type=Path, help="a file for the lines beside the journal")

    audit.add(commands)

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

    one = _command(commands, "fleet", _fleet, "the fleet at a glance, as JSON", "energy_read")
    one.add_argument(
        "--sites",
        type=Path,
        metavar="FILE",
        help="only these sites, one a line, known or not (default: all that are known); - is standard input",
    )

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
        commands, "totals", _totals, "the fleet's energy by what its meters measure", "energy_read"
    )
    one.add_argument("--since", type=_moment, required=True, help="first time, ISO 8601")
    one.add_argument("--until", type=_moment, required=True, help="time after the last, ISO 8601")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")

    one = _command(
        commands, "export-identities", _export, "every reading of a site, one a line", "energy_read"
    )
    one.add_argument("--site", required=True)
    one.add_argument("--since", type=_moment, help="first time, ISO 8601")
    one.add_argument("--until", type=_moment, help="time after the last, ISO 8601")
    one.add_argument("--point", action="append", help="only this point; may be given more than once")
    one.add_argument("--format", choices=("csv", "jsonl"), default="csv")
    return parser


def _command(commands: Any, name: str, run: Any, text: str, role: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument(
        "--database", help=f"libpq connection string of one database (default: dbname=energy user={role})"
    )
    parser.add_argument(
        "--config", type=Path, help=f"where databases are named when there are several (default: {CONFIG})"
    )
    parser.set_defaults(run=run, role=role)
    return parser


def _migrate(options: argparse.Namespace) -> int:
    several = configured(options.database, options.config)
    if several is None:
        conninfo = options.database or f"dbname=energy user={options.role}"
        with psycopg.connect(conninfo, autocommit=True, connect_timeout=10) as connection:
            return _print_done(options, migrate.plan, migrate.apply, connection)
    return _print_done(options, shards.plan, shards.apply, several)


def _print_done(options: argparse.Namespace, plan: Any, apply: Any, what: Any) -> int:
    if options.check:
        lines = list(plan(what))
        for line in lines:
            print(f"would apply {line}")
        return WOULD_CHANGE if lines else OK
    for line in apply(what):
        print(f"applied {line}", flush=True)
    return OK


def _partitions(options: argparse.Namespace) -> int:
    file = options.config or CONFIG
    months = options.raw_months
    if months is None:
        months = config.raw_months(file) if options.config or file.exists() else 0
    now = datetime.now(UTC)
    with _opened(options, settings="-c timezone=UTC") as databases:
        signed = latest_sites(databases.fleet)
        for name in databases.names():
            connection = databases.connection(name)
            before = f"{name}: " if name else ""
            if not options.dry_run:
                for line in partitions.make(connection, now):
                    _tell(before + line)
            if months:
                first = partitions.first_kept(now, months)
                for line in partitions.retire(connection, signed, first, dry_run=options.dry_run):
                    _tell(before + line)
    return OK


def _move_site(options: argparse.Namespace) -> int:
    several = configured(None, options.config)
    if several is None:
        return _fail(
            f"{options.config or CONFIG}: expected databases, found one: there is nowhere to move to"
        )
    move.move_site(several, options.site, options.shard, _tell)
    if options.purge:
        move.purge_site(several, options.site, _tell)
    return OK


def _tell(text: str) -> None:
    print(text, flush=True)


def _ingest(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    authorities = load_authorities(settings.authorities)
    revocations = Revocations(settings.crl, authorities)
    for broker in settings.brokers:
        link.tls_context(broker)
    if options.check:
        return OK
    logs.set_up(settings.log, for_journal=not sys.stdout.isatty())
    make = ingest.Worker if settings.databases is None else lanes.Router
    worker = make(settings, authorities, revocations)
    figures = _serve_metrics(settings, worker, revocations)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    ingest.spare_memory_searches()
    worker.run()
    if figures is not None:
        figures.stop()
    return OK


def _serve_metrics(
    settings: config.Config, worker: ingest.Worker, revocations: Revocations
) -> Metrics | None:
    """Without them the worker goes on: whoever watches sees that they are missing."""
    if settings.metrics_port is None:
        return None
    # Whoever does not ask for them does not pay for them: a web server and its libraries.
    from energy_hub.metrics import Metrics

    try:
        return Metrics(settings.metrics_port, settings, worker, revocations)
    except OSError as error:
        text = "ERR metrics: port %d of loopback: %s; going on without"
        log.error(text, settings.metrics_port, error)  # noqa: TRY400  (no traceback)
        return None


def _rollup(options: argparse.Namespace) -> int:
    logs.set_up(options.log, for_journal=not sys.stdout.isatty())
    if options.once:
        moved, batches = [], 0
        with _opened(options) as databases:
            for connection in map(databases.connection, databases.names()):
                moved += rollup.moved_zones(connection)
                while done := rollup.step(connection):
                    batches += done
        print(f"counted {batches} batches" + (f"; days again: {', '.join(moved)}" if moved else ""))
        return OK
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    several = configured(options.database, options.config)
    if several is None:
        rollup.follow(options.database or f"dbname=energy user={options.role}", options.every, stop)
        return OK
    threads = [
        threading.Thread(
            target=rollup.follow, args=(several.conninfo(name, options.role), options.every, stop)
        )
        for name in several.conninfos
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return OK


def _describe(options: argparse.Namespace) -> int:
    text = sys.stdin.read() if options.file == Path("-") else options.file.read_text(encoding="utf-8")
    found = description.read(text)
    since = options.since or datetime.now(UTC)
    changed: list[str] = []
    with _opened(options) as databases:
        if databases.homes is None:
            changed = description.keep(databases.fleet, found, since)
        else:
            # A site that nobody has heard of yet gets its database now.
            several = configured(options.database, options.config)
            assert several is not None
            directory = shards.Directory(
                several.conninfo(several.directory, options.role), list(several.conninfos)
            )
            by_shard: dict[str, dict[str, dict[str, Any]]] = {}
            for site, content in found.items():
                by_shard.setdefault(directory.assign(site), {})[site] = content
            directory.close()
            for name, part in by_shard.items():
                changed += description.keep(databases.connection(name), part, since)
    for site in sorted(changed):
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


def _checkpoint_key(options: argparse.Namespace) -> int:
    if keys.make(options.key):
        print(f"made {options.key}, key id {keys.key_id(keys.load_public(options.key.with_suffix('.pub')))}")
    return OK


def _checkpoint(options: argparse.Namespace) -> int:
    if (options.stamp_url is None) != (options.stamp_ca is None):
        return _fail("--stamp-url and --stamp-ca belong together")
    logs.set_up(options.log, for_journal=not sys.stdout.isatty())
    authority = Authority(options.stamp_url, options.stamp_ca) if options.stamp_url else None
    key = keys.load_private(options.key)
    with _opened(options, "energy-checkpoint") as databases:
        found, away = [], False
        for name in databases.names():
            try:
                found.append(databases.shard(name))
            except psycopg.Error as error:
                # The others need not wait: of its sites the checkpoint says what the one before it said.
                away = True
                if databases.homes is None:
                    raise
                print(f"energy-hub: ERR database {' '.join(str(error).split())}", file=sys.stderr)
        good = evidence_commands.checkpoint(databases.fleet, key, authority, options.stamp_interval, found)
    return OK if good and not away else FAILED


def _status(options: argparse.Namespace) -> int:
    with _reader(options) as databases:
        found = databases.merged(lambda one: {row["site"]: row for row in report.sites(one)})
    rows = list(found.values())
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


def _fleet(options: argparse.Namespace) -> int:
    names = None
    if options.sites is not None:
        text = sys.stdin.read() if options.sites == Path("-") else options.sites.read_text(encoding="utf-8")
        names = list(dict.fromkeys(text.split()))
    with _reader(options) as databases:
        found = fleet.of_all(databases.shards(), names)
    # Of thousands of sites, blanks would be a third of what travels.
    json.dump(found, sys.stdout, default=_text, separators=(",", ":"))
    print()
    return OK


def _committed(options: argparse.Namespace) -> int:
    with _reader(options) as databases:
        found = databases.merged(lambda one: report.committed(one, options.minutes))
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
    with _reader(options) as databases:
        found = health.of_all(databases.shards(names or None), options.since, options.until, names, spans)
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
    with _reader(options) as databases:
        found = databases.merged(
            lambda one: reconcile.of_database(one, since, until, options.site, options.limit), options.site
        )
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


def _totals(options: argparse.Namespace) -> int:
    with _reader(options) as databases:
        found = totals.of_all(databases.shards(), options.since, options.until)
    if options.json:
        _print_json({"roles": {role: asdict(one) for role, one in found.items()}})
        return OK
    _print_table(
        ("role", "energy kWh", "quarters", "sites"),
        [(role, f"{one.energy_kwh:.3f}", one.quarters, one.sites) for role, one in found.items()],
    )
    return OK


def _export(options: argparse.Namespace) -> int:
    with _reader(options) as databases:
        rows = report.identities(
            databases.of(options.site), options.site, options.since, options.until, options.point
        )
        if options.format == "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(("point", "time", "value", "quality"))
            for point, time, value, quality in rows:
                writer.writerow((point, _text(time), "" if value is None else repr(value), quality))
        else:
            for point, time, value, quality in rows:
                print(json.dumps({"point": point, "time": _text(time), "value": value, "quality": quality}))
    return OK


def _opened(
    options: argparse.Namespace, name: str = "energy-hub", settings: str = ""
) -> AbstractContextManager[Opened]:
    return opened(options.database, options.config, options.role, name, settings)


def _reader(options: argparse.Namespace) -> AbstractContextManager[Opened]:
    return _opened(options, settings="-c timezone=UTC -c datestyle=ISO")


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

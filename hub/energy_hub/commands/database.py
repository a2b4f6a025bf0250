# SPDX-License-Identifier: Apache-2.0
"""The databases and what is in them: schema, months, rollups, where sites live, what their files say."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from energy_hub import config, description, logs, migrate, move, partitions, reread, rollup, shards, threads
from energy_hub.commands import tools
from energy_hub.databases import CONFIG, configured, trouble
from energy_hub.evidence.step import latest_sites
from energy_hub.store import Store


def add(commands: Any) -> None:
    one = tools.command(
        commands, "migrate", _migrate, "bring the database's schema to this release", "energy_migrate"
    )
    one.add_argument(
        "--check", action="store_true", help="only say what would be done; exit code 3 if anything"
    )

    one = tools.command(
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

    one = tools.command(
        commands,
        "reread",
        _reread,
        "store the readings of signed batches that an earlier release could not read",
        "energy_ingest",
    )
    one.add_argument("--site", help="one site (default: all)")
    one.add_argument("--check", action="store_true", help="say what would be stored, and store nothing")

    one = tools.command(
        commands, "rollup", _rollup, "keep the figures by minute, quarter, hour and day", "energy_rollup"
    )
    one.add_argument("--once", action="store_true", help="count what waits, and end")
    one.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="default: 10")
    one.add_argument("--log", type=Path, help="a file for the lines beside the journal")

    one = tools.command(
        commands, "describe", _describe, "keep what the sites' files say, dated", "energy_ingest"
    )
    one.add_argument("file", type=Path, help="JSON object of site -> the site's file; - is standard input")
    one.add_argument("--since", type=tools.moment, help="from when on it holds, ISO 8601 (default: now)")


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
        return tools.WOULD_CHANGE if lines else tools.OK
    for line in apply(what):
        print(f"applied {line}", flush=True)
    return tools.OK


def _partitions(options: argparse.Namespace) -> int:
    file = options.config or CONFIG
    months = options.raw_months
    if months is None:
        months = config.raw_months(file) if options.config or file.exists() else 0
    now = datetime.now(UTC)
    with tools.opened(options, settings="-c timezone=UTC") as databases:
        signed = latest_sites(databases.fleet)
        code = tools.OK
        for name in databases.names():
            before = f"{name}: " if name else ""
            try:
                connection = databases.connection(name)
                if not options.dry_run:
                    for line in partitions.make(connection, now):
                        tools.tell(before + line)
                if months:
                    first = partitions.first_kept(now, months)
                    for line in partitions.retire(connection, signed, first, dry_run=options.dry_run):
                        tools.tell(before + line)
            except psycopg.Error as error:
                # The others need not wait.
                code = tools.fail(trouble(error, name))
    return code


def _move_site(options: argparse.Namespace) -> int:
    several = configured(None, options.config)
    if several is None:
        return tools.fail(
            f"{options.config or CONFIG}: expected databases, found one: there is nowhere to move to"
        )
    move.move_site(several, options.site, options.shard, tools.tell)
    if options.purge:
        move.purge_site(several, options.site, tools.tell)
    return tools.OK


def _reread(options: argparse.Namespace) -> int:
    several = configured(options.database, options.config)
    rows: list[tuple[str, str, int, int, str]] = []
    with tools.opened(options) as databases:
        for name in databases.names():
            found = reread.sites(databases.connection(name))
            here = [site for site in found if options.site in (None, site)]
            if not here:
                continue
            own = options.database or f"dbname=energy user={options.role}"
            with closing(Store(several.conninfo(name, options.role) if several else own)) as store:
                for site in here:
                    with move.alone(databases.fleet, site):
                        rows.extend(
                            (site, one.stream.hex(), one.sequence, one.readings, one.why or "-")
                            for one in reread.site(store, site, check=options.check)
                        )
    tools.print_table(("site", "stream", "sequence", "readings", "still unreadable"), rows)
    if any(why != "-" for *_, why in rows):
        return tools.FAILED
    return tools.WOULD_CHANGE if options.check and rows else tools.OK


def _rollup(options: argparse.Namespace) -> int:
    logs.set_up(options.log, for_journal=not sys.stdout.isatty())
    if options.once:
        moved, batches = [], 0
        with tools.opened(options) as databases:
            for connection in map(databases.connection, databases.names()):
                moved += rollup.moved_zones(connection)
                while done := rollup.step(connection):
                    batches += done
        print(f"counted {batches} batches" + (f"; days again: {', '.join(moved)}" if moved else ""))
        return tools.OK
    threads.end_together()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    several = configured(options.database, options.config)
    if several is None:
        rollup.follow(options.database or f"dbname=energy user={options.role}", options.every, stop)
        return tools.OK
    followers = [
        threading.Thread(
            target=rollup.follow,
            args=(several.conninfo(name, options.role), options.every, stop),
            name=f"rollup-{name}",
        )
        for name in several.conninfos
    ]
    for one in followers:
        one.start()
    for one in followers:
        one.join()
    return tools.OK


def _describe(options: argparse.Namespace) -> int:
    text = sys.stdin.read() if options.file == Path("-") else options.file.read_text(encoding="utf-8")
    found = description.read(text)
    since = options.since or datetime.now(UTC)
    changed: list[str] = []
    with tools.opened(options) as databases:
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
    return tools.OK

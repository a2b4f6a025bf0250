# SPDX-License-Identifier: Apache-2.0
"""What runs beside the database: the ingest, the revocation lists that it trusts, and the checkpoints."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from energy_hub import config, ingest, lanes, link, logs, revocation, threads
from energy_hub.commands import tools
from energy_hub.databases import trouble
from energy_hub.evidence import commands as evidence_commands
from energy_hub.evidence import keys
from energy_hub.evidence.stamps import Authority
from energy_hub.revocation import Revocations
from energy_hub.trust import load_authorities

if TYPE_CHECKING:
    from energy_hub.metrics import Metrics

log = logging.getLogger(__name__)

# Of one host; it has not more processors to give them.
WORKERS = 64


def add(commands: Any) -> None:
    one = commands.add_parser("ingest", help="take batches from the broker into the database")
    one.add_argument("--config", type=Path, default=Path("/etc/energy-hub/ingest.yaml"))
    one.add_argument("--check", action="store_true", help="only read and check the configuration")
    one.add_argument(
        "--worker",
        type=int,
        choices=range(1, WORKERS + 1),
        default=1,
        metavar="N",
        help="number of a further worker on this host, which has a certificate and a port of its own (default: 1)",
    )
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

    one = tools.command(
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


def _ingest(options: argparse.Namespace) -> int:
    settings = config.of_worker(config.load(options.config), options.worker)
    authorities = load_authorities(settings.authorities)
    revocations = Revocations(settings.crl, authorities)
    for broker in settings.brokers:
        link.tls_context(broker)
    if options.check:
        return tools.OK
    logs.set_up(settings.log, for_journal=not sys.stdout.isatty())
    threads.end_together()
    make = ingest.Worker if settings.databases is None else lanes.Router
    worker = make(settings, authorities, revocations)
    figures = _serve_metrics(settings, worker, revocations)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    ingest.spare_memory_searches()
    worker.run()
    if figures is not None:
        figures.stop()
    return tools.OK


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


def _crl(options: argparse.Namespace) -> int:
    lists = revocation.load(options.file)
    now = datetime.now(UTC)
    if options.watch is not None:
        logs.set_up(options.log, for_journal=not sys.stdout.isatty())
        return tools.FAILED if revocation.warn(lists, options.watch, now) else tools.OK
    names = ("issuer", "number", "begins", "ends", "days_left", "revoked")
    days = [round(one.left(now).total_seconds() / 86400, 1) for one in lists]
    rows = [
        (one.issuer, one.number, tools.iso(one.begins), tools.iso(one.ends), left, len(one.revoked))
        for one, left in zip(lists, days, strict=True)
    ]
    if options.json:
        tools.print_json(
            {"days_left": min(days), "lists": [dict(zip(names, row, strict=True)) for row in rows]}
        )
    else:
        tools.print_table([name.replace("_", " ") for name in names], rows)
    return tools.OK


def _checkpoint_key(options: argparse.Namespace) -> int:
    if keys.make(options.key):
        print(f"made {options.key}, key id {keys.key_id(keys.load_public(options.key.with_suffix('.pub')))}")
    return tools.OK


def _checkpoint(options: argparse.Namespace) -> int:
    if (options.stamp_url is None) != (options.stamp_ca is None):
        return tools.fail("--stamp-url and --stamp-ca belong together")
    logs.set_up(options.log, for_journal=not sys.stdout.isatty())
    authority = Authority(options.stamp_url, options.stamp_ca) if options.stamp_url else None
    key = keys.load_private(options.key)
    with tools.opened(options, "energy-checkpoint") as databases:
        found, away = [], False
        for name in databases.names():
            try:
                found.append(databases.shard(name))
            except psycopg.Error as error:
                # The others need not wait: of its sites the checkpoint says what the one before it said.
                away = True
                if databases.homes is None:
                    raise
                tools.fail(trouble(error))
        good = evidence_commands.checkpoint(databases.fleet, key, authority, options.stamp_interval, found)
    return tools.OK if good and not away else tools.FAILED

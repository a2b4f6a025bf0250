# SPDX-License-Identifier: Apache-2.0
"""The command `energy-audit verify`, which is `energy-hub audit verify`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import psycopg

from energy_hub.audit.context import Scope
from energy_hub.audit.findings import Finding, Report
from energy_hub.audit.verify import verify
from energy_hub.commands import tools
from energy_hub.config import ConfigError
from energy_hub.databases import CONFIG, opened
from energy_hub.evidence import keys
from energy_hub.trust import TrustError, load_authorities

CLEAN, FOUND, UNCHECKED = 0, 1, 2
KEY, CA = Path("/etc/energy-hub/checkpoint.pub"), Path("/etc/ssl/energy/ca.crt")


def add(commands: Any) -> None:
    """Put the command below `energy-hub`."""
    audit = commands.add_parser("audit", help="hold the database against what was signed")
    parts = audit.add_subparsers(required=True, metavar="command")
    one: argparse.ArgumentParser = parts.add_parser(
        "verify",
        help="find what was changed, removed, inserted or reordered",
        description="Exit code 0: nothing was found; 1: something was; 2: it could not be looked at in full.",
    )
    one.add_argument(
        "--database",
        help="libpq connection string of one database (default: dbname=energy user=energy_read)",
    )
    one.add_argument(
        "--config", type=Path, help=f"where databases are named when there are several (default: {CONFIG})"
    )
    one.add_argument("--site", action="append", help="only this site; may be given more than once")
    one.add_argument(
        "--since",
        type=tools.moment,
        help="only batches that came in since then, ISO 8601; trees are looked at in full",
    )
    one.add_argument(
        "--witness",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="gateways' witness.jsonl",
    )
    one.add_argument("--key", type=Path, action="append", help=f"a public key of the hub (default: {KEY})")
    one.add_argument("--ca", type=Path, default=CA, help=f"CA of the gateways' certificates (default: {CA})")
    one.add_argument("--stamp-ca", type=Path, help="certificates that time stamps are checked against")
    one.add_argument("--json", action="store_true", help="print JSON instead of a table")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        scope = _scope(options)
        with opened(options.database, options.config, "energy_read", "energy-audit") as databases:
            report = verify(databases.fleet, scope, _say, databases.shards(scope.sites))
    except (
        psycopg.Error, OSError, LookupError, ConfigError, TrustError, keys.KeyFileError
    ) as error:  # fmt: skip
        print(f"energy-audit: ERR cannot verify: {' '.join(str(error).split())}", file=sys.stderr)
        return UNCHECKED
    if options.json:
        json.dump(as_json(report), sys.stdout, indent=2)
        print()
    else:
        for line in as_text(report):
            print(line)
    if report.findings:
        return FOUND
    return UNCHECKED if report.unchecked else CLEAN


def _scope(options: argparse.Namespace) -> Scope:
    files: list[Path] = options.key or ([KEY] if KEY.exists() else [])
    # A CA that was named has to be there; the usual place may be empty where no hub is.
    has_ca = options.ca != CA or CA.exists()
    return Scope(
        sites=frozenset(options.site) if options.site else None,
        since=options.since,
        keys=frozenset(map(keys.load_public, files)) if files else None,
        authorities=load_authorities(options.ca) if has_ca else (),
        witnesses=options.witness,
        stamp_ca=options.stamp_ca,
    )


def as_json(report: Report) -> dict[str, object]:
    return {
        "clean": not report.findings and not report.unchecked,
        "checked": report.checked,
        "findings": [_plain(one) for one in report.sorted_findings()],
        "notes": [_plain(one) for one in report.sorted_notes()],
        "unchecked": report.unchecked,
    }


def _plain(one: Finding) -> dict[str, object]:
    found: dict[str, object] = {"site": one.site, "kind": one.kind}
    if one.subject:
        found["subject"] = one.subject
    return found | {
        "first": tools.iso(one.first),
        "last": tools.iso(one.last),
        "count": one.count,
        "detail": one.detail,
    }


def as_text(report: Report) -> list[str]:
    """For people: findings, then what looks odd, then what was looked at."""
    lines = []
    for one in report.sorted_findings():
        lines.append(f"{one.site}  {one.kind}  {one.subject}  ({one.count})")
        lines.append(f"    from {tools.iso(one.first)} to {tools.iso(one.last)}")
        lines.append(f"    {one.detail}")
    lines.extend(
        f"note: {note.site}: {note.kind} ({note.count}), from {tools.iso(note.first)}"
        f" to {tools.iso(note.last)}: {note.detail}"
        for note in report.sorted_notes()
    )
    lines.extend(f"not checked: {text}" for text in report.unchecked)
    looked = ", ".join(f"{number:,} {what}" for what, number in report.checked.items())
    verdict = f"{len(report.findings)} findings" if report.findings else "nothing was changed"
    if report.unchecked and not report.findings:
        verdict = "nothing was found, and not all could be checked"
    lines.append(f"{verdict}; looked at {looked or 'nothing'}")
    return lines


def _say(text: str) -> None:
    print(f"energy-audit: {text}", file=sys.stderr, flush=True)

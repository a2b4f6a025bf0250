# SPDX-License-Identifier: Apache-2.0
"""`wattfleet certificates`: every certificate that the fleet's authority has signed, and what is the matter with it.

Reads the ledgers (docs/reference/certificate-ledger.md, with vectors beside it) and asks no host.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from rich.console import Console
from rich.table import Table
from wattfleet_lab import option
from wattfleet_lab.state import State

from wattfleet.errors import WattfleetError

DAY = 86400.0
RENEW_AT = 0.5
STYLES = {
    "renew due": "yellow",
    "expired": "red",
    "revoked": "red",
    "not installed": "yellow",
    "replaced": "dim",
}


@dataclass(frozen=True)
class Certificate:
    """One line of the table. Times are ISO 8601 in UTC."""

    name: str
    usage: str
    serial: str
    issued: str
    expires: str
    days_left: float
    state: str
    host: str


@dataclass(frozen=True)
class Ledger:
    """What was read: certificates, the authority's own, and a sentence for each last line that is torn."""

    certificates: list[Certificate]
    authorities: list[Certificate]
    torn: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wattfleet certificates`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these names (default: all)")
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FOLDER",
        help="the authority's folder, identity_ca_directory (default: the lab's)",
    )
    option.add_to(parser, "the lab whose authority is read")
    parser.add_argument(
        "--all", action="store_true", help="also those that were replaced or have expired long ago"
    )
    parser.add_argument(
        "--renew-at",
        type=float,
        default=RENEW_AT,
        metavar="PART",
        help="part of the life after which renewal is due",
    )
    parser.add_argument("--json", action="store_true", help="for programs; has all of them")


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    if not 0 < arguments.renew_at < 1:
        raise WattfleetError(f"--renew-at: found {arguments.renew_at}, a part of the life is between 0 and 1")
    folder = arguments.ca or State.of(arguments.lab).path / "ca"
    ledger = read(folder, datetime.now(UTC), arguments.renew_at)
    unknown = set(arguments.names) - {one.name for one in ledger.certificates}
    if unknown:
        raise WattfleetError(f"{folder}: nothing was ever issued to {', '.join(sorted(unknown))}")
    certificates = [one for one in ledger.certificates if not arguments.names or one.name in arguments.names]
    if arguments.json:
        document = {
            "authorities": [asdict(one) for one in ledger.authorities],
            "certificates": [asdict(one) for one in certificates],
            "torn": ledger.torn,
        }
        print(json.dumps(document, indent=2))
    else:
        show(ledger.authorities, certificates, everything=arguments.all)
    for message in ledger.torn:
        print(f"wattfleet: {message}", file=sys.stderr)
    return 0


def read(folder: Path, now: datetime, renew_at: float = RENEW_AT) -> Ledger:
    """All ledgers in the authority's folder. Raises WattfleetError."""
    if not (folder / "issued").is_dir():
        raise WattfleetError(
            f"{folder}: no authority is here; make it with playbooks/ca.yml, or name its folder with --ca"
        )
    torn: list[str] = []
    revoked = {str(one.get("serial")) for one in _entries(folder / "revoked.jsonl", torn)}
    certificates = []
    for path in sorted((folder / "issued").glob("*.jsonl")):
        installed: dict[str, str] = {}
        for one in _entries(folder / "installed" / path.name, torn):
            installed[str(one.get("usage"))] = str(one.get("serial"))
        try:
            issued = _entries(path, torn)
            certificates += [
                _certificate(one, issued[number + 1 :], installed.get(one["usage"]), revoked, now, renew_at)
                for number, one in enumerate(issued)
            ]
        except (KeyError, ValueError) as error:
            raise WattfleetError(f"{path}: an entry is not complete: {error}") from None
    return Ledger(certificates, _authorities(folder, now), torn)


def _certificate(
    entry: dict[str, Any],
    later: list[dict[str, Any]],
    installed: str | None,
    revoked: set[str],
    now: datetime,
    renew_at: float,
) -> Certificate:
    start, end = _moment(entry["not_before"]), _moment(entry["not_after"])
    later_serials = {one["serial"] for one in later if one["usage"] == entry["usage"]}
    if entry["serial"] in revoked:
        state = "revoked"
    elif end <= now:
        state = "expired"
    elif installed in later_serials:
        state = "replaced"
    elif installed != entry["serial"]:
        # The run that had it signed has not installed it; what the host uses is another one, or none.
        state = "not installed"
    else:
        state = "renew due" if now - start >= renew_at * (end - start) else "valid"
    return Certificate(
        name=entry["name"],
        usage=entry["usage"],
        serial=entry["serial"],
        issued=entry["issued"],
        expires=f"{end:%Y-%m-%dT%H:%M:%SZ}",
        days_left=round((end - now).total_seconds() / DAY, 1),
        state=state,
        host=entry["host"],
    )


def _authorities(folder: Path, now: datetime) -> list[Certificate]:
    """Roots and intermediates, those of a change of the authority among them."""
    found = []
    for place, state in (("", "valid"), ("next", "to come"), ("previous", "to go")):
        for kind in ("root", "intermediate"):
            path = folder / place / f"{kind}.crt"
            if path.exists():
                one = x509.load_pem_x509_certificate(path.read_bytes())
                end = one.not_valid_after_utc
                found.append(
                    Certificate(
                        name=one.subject.rfc4514_string(),
                        usage=kind,
                        serial=f"{one.serial_number:x}",
                        issued=f"{one.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
                        expires=f"{end:%Y-%m-%dT%H:%M:%SZ}",
                        days_left=round((end - now).total_seconds() / DAY, 1),
                        state="expired" if end <= now else state,
                        host="",
                    )
                )
    return found


def _entries(path: Path, torn: list[str]) -> list[dict[str, Any]]:
    """The entries of a ledger; a sentence about a torn last line is added to `torn`. Raises WattfleetError."""
    try:
        with path.open("rb") as ledger:
            # Not while a playbook is in the middle of a line.
            fcntl.flock(ledger, fcntl.LOCK_SH)
            lines = ledger.read().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        entry = _object(line)
        shown = line[:80].decode(errors="replace")
        if entry is not None:
            found.append(entry)
        elif line and number == len(lines):
            # What follows the last end of line is the only place where a power cut leaves a part of an entry.
            torn.append(
                f"{path}: the last line is torn and left out: {shown!r}. The power was cut while it was written, "
                "before anything was done with it"
            )
        elif line.strip():
            raise WattfleetError(f"{path}, line {number}: {shown!r} is no entry; put the line right first")
    return found


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def show(authorities: list[Certificate], certificates: list[Certificate], *, everything: bool) -> None:
    """The table for people."""
    # Piped into a file, the serial numbers would be cut off.
    console = Console() if Console().is_terminal else Console(width=140)
    table = Table(box=None, pad_edge=False)
    for column in ("name", "usage", "issued", "expires", "days left", "state", "serial"):
        table.add_column(column, justify="right" if column == "days left" else "left", no_wrap=True)
    shown = [
        one
        for one in certificates
        if everything or one.state not in ("replaced", "expired") or _is_last(one, certificates)
    ]
    for one in [*authorities, *shown]:
        table.add_row(
            one.name,
            one.usage,
            one.issued[:10],
            one.expires[:10],
            f"{one.days_left:.0f}",
            one.state,
            one.serial,
            style=STYLES.get(one.state),
        )
    console.print(table)
    if len(shown) < len(certificates):
        console.print(f"and {len(certificates) - len(shown)} that were replaced or have expired: --all")


def _is_last(one: Certificate, certificates: list[Certificate]) -> bool:
    """Whether nothing newer was issued to the same name: a site whose certificate has expired has to be seen."""
    return [other for other in certificates if (other.name, other.usage) == (one.name, one.usage)][-1] == one

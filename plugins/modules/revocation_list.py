#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The certificate revocation lists of the fleet's issuers, kept fresh."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: revocation_list
short_description: Keep the certificate revocation lists of the fleet's issuers fresh
version_added: "0.3.0"
description:
  - Signs one list (CRL, RFC 5280) for each issuer from the entries that M(wattfleet.energy.certificate_revocation) has
    made, and keeps them one after the other in one file, as OpenSSL and Mosquitto read them.
  - A list is signed anew when what is revoked has changed, when part of its life has passed, or when it does not fit
    its issuer; otherwise it stays as it is.
  - Each list has a number that is greater than that of the list before, also when the file was lost, since a number is
    never smaller than the seconds since 1970. M(community.crypto.x509_crl) writes no numbers.
  - The file is replaced in one step.
  - Runs on the controller, where the issuers' keys are.
options:
  path:
    description: The file with the lists, in PEM.
    type: path
    required: true
  revoked:
    description: The file C(revoked.jsonl). It need not be there as long as nothing was revoked.
    type: path
    required: true
  issuers:
    description:
      - Paths of the certificates of the issuing authorities. The key of each lies beside it, with the suffix C(.key).
      - A serial number that is revoked is in the list of each, since it is never given twice.
      - Of an issuer whose key is away the list that is there stays, as long as it is fresh and complete.
    type: list
    elements: path
    required: true
  passphrase:
    description: Passphrase of the keys.
    type: str
  days:
    description: Days for which a list is valid. A stale list refuses every certificate of its issuer.
    type: int
    default: 30
  renew_at:
    description: Part of its life after which a list is renewed. V(0) is at once.
    type: float
    default: 0.33
attributes:
  check_mode:
    description: Tells which lists would be signed.
    support: full
  diff_mode:
    description: Shows issuer, number, end and number of entries of each list before and after.
    support: full
  idempotent:
    description: Changes nothing until part of a list's life has passed.
    support: full
  platform:
    description: Linux.
    platforms: linux
    support: full
requirements:
  - cryptography >= 38
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Keep the list of the intermediate fresh
  wattfleet.energy.revocation_list:
    path: /srv/wattfleet/ca/crl.pem
    revoked: /srv/wattfleet/ca/revoked.jsonl
    issuers: [/srv/wattfleet/ca/intermediate.crt]
    passphrase: "{{ identity_ca_passphrase }}"
  delegate_to: localhost
  register: list

- name: Tell how long it is good for
  ansible.builtin.debug:
    msg: "{{ list.days_left }} days"
"""

RETURN = r"""
days_left:
  description: Days until the first of the lists ends.
  returned: always
  type: float
  sample: 29.9
lists:
  description: The lists, in the order of O(issuers).
  returned: always
  type: list
  elements: dict
  contains:
    issuer:
      description: Name of the issuer.
      type: str
      sample: "CN=Wattfleet issuing 2026,O=Wattfleet"
    number:
      description: Number of the list.
      type: int
      sample: 1795895000
    next_update:
      description: When it ends.
      type: str
      sample: "2026-12-28T19:46:42Z"
    revoked:
      description: Entries in it.
      type: int
      sample: 2
    reason:
      description: Why it was signed anew, empty when it was not.
      type: str
      sample: what is revoked has changed
"""

import fcntl
import os
import traceback
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.wattfleet.energy.plugins.module_utils import _ledger
from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import replace_file

CRYPTOGRAPHY_ERROR = None
try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()

# A hub whose clock is behind by less than this takes a new list at once.
BACKDATED = timedelta(hours=1)
END = "-----END X509 CRL-----"
REASONS = {
    "keyCompromise": "key_compromise",
    "affiliationChanged": "affiliation_changed",
    "superseded": "superseded",
    "cessationOfOperation": "cessation_of_operation",
    "privilegeWithdrawn": "privilege_withdrawn",
}


class UnusableError(ValueError):
    """A list cannot be made; the message says why, in one line."""


@dataclass(frozen=True)
class Revoked:
    """One certificate that is not to be believed."""

    serial: int
    when: datetime
    reason: str


@dataclass
class Issuer:
    """An issuer with the list that it has, and the one that it gets."""

    certificate: Any
    key: Path
    found: Any = None  # x509.CertificateRevocationList or None
    text: str = ""
    reason: str = ""


def revoked_of(path: Path) -> tuple[list[Revoked], list[str]]:
    """The entries of revoked.jsonl, each serial number once, with its first entry; and a sentence where the last line
    is torn. Raises UnusableError."""
    found: dict[int, Revoked] = {}
    try:
        entries, torn = _ledger.read(path, ("serial", "when", "reason"))
    except _ledger.NoEntryError as error:
        raise UnusableError(str(error)) from None
    for entry in entries:
        try:
            when = datetime.strptime(entry["when"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
            one = Revoked(int(entry["serial"], 16), when, entry["reason"])
        except (ValueError, TypeError) as error:
            raise UnusableError(f"{path}: {entry} is no entry: {error}") from None
        found.setdefault(one.serial, one)
    return [found[serial] for serial in sorted(found)], torn


def lists_in(text: str) -> list[Any]:
    """The lists of a PEM file. One that cannot be read is as good as none: it is signed anew."""
    found = []
    for part in text.split(END)[:-1]:
        try:
            found.append(x509.load_pem_x509_crl((part.strip() + "\n" + END + "\n").encode()))
        except ValueError:
            continue
    return found


def times(found: Any) -> tuple[datetime, datetime]:
    """First and last moment of a list; cryptography 42 has renamed both."""
    if hasattr(found, "next_update_utc"):
        return found.last_update_utc, found.next_update_utc
    return (
        found.last_update.replace(tzinfo=timezone.utc),
        found.next_update.replace(tzinfo=timezone.utc),
    )


def number_of(found: Any) -> int:
    try:
        return int(found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    except x509.ExtensionNotFound:
        return 0


def entries_of(found: Any) -> set[int]:
    return {one.serial_number for one in found}


def why(found: Any, wanted: list[Revoked], days: int, renew_at: float, now: datetime) -> str:
    """Why a list has to be signed anew; empty when it stays."""
    if found is None:
        return "there was none"
    if entries_of(found) != {one.serial for one in wanted}:
        return "what is revoked has changed"
    start, end = times(found)
    if start > now:
        return "it is not valid yet, and nobody can use it"
    life = end - start
    if abs(life - BACKDATED - timedelta(days=days)) > timedelta(minutes=1):
        return f"it is valid for other than {days} days"
    if now - start - BACKDATED >= renew_at * timedelta(days=days):
        return f"{100 * (now - start - BACKDATED) / timedelta(days=days):.0f} % of its life have passed"
    return ""


def sign(issuer: Issuer, key: Any, wanted: list[Revoked], days: int, now: datetime) -> str:
    """A new list in PEM."""
    start = now - BACKDATED
    number = int(now.timestamp())
    if issuer.found is not None:
        # A reader that has both takes the one that began later. One from the future was signed by a wrong clock.
        before = times(issuer.found)[0]
        if before <= now:
            start = max(start, before + timedelta(seconds=1))
        number = max(number, number_of(issuer.found) + 1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(start + BACKDATED + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.certificate.public_key()),
            critical=False,
        )
    )
    for one in wanted:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.when)
        if one.reason in REASONS:
            flag = getattr(x509.ReasonFlags, REASONS[one.reason])
            entry = entry.add_extension(x509.CRLReason(flag), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign(key, hashes.SHA384())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def load_key(path: Path, passphrase: str | None) -> Any:
    """The issuer's key. Raises UnusableError."""
    try:
        return serialization.load_pem_private_key(
            path.read_bytes(), passphrase.encode() if passphrase else None
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableError(
            f"{path} cannot be opened: {error} Is the passphrase the one it was made with?"
        ) from None


def issuers_of(wanted: list[str], lists: list[Any]) -> list[Issuer]:
    """The issuers, each with the newest list that it has signed. Raises UnusableError."""
    result = []
    for one in wanted:
        path = Path(one)
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise UnusableError(f"{path} is no certificate: {error}") from None
        own = [
            item
            for item in lists
            if item.issuer == certificate.subject and item.is_signature_valid(certificate.public_key())
        ]
        result.append(Issuer(certificate, path.with_suffix(".key"), max(own, key=number_of, default=None)))
    return result


def renew(module: AnsibleModule, issuers: list[Issuer], wanted: list[Revoked], now: datetime) -> None:
    """Decide on each issuer's list and sign what has to be. Raises UnusableError."""
    days = module.params["days"]
    for issuer in issuers:
        reason = why(issuer.found, wanted, days, module.params["renew_at"], now)
        if issuer.found is not None:
            issuer.text = issuer.found.public_bytes(serialization.Encoding.PEM).decode()
        if not reason:
            continue
        if not issuer.key.exists():
            usable = (
                issuer.found is not None
                and times(issuer.found)[0] <= now < times(issuer.found)[1]
                and entries_of(issuer.found) >= {one.serial for one in wanted}
            )
            if not usable:
                raise UnusableError(
                    f"{issuer.key} is away, and its list has to be signed ({reason}): bring the key back"
                )
            module.warn(f"{issuer.key} is away: its list ends at {times(issuer.found)[1]:%Y-%m-%dT%H:%M:%SZ}")
            continue
        key = load_key(issuer.key, module.params["passphrase"])
        issuer.reason = reason
        issuer.text = sign(issuer, key, wanted, days, now)


def told(found: Any) -> str:
    """One line about a list, for people."""
    return (
        f"{found.issuer.rfc4514_string()}: number {number_of(found)}, until {times(found)[1]:%Y-%m-%dT%H:%M:%SZ},"
        f" {len(entries_of(found))} revoked\n"
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "revoked": {"type": "path", "required": True},
            "issuers": {"type": "list", "elements": "path", "required": True},
            "passphrase": {"type": "str", "no_log": True},
            "days": {"type": "int", "default": 30},
            "renew_at": {"type": "float", "default": 0.33},
        },
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_ERROR:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_ERROR)
    if module.params["days"] < 1 or not 0 <= module.params["renew_at"] < 1:
        module.fail_json(msg="days has to be 1 or more, and renew_at 0 or more and less than 1")
    path = Path(module.params["path"])
    now = datetime.now(timezone.utc).replace(microsecond=0)
    try:
        # Nobody enters a revocation between the look at the entries and the list that is made of them.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            wanted, torn = revoked_of(Path(module.params["revoked"]))
            issuers = issuers_of(module.params["issuers"], lists_in(before))
            renew(module, issuers, wanted, now)
            after = "".join(issuer.text for issuer in issuers)
            if after != before and not module.check_mode:
                replace_file(path, after, 0o644)
        finally:
            os.close(folder)
    except UnusableError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    for message in torn:
        module.warn(message)
    present = lists_in(after)
    module.exit_json(
        changed=after != before,
        days_left=round(min((times(one)[1] - now) / timedelta(days=1) for one in present), 1),
        lists=[
            {
                "issuer": one.issuer.rfc4514_string(),
                "number": number_of(one),
                "next_update": f"{times(one)[1]:%Y-%m-%dT%H:%M:%SZ}",
                "revoked": len(entries_of(one)),
                "reason": issuer.reason,
            }
            for one, issuer in zip(present, issuers, strict=True)
        ],
        diff={
            "before": "".join(told(one) for one in lists_in(before)),
            "after": "".join(told(one) for one in present),
        },
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Which certificates are revoked: the file with the lists (CRL) of the issuers, as the broker reads it too.

Works with cryptography 38 (Debian 12), which has no aware times of lists.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

log = logging.getLogger(__name__)

CertificateId = tuple[bytes, int]
"""Issuer (DER of its name) and serial number."""

_END = "-----END X509 CRL-----"


class RevocationError(ValueError):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One issuer's list."""

    issuer: str
    number: int
    begins: datetime
    ends: datetime
    revoked: dict[CertificateId, datetime]

    def left(self, now: datetime) -> timedelta:
        """Until it ends and refuses everybody; negative afterwards."""
        return self.ends - now

    def part_left(self, now: datetime) -> float:
        return (self.ends - now) / (self.ends - self.begins)


def certificate_id(certificate: x509.Certificate) -> CertificateId:
    return certificate.issuer.public_bytes(), certificate.serial_number


def load(path: Path, authorities: Sequence[x509.Certificate] | None = None) -> list[RevocationList]:
    """The lists of a file. With `authorities` only those that one of them has signed: where the issuer is
    not known, none of its certificates is believed anyway. Raises RevocationError, OSError."""
    parts = path.read_text(encoding="ascii", errors="replace").split(_END)[:-1]
    if not parts:
        raise RevocationError(f"{path}: holds no revocation list")
    lists = []
    for part in parts:
        try:
            one = x509.load_pem_x509_crl(f"{part.strip()}\n{_END}\n".encode())
        except ValueError as error:
            raise RevocationError(f"{path}: a list cannot be read: {error}") from None
        if authorities is None or _is_signed_by(one, authorities):
            lists.append(_read(one))
    return lists


def _is_signed_by(one: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]) -> bool:
    # Only issuers with RSA and EC keys get into the CA file; other kinds are no matter of ours.
    keys: list[Any] = [known.public_key() for known in authorities if known.subject == one.issuer]
    return any(one.is_signature_valid(key) for key in keys)


def _read(one: x509.CertificateRevocationList) -> RevocationList:
    issuer = one.issuer.public_bytes()
    try:
        number = one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        number = 0
    ends = _aware(one, "next_update")
    if ends is None:
        raise RevocationError(f"the list of {one.issuer.rfc4514_string()} has no end")
    return RevocationList(
        issuer=one.issuer.rfc4514_string(),
        number=number,
        begins=_aware(one, "last_update") or ends,
        ends=ends,
        revoked={(issuer, entry.serial_number): _aware(entry, "revocation_date") or ends for entry in one},
    )


def _aware(of: object, name: str) -> datetime | None:
    """A time in UTC; cryptography 42 added aware attributes and deprecated the naive ones."""
    if hasattr(of, f"{name}_utc"):
        found: datetime | None = getattr(of, f"{name}_utc")
        return found
    naive: datetime | None = getattr(of, name)
    return naive.replace(tzinfo=UTC) if naive else None


def warn(lists: Sequence[RevocationList], part: float, now: datetime) -> bool:
    """Log a line for each list with less than `part` of its life left; whether one of them has ended."""
    for one in lists:
        days = one.left(now) / timedelta(days=1)
        if days <= 0:
            log.error(
                "revocation list of %s ended %.1f days ago (%s): the broker refuses every gateway;"
                " run playbooks/renew_crl.yml on the controller now",
                one.issuer,
                -days,
                f"{one.ends:%Y-%m-%dT%H:%M:%SZ}",
            )
        elif one.part_left(now) < part:
            log.warning(
                "revocation list of %s ends in %.1f days (%s), and then the broker refuses every gateway:"
                " nobody has renewed it, run playbooks/renew_crl.yml on the controller",
                one.issuer,
                days,
                f"{one.ends:%Y-%m-%dT%H:%M:%SZ}",
            )
    return any(one.left(now) <= timedelta() for one in lists)


class Revocations:
    """What is revoked at the moment. A file that was replaced is read again; where that fails, what was
    known stays, since nothing that is revoked is ever believed again."""

    def __init__(self, path: Path | None, authorities: Sequence[x509.Certificate]) -> None:
        """Reads the file at once; None: nothing is revoked. Raises RevocationError, OSError."""
        self._path = path
        self._authorities = authorities
        self._read_as: tuple[int, ...] = ()
        self._revoked: dict[CertificateId, datetime] = {}
        # By issuer: when its list ends.
        self.ends: dict[str, datetime] = {}
        if path is not None:
            self._read_as = self._state(path)
            self._take(path)

    def when(self, certificate: CertificateId) -> datetime | None:
        """The moment of the revocation; None for a certificate that is not revoked."""
        return self._revoked.get(certificate)

    def refresh(self) -> None:
        """Read the file again where it is another one."""
        if self._path is None:
            return
        try:
            state = self._state(self._path)
            if state == self._read_as:
                return
            before = len(self._revoked)
            self._take(self._path)
        except (RevocationError, OSError) as error:
            fault = str(error)
        else:
            self._read_as = state
            log.info(
                "revocation list read again: %d certificates revoked, %d before", len(self._revoked), before
            )
            return
        if self._read_as:
            log.error("revocation list: %s; what was known stays revoked", fault)
        # It is tried again each time, and told once.
        self._read_as = ()

    def _take(self, path: Path) -> None:
        for one in load(path, self._authorities):
            self._revoked.update(one.revoked)
            self.ends[one.issuer] = one.ends

    @staticmethod
    def _state(path: Path) -> tuple[int, ...]:
        found = path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size


NOTHING_REVOKED = Revocations(None, [])

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Who a certificate is for and how long it lasts, by the OS's python3-cryptography, or by openssl where that
is missing.
"""

from __future__ import annotations

import datetime as dt
import pathlib
import typing as t

# AnsibleModule.run_command, or a function that behaves like it.
RunCommand = t.Callable[..., t.Tuple[int, str, str]]

_DAY = 86400.0


class UnreadableError(Exception):
    """The file is missing, may not be read, or holds no certificate; the message says which."""


def read(path: str, run_command: RunCommand) -> dict[str, t.Any]:
    """`subject` and `issuer` (RFC 4514), `common_name`, `serial` (hexadecimal), `not_before` and `not_after`
    (seconds since 1970) of the first certificate in the PEM file `path`."""
    try:
        pem = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise UnreadableError(f"{path}: no PEM certificate in it")
    try:
        from cryptography import x509
    except ImportError:
        return by_openssl(path, pem, run_command)
    return _by_cryptography(path, pem, x509)


def days_left(not_after: float, now: float) -> float:
    """Days from `now` to `not_after`, negative when expired."""
    return round((not_after - now) / _DAY, 2)


def _by_cryptography(path: str, pem: bytes, x509: t.Any) -> dict[str, t.Any]:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UnreadableError(f"{path}: {error}") from None
    names = certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    # not_valid_after_utc came with version 42; Debian 12 has 38, whose naive times are UTC.
    before = getattr(certificate, "not_valid_before_utc", None) or certificate.not_valid_before
    after = getattr(certificate, "not_valid_after_utc", None) or certificate.not_valid_after
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "common_name": names[0].value if names else None,
        "serial": f"{certificate.serial_number:x}",
        "not_before": before.replace(tzinfo=dt.timezone.utc).timestamp(),
        "not_after": after.replace(tzinfo=dt.timezone.utc).timestamp(),
    }


def by_openssl(path: str, pem: bytes, run_command: RunCommand) -> dict[str, t.Any]:
    """The same by `openssl x509`."""
    command = ["openssl", "x509", "-noout", "-subject", "-issuer", "-serial", "-startdate", "-enddate"]
    command += ["-nameopt", "RFC2253,utf8"]
    try:
        code, output, errors = run_command(command, data=pem, binary_data=True, handle_exceptions=False)
    except OSError as error:
        raise UnreadableError(
            f"{path}: python3-cryptography is missing, and openssl: {error.strerror}"
        ) from None
    if code != 0:
        reason = (errors.strip().splitlines() or ["openssl failed"])[0]
        raise UnreadableError(f"{path}: {reason}")
    fields = {}
    for line in output.splitlines():
        name, _equals, value = line.partition("=")
        fields[name.strip()] = value.strip()
    subject = fields.get("subject", "")
    names = [part[3:] for part in subject.split(",") if part.startswith("CN=")]
    return {
        "subject": subject,
        "issuer": fields.get("issuer", ""),
        "common_name": names[0] if names else None,
        "serial": fields.get("serial", "").lower().lstrip("0"),
        "not_before": _openssl_time(fields.get("notBefore", ""), path),
        "not_after": _openssl_time(fields.get("notAfter", ""), path),
    }


def _openssl_time(text: str, path: str) -> float:
    # "Nov 22 13:38:00 2026 GMT"; the names of months are openssl's own and English whatever the locale.
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    try:
        month, day, clock, year, _zone = text.split()
        hour, minute, second = (int(part) for part in clock.split(":"))
        moment = dt.datetime(
            int(year), months.index(month) + 1, int(day), hour, minute, second, tzinfo=dt.timezone.utc
        )
    except ValueError:
        raise UnreadableError(f"{path}: openssl tells the time {text!r}, which is not understood") from None
    return moment.timestamp()

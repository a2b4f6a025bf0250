# SPDX-License-Identifier: Apache-2.0
"""Which signing keys the hub trusts: the key statement of docs/reference/wire-format.md.

Works with cryptography 38 (Debian 12) and newer; the chain is walked here because cryptography's own verifier
came with version 42.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from energy_hub.revocation import NOTHING_REVOKED, Revocations, certificate_id

T = TypeVar("T", bound=x509.ExtensionType)

STATEMENT_PREFIX = b"energy/v1/key\0"
MAX_CHAIN = 5


class TrustError(ValueError):
    """A key statement is not to be trusted; the message says why."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A signing key with what vouches for it."""

    public: bytes
    statement: bytes
    certificate: str
    fingerprint: bytes
    not_after: datetime


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """All certificates of a PEM text, in their order. Raises TrustError."""
    marker = b"-----BEGIN CERTIFICATE-----"
    try:
        return [x509.load_pem_x509_certificate(marker + part) for part in pem.split(marker)[1:]]
    except ValueError as error:
        raise TrustError(f"certificate cannot be read: {error}") from None


def load_authorities(path: Path) -> list[x509.Certificate]:
    """The CA file: roots (self-signed) and, optionally, intermediates. Raises TrustError, OSError."""
    authorities = load_certificates(path.read_bytes())
    if not any(one.subject == one.issuer for one in authorities):
        raise TrustError(f"{path}: no self-signed root among its {len(authorities)} certificates")
    return authorities


def check_statement(
    site: str,
    key: object,
    authorities: Sequence[x509.Certificate],
    now: datetime,
    revocations: Revocations = NOTHING_REVOKED,
) -> TrustedKey:
    """The `key` object of a status message of `site`. Raises TrustError."""
    if not isinstance(key, dict):
        raise TrustError("key is not an object")
    public = _decode(key, "public")
    statement = _decode(key, "statement")
    pem = key.get("certificate")
    if len(public) != 32:
        raise TrustError(f"public key of {len(public)} bytes, expected 32")
    if not isinstance(pem, str):
        raise TrustError("certificate is missing")
    presented = load_certificates(pem.encode(errors="replace"))
    if not presented:
        raise TrustError("certificate holds no certificate")
    leaf = presented[0]
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [site]:
        found = ", ".join(str(name.value) for name in names) or "none"
        raise TrustError(f"certificate's common name is {found}, expected {site}")
    check_chain(leaf, presented[1:], authorities, now)
    revoked = revocations.when(certificate_id(leaf))
    if revoked is not None:
        raise TrustError(f"certificate {leaf.serial_number:x} was revoked on {revoked:%Y-%m-%dT%H:%M:%SZ}")
    try:
        _verify(
            leaf.public_key(), statement, STATEMENT_PREFIX + site.encode() + b"\0" + public, hashes.SHA256()
        )
    except InvalidSignature:
        raise TrustError("statement was not signed by the certificate's key") from None
    return TrustedKey(
        public=public,
        statement=statement,
        certificate="".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in presented),
        fingerprint=leaf.fingerprint(hashes.SHA256()),
        not_after=validity(leaf)[1],
    )


def check_chain(
    leaf: x509.Certificate,
    presented: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    """Walk from a client's certificate to a self-signed root of the CA file, in the spirit of RFC 5280,
    section 6: names, signatures, validity, basic constraints, key usage. Raises TrustError."""
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise TrustError("certificate is not meant for client authentication")
    _check_validity(leaf, now)
    current = leaf
    for depth in range(MAX_CHAIN):
        issuer = _issuer_of(current, [*authorities, *presented])
        if issuer is None:
            raise TrustError(f"no certificate of the issuer {current.issuer.rfc4514_string()} is known")
        _check_validity(issuer, now)
        _check_may_sign(issuer, depth)
        if issuer.subject == issuer.issuer and issuer in authorities:
            return
        current = issuer
    raise TrustError(f"no root of the CA file within {MAX_CHAIN} steps")


def batch_is_signed_by(public: bytes, signature: bytes, signed: bytes) -> bool:
    """Whether an Ed25519 key (32 raw bytes) made the signature."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _decode(key: dict[str, object], name: str) -> bytes:
    text = key.get(name)
    if not isinstance(text, str):
        raise TrustError(f"{name} is missing")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TrustError(f"{name} is not base64") from None


def _issuer_of(
    certificate: x509.Certificate, candidates: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    for candidate in candidates:
        if candidate.subject != certificate.issuer or certificate.signature_hash_algorithm is None:
            continue
        try:
            _verify(
                candidate.public_key(),
                certificate.signature,
                certificate.tbs_certificate_bytes,
                certificate.signature_hash_algorithm,
            )
        except (InvalidSignature, TrustError):
            continue
        return candidate
    return None


def _verify(public: object, signature: bytes, data: bytes, algorithm: hashes.HashAlgorithm) -> None:
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, data, padding.PKCS1v15(), algorithm)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, data, ec.ECDSA(algorithm))
    else:
        raise TrustError("certificate's key is neither RSA nor EC")


def _check_may_sign(issuer: x509.Certificate, below: int) -> None:
    name = issuer.subject.rfc4514_string()
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise TrustError(f"{name} is not a certificate authority")
    if constraints.path_length is not None and constraints.path_length < below:
        raise TrustError(f"{name} may have {constraints.path_length} authorities below it, found {below}")
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise TrustError(f"{name} may not sign certificates")


def _check_validity(certificate: x509.Certificate, now: datetime) -> None:
    start, end = validity(certificate)
    if not start <= now <= end:
        name = certificate.subject.rfc4514_string()
        raise TrustError(f"{name} is valid from {start:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ} only")


def validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """First and last moment."""
    # cryptography 42 added the aware attributes and deprecated the naive ones, which are all that 38 has.
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate.not_valid_before.replace(tzinfo=UTC), certificate.not_valid_after.replace(tzinfo=UTC)


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None

# SPDX-License-Identifier: Apache-2.0
"""Certificates that an intruder might hold: signed by the lab's own authority, whose passphrase lies beside it, or
by one that he has made himself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Signer:
    """A certificate that can sign others, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def lab_authority(folder: Path) -> Signer:
    """The lab's issuing intermediate; `folder` is the lab's folder `ca`."""
    passphrase = Path(f"{folder}.passphrase").read_text().strip().encode()
    key = serialization.load_pem_private_key((folder / "intermediate.key").read_bytes(), passphrase)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Signer(x509.load_pem_x509_certificate((folder / "intermediate.crt").read_bytes()), key)


def namesake(of: Signer) -> Signer:
    """An authority of the intruder's own that has the names of another."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = of.certificate.subject
    builder = _builder(subject, subject, key, (-DAY, DAY)).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return Signer(builder.sign(key, hashes.SHA384()), key)


def issue(
    folder: Path, name: str, common_name: str, signer: Signer, valid: Sequence[timedelta] = (-DAY, DAY)
) -> tuple[str, str]:
    """Write a client's certificate and key as `name`.crt and .key; `valid` counts from now. Returns their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(subject, signer.certificate.subject, key, valid).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
    )
    leaf = builder.sign(signer.key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    certificate_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    certificate_file.write_bytes(leaf.public_bytes(pem) + signer.certificate.public_bytes(pem))
    key_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(certificate_file), str(key_file)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid: Sequence[timedelta]
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )

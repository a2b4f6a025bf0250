# SPDX-License-Identifier: Apache-2.0
"""A throw-away certificate authority for the tests: root, issuing intermediate, leaves of RSA or EC keys."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def new_key(kind: str = "EC") -> Key:
    if kind == "EC":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Identity:
    key: Key
    certificate: x509.Certificate

    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def state(self, site: str, public: bytes) -> bytes:
        """The signature of a key statement."""
        data = b"energy/v1/key\0" + site.encode() + b"\0" + public
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))


def issue(
    subject: str,
    issuer: Identity | None,
    *,
    kind: str = "EC",
    ca: bool = False,
    server: bool = False,
    start: timedelta = timedelta(days=-1),
    end: timedelta = timedelta(days=30),
    addresses: Sequence[str] = ("127.0.0.1",),
    names: Sequence[str] = ("localhost",),
    key: Key | None = None,
) -> Identity:
    key = key or new_key(kind)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.certificate.subject if issuer else name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    # By which an issuer is told from another of its name.
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    if issuer:
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(above, critical=False)
    if not ca:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if server:
        hosts = [x509.IPAddress(ip_address(one)) for one in dict.fromkeys(addresses)]
        alternatives: list[x509.GeneralName] = [*map(x509.DNSName, names), *hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Identity(key, certificate)


class Authority:
    def __init__(self) -> None:
        self.root = issue("Test root", None, ca=True)
        self.intermediate = issue("Test issuing", self.root, ca=True)

    def client(self, subject: str, **options: object) -> Identity:
        return issue(subject, self.intermediate, **options)  # type: ignore[arg-type]  # arguments of several types

    def chain(self, leaf: Identity) -> str:
        return leaf.pem() + self.intermediate.pem()

    def crl(
        self,
        revoked: Sequence[Identity],
        *,
        begins: timedelta = timedelta(hours=-1),
        ends: timedelta = timedelta(days=30),
        number: int = 1,
        root: bool = False,
    ) -> str:
        """A revocation list of the intermediate, or of the root."""
        issuer = self.root if root else self.intermediate
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(now + begins)
            .next_update(now + ends)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
        return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def key_statement(self, leaf: Identity, site: str, public: bytes) -> dict[str, str]:
        return {
            "public": base64.b64encode(public).decode(),
            "statement": base64.b64encode(leaf.state(site, public)).decode(),
            "certificate": self.chain(leaf),
        }

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What of a host's identity is not as it should be, seen from the controller in what host_state has read."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = 86400.0
# A certificate starts an hour before it is signed, see tasks/sign.yml.
HEAD_START = 3660.0
MARKER = "-----BEGIN CERTIFICATE-----"
USAGES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True)
class Leaf:
    """The certificate in use, as far as it is compared."""

    pem: str
    subject: str
    names: list[str]
    usages: list[str]
    public_key: bytes
    issuer_key: bytes | None
    serial: str
    start: float
    end: float


def split_pem(text: str) -> list[str]:
    """The certificates of a PEM text, each with an end of line."""
    parts = [MARKER + part for part in text.split(MARKER)[1:]]
    return [part.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n" for part in parts]


def read_leaf(text: str) -> Leaf | None:
    """The first certificate of a file; None where there is none that can be read."""
    parts = split_pem(text)
    if not parts:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(parts[0].encode())
        usage = _extension(certificate, x509.ExtendedKeyUsage)
        issuer = _extension(certificate, x509.AuthorityKeyIdentifier)
        return Leaf(
            pem=parts[0],
            subject=certificate.subject.rfc4514_string(),
            names=_names(certificate),
            usages=[one.dotted_string for one in usage] if usage else [],
            public_key=_public_bytes(certificate.public_key()),
            issuer_key=issuer.key_identifier if issuer else None,
            serial=f"{certificate.serial_number:x}",
            start=certificate.not_valid_before_utc.timestamp(),
            end=certificate.not_valid_after_utc.timestamp(),
        )
    except ValueError:
        return None


def key_identifier(text: str) -> bytes | None:
    """The subject key identifier of the first certificate in PEM; None where there is none."""
    parts = split_pem(text)
    if not parts:
        return None
    found = _extension(x509.load_pem_x509_certificate(parts[0].encode()), x509.SubjectKeyIdentifier)
    return found.digest if found else None


def differences(host: dict[str, Any], wanted: dict[str, Any], csr: str | None = None) -> dict[str, Any]:
    """See the filter identity_differences."""
    state = _Host(host, wanted)
    leaf = read_leaf(state.text("crt"))
    request = state.text("csr") if csr is None else csr
    reasons = _reasons(leaf, request, state.is_pair(), wanted)
    now = _now(wanted)
    return {
        "packages": [name for name in wanted["packages"] if not host["packages"].get(name)],
        "group": wanted["group"] not in ("root", wanted["owner"]) and not host["groups"].get(wanted["group"]),
        "user": wanted["owner"] != "root" and not host["users"].get(wanted["owner"]),
        "directory": not state.is_as(wanted["directory"], "directory", "root", "root", "0755"),
        "request": _request(state, request, wanted),
        "reasons": reasons,
        "install": _install(state, leaf, wanted),
        "leaf": leaf.pem if leaf else "",
        "serial": leaf.serial if leaf else "",
        "authorities": [fingerprint(part) for part in split_pem(wanted["authorities"])],
        "days_left": round((leaf.end - now) / DAY, 1) if leaf else None,
    }


def _now(wanted: dict[str, Any]) -> float:
    return float(wanted.get("now") or time.time())


class _Host:
    """One identity's files in the fact energy_host."""

    def __init__(self, host: dict[str, Any], wanted: dict[str, Any]) -> None:
        self._host = host
        self._base = f"{wanted['directory']}/{wanted['name']}"

    def path(self, ending: str) -> str:
        return f"{self._base}.{ending}"

    def text(self, ending: str) -> str:
        return self._host["texts"].get(self.path(ending)) or ""

    def text_of(self, path: str) -> str:
        return self._host["texts"].get(path) or ""

    def is_pair(self) -> bool:
        """Whether the certificate belongs to the key beside it; without a key, it belongs to none."""
        return bool(self._host["key_pairs"].get(self.path("crt")))

    def exists(self, path: str) -> bool:
        return (self._host["files"].get(path) or {}).get("type", "absent") != "absent"

    def is_as(self, path: str, kind: str, owner: str, group: str, mode: str) -> bool:
        found = self._host["files"].get(path) or {}
        return (found.get("type"), found.get("owner"), found.get("group"), found.get("mode")) == (
            kind,
            owner,
            group,
            mode,
        )


def _request(state: _Host, csr: str, wanted: dict[str, Any]) -> list[str]:
    """Why the host's key or request has to be looked after."""
    result = []
    key = state.path("key")
    if not state.exists(key):
        result.append("there is no key")
    elif not state.is_as(key, "file", wanted["owner"], wanted["group"], wanted["key_mode"]):
        result.append("owner, group or mode of the key differ")
    if wanted["new_key"]:
        result.append("a new key is ordered")
    if not csr:
        result.append("there is no request")
        return result
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        fits = _kind(request.public_key()) == _ordered_kind(wanted)
        same = _subject(wanted["common_name"]) == request.subject.rfc4514_string()
        same = same and _names(request) == sorted(wanted["subject_alt_names"])
    except ValueError:
        result.append("the request is not readable")
        return result
    if not fits:
        result.append("another kind of key is ordered")
    if not same:
        result.append("the request is for other names")
    return result


def _reasons(leaf: Leaf | None, csr: str, is_pair: bool, wanted: dict[str, Any]) -> list[str]:
    """Why the certificate has to be replaced."""
    if leaf is None:
        return ["there is none"]
    now = _now(wanted)
    life = leaf.end - leaf.start
    spent = (now - leaf.start) / life
    found = [
        ("it belongs to another key", not is_pair or leaf.public_key != _request_key(csr)),
        (f"its name is {leaf.subject}", leaf.subject != _subject(wanted["common_name"])),
        ("its alternative names differ", leaf.names != sorted(wanted["subject_alt_names"])),
        ("its usage differs", leaf.usages != [USAGES[wanted["usage"]].dotted_string]),
        ("the issuing authority is another one", leaf.issuer_key != key_identifier(wanted["intermediate"])),
        (
            f"it lives longer than {wanted['validity']} days",
            life > float(wanted["validity"]) * DAY + HEAD_START,
        ),
        ("it has expired", now >= leaf.end),
        (f"{100 * spent:.1f} % of its life have passed", wanted["renew_at"] <= spent and now < leaf.end),
        ("all are renewed", wanted["renew_all"]),
    ]
    return [text for text, applies in found if applies]


def _install(state: _Host, leaf: Leaf | None, wanted: dict[str, Any]) -> list[str]:
    """What of the public files differs, apart from the certificate itself."""
    result = []
    authorities = f"{wanted['directory']}/ca.crt"
    if state.text_of(authorities) != wanted["authorities"]:
        result.append("the authorities differ")
    if leaf is not None and state.text("crt") != chain(leaf.pem, wanted["intermediate"]):
        result.append("the chain differs")
    result += [
        f"owner or mode of {path} differ"
        for path in (authorities, state.path("crt"))
        if state.exists(path) and not state.is_as(path, "file", "root", "root", "0644")
    ]
    return result


def fingerprint(pem: str) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return hashlib.sha256(
        x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    ).hexdigest()


def chain(leaf: str, intermediate: str) -> str:
    """The content of a certificate's file."""
    return leaf.strip() + "\n" + "".join(split_pem(intermediate))


def _request_key(csr: str) -> bytes:
    try:
        return _public_bytes(x509.load_pem_x509_csr(csr.encode()).public_key())
    except ValueError:
        return b""


def _public_bytes(key: Any) -> bytes:
    found: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def _kind(key: object) -> tuple[str, int | str]:
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA", key.key_size
    return ("EC", key.curve.name) if isinstance(key, ec.EllipticCurvePublicKey) else ("unknown", 0)


def _ordered_kind(wanted: dict[str, Any]) -> tuple[str, int | str]:
    return ("RSA", int(wanted["key_size"])) if wanted["key_type"] == "RSA" else ("EC", wanted["curve"])


def _subject(common_name: str) -> str:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]).rfc4514_string()


def _names(holder: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    """The alternative names as the role spells them, sorted."""
    found = _extension(holder, x509.SubjectAlternativeName)
    if found is None:
        return []
    kinds = {x509.DNSName: "DNS", x509.IPAddress: "IP"}
    return sorted(f"{kinds.get(type(name), type(name).__name__)}:{name.value}" for name in found)


def _extension(holder: Any, kind: Any) -> Any:
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None

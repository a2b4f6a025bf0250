# SPDX-License-Identifier: Apache-2.0
"""What ingest makes of one message before it goes to the database."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from energy_hub.batch import BatchError, Envelope, read_body, read_envelope
from energy_hub.revocation import NOTHING_REVOKED, CertificateId, Revocations, certificate_id
from energy_hub.store import Signed, Store
from energy_hub.times import scattered
from energy_hub.trust import TrustedKey, TrustError, batch_is_signed_by, check_statement, load_certificates

ROOT = "energy/v1"
SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")
MAX_STATUS = 65_536
# Keys that a certificate may vouch for, and that a site may have for which a certificate vouches that is not revoked. A
# gateway makes one when it is set up, and keeps it as long as its disk.
KEYS_OF_A_CERTIFICATE, KEYS_OF_A_SITE = 8, 64
_STREAM = re.compile(r"[0-9a-f]{16}")


class StatusError(ValueError):
    """A status message that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A payload whose fixed fields make no sense: nobody can be asked to vouch for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Untrusted:
    """Signed by no known key of its site, or by one that only revoked certificates vouch for: it stays
    unacknowledged, and the gateway will send it again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """The parts of a status message that the hub uses; `stream` is 8 bytes or None."""

    state: str
    stream: bytes | None
    key: object
    kept: dict[str, object]


def split_topic(topic: str) -> tuple[str, str]:
    """`energy/v1/<site>/<kind>` as (site, kind). Raises ValueError."""
    parts = topic.split("/")
    if len(parts) != 4 or "/".join(parts[:2]) != ROOT or not SITE.fullmatch(parts[2]):
        raise ValueError(f"topic {topic!r}: expected {ROOT}/<site>/<kind>")
    return parts[2], parts[3]


def examine(
    store: Store, site: str, payload: bytes, limit: int, revocations: Revocations = NOTHING_REVOKED
) -> Signed | Unreadable | Untrusted:
    """Check one batch: size, fixed fields, signature, body. Raises psycopg.Error when keys must be looked
    up."""
    if len(payload) > limit:
        return Unreadable(f"{len(payload)} bytes, at most {limit} are allowed")
    try:
        envelope = read_envelope(payload)
    except BatchError as error:
        return Unreadable(str(error))
    signer = _signer(store, site, envelope, revocations)
    if isinstance(signer, str):
        return Untrusted(f"stream {envelope.stream.hex()} sequence {envelope.sequence}: {signer}")
    site_id, key_id = signer
    try:
        body = read_body(envelope)
    except BatchError as error:
        return Signed(site, site_id, key_id, payload, envelope, None, str(error))
    reason = (
        f"is of site {body.site!r}, came on the topic of {site}" if body.site != site else scattered(body)
    )
    if reason:
        return Signed(site, site_id, key_id, payload, envelope, None, reason)
    return Signed(site, site_id, key_id, payload, envelope, body)


def _signer(store: Store, site: str, envelope: Envelope, revocations: Revocations) -> tuple[int, int] | str:
    """Numbers of the site and of the key that signed, or why there is none."""
    why = "signed by no known key of the site"
    # By public key: what looking at it has told.
    signers: dict[bytes, bool] = {}
    for again in (False, True):
        found = store.keys(site, again=again)
        if found is None:
            continue
        site_id, keys = found
        for key in keys:
            if key.public not in signers:
                signers[key.public] = batch_is_signed_by(key.public, envelope.signature, envelope.signed)
            if not signers[key.public]:
                continue
            revoked = revocations.when(key.certificate)
            if revoked is None:
                return site_id, key.id
            why = (
                f"the certificate {key.certificate[1]:x} that vouches for its key was revoked on"
                f" {revoked:%Y-%m-%dT%H:%M:%SZ}"
            )
    return why


def read_status(site: str, payload: bytes) -> Status:
    """Raises StatusError."""
    if len(payload) > MAX_STATUS:
        raise StatusError(f"{len(payload)} bytes, at most {MAX_STATUS} are allowed")
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        raise StatusError("is not JSON") from None
    if not isinstance(document, dict):
        raise StatusError("is not a JSON object")
    state = document.get("state")
    if state not in ("online", "offline"):
        raise StatusError(f"state {state!r:.40}, expected online or offline")
    if document.get("site") != site:
        raise StatusError(f"is of site {document.get('site')!r:.60}, came on the topic of {site}")
    stream = document.get("stream")
    if stream is not None and not (isinstance(stream, str) and _STREAM.fullmatch(stream)):
        raise StatusError(f"stream {stream!r:.40}, expected 16 hex digits")
    return Status(
        state=state,
        stream=bytes.fromhex(stream) if stream else None,
        key=document.get("key"),
        kept=_plain(
            {
                name: document.get(name)
                for name in ("time", "version", "stream", "first", "sequence", "buffer", "witness")
            }
        ),
    )


def learn_key(
    store: Store,
    site: str,
    status: Status,
    authorities: Sequence[x509.Certificate],
    revocations: Revocations = NOTHING_REVOKED,
) -> bytes | None:
    """Trust the key of an online status when its statement verifies; the key's 32 bytes when it is new, or when
    another certificate vouches for it now, None when both were known or the status carries none. Raises TrustError,
    psycopg.Error."""
    if status.key is None or _is_known(store, site, status.key, revocations):
        return None
    key = check_statement(site, status.key, authorities, datetime.now(UTC), revocations)
    _check_room(store, site, key, revocations)
    store.trust(site, key)
    return key.public


def _check_room(store: Store, site: str, key: TrustedKey, revocations: Revocations) -> None:
    """Each key of a site is kept for ever, and makes each batch dearer that none of them has signed. Raises
    TrustError."""
    found = store.keys(site)
    known = found[1] if found else []
    if any(one.public == key.public for one in known):
        # Another certificate of our authority for the same key, as every renewal brings one.
        return
    certificate = certificate_id(load_certificates(key.certificate.encode())[0])
    if sum(one.certificate == certificate for one in known) >= KEYS_OF_A_CERTIFICATE:
        raise TrustError(
            f"certificate {certificate[1]:x} vouches for {KEYS_OF_A_CERTIFICATE} keys already, and may for no more:"
            " the gateway has gone wrong, or needs another certificate"
        )
    if len({one.public for one in known if revocations.when(one.certificate) is None}) >= KEYS_OF_A_SITE:
        raise TrustError(
            f"it has {KEYS_OF_A_SITE} keys already, and may have no more until a certificate that vouches for some is"
            " revoked"
        )


def _is_known(store: Store, site: str, key: object, revocations: Revocations) -> bool:
    """Whether nothing is to be learned. A key that was trusted once stays trusted, though its certificate may have
    expired since. Where that was revoked, or renewed, another one has to vouch for it."""
    if not isinstance(key, dict) or not isinstance(key.get("public"), str):
        raise TrustError("key has no public part")
    try:
        public = base64.b64decode(key["public"], validate=True)
    except (binascii.Error, ValueError):
        raise TrustError("public is not base64") from None
    presented = _presented(key)
    # Another worker may have learned the certificate.
    for again in (False, True):
        vouching = store.vouching(site, public, again=again)
        if presented in vouching and any(revocations.when(one) is None for one in vouching):
            return True
    return False


def _presented(key: dict[str, object]) -> CertificateId | None:
    pem = key.get("certificate")
    found = load_certificates(pem.encode(errors="replace")) if isinstance(pem, str) else []
    return certificate_id(found[0]) if found else None


def _plain(document: dict[str, object]) -> dict[str, object]:
    """Numbers, short texts and one level of mapping only: the rest of a status is not ours to keep."""
    kept: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            kept[name] = {
                key: number
                for key, number in list(value.items())[:20]
                if key.isidentifier() and _is_plain(number)
            }
        elif _is_plain(value):
            kept[name] = value
    return kept


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isprintable() and len(value) <= 64
    return isinstance(value, int) and abs(value) < 2**63

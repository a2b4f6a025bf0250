# SPDX-License-Identifier: Apache-2.0
"""What a gateway's renewed certificate changes at the hub, where the key that signs its batches stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from energy_hub import pipeline, report
from energy_hub.fleet.document import document
from energy_hub.pipeline import Untrusted, examine, learn_key, read_status
from energy_hub.revocation import NOTHING_REVOKED, Revocations
from energy_hub.store import Signed, Store
from energy_hub.trust import TrustError

from .authority import Authority, Identity
from .conftest import Database
from .test_store import LIMIT, readings
from .writer import Gateway

SITE = "plant-a"


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(SITE, Ed25519PrivateKey.generate())


def presents(
    store: Store,
    authority: Authority,
    gateway: Gateway,
    by: Identity,
    revocations: Revocations = NOTHING_REVOKED,
) -> bytes | None:
    """An online status with the key, vouched for by a certificate."""
    payload = {"state": "online", "site": SITE, "key": authority.key_statement(by, SITE, gateway.public)}
    status = read_status(SITE, json.dumps(payload).encode())
    authorities = [authority.root.certificate, authority.intermediate.certificate]
    return learn_key(store, SITE, status, authorities, revocations)


def revoked(authority: Authority, folder: Path, *certificates: Identity) -> Revocations:
    path = folder / "crl.pem"
    path.write_text(authority.crl(certificates))
    return Revocations(path, [authority.intermediate.certificate])


def days_left(database: Database) -> list[int]:
    """By what `energy-hub status` says, and `energy-hub fleet`."""
    with database.connect("energy_read") as connection:
        connection.execute("SET timezone = 'UTC'")
        (row,) = report.sites(connection)
        seen: int = document(connection)["sites"][SITE]["certificate"]["days_left"]
    return [(row["certificate_expires"] - datetime.now(UTC)) // timedelta(days=1), seen]


def fingerprints(database: Database) -> list[bytes]:
    rows = database.rows("SELECT fingerprint FROM site_key ORDER BY id")
    return [bytes(found) for (found,) in rows if isinstance(found, bytes)]


def test_the_days_that_are_left_grow_with_each_renewal(
    database: Database, store: Store, authority: Authority, gateway: Gateway
) -> None:
    certificates = [authority.client(SITE, end=timedelta(days=days, minutes=5)) for days in (20, 50, 80)]
    for one, days in zip(certificates, (20, 50, 80), strict=True):
        assert presents(store, authority, gateway, one) == gateway.public
        assert days_left(database) == [days, days]
        assert presents(store, authority, gateway, one) is None, "known from then on"
    assert fingerprints(database) == [one.certificate.fingerprint(SHA256()) for one in certificates]
    found = examine(store, SITE, gateway.batch(readings()), LIMIT)
    assert isinstance(found, Signed)
    # By the certificate that vouches for it now.
    assert database.one("SELECT max(id) FROM site_key") == found.key_id


def test_a_known_certificate_that_has_ended_is_no_trouble(
    database: Database,
    store: Store,
    authority: Authority,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At this worker, and at another one that had looked before it was learned."""
    first, second = authority.client(SITE), authority.client(SITE)
    other = Store(database.conninfo("energy_ingest"))
    for one in (store, other):
        presents(one, authority, gateway, first)
    presents(store, authority, gateway, second)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # always aware
            return datetime.now(UTC) + timedelta(days=400)

    monkeypatch.setattr(pipeline, "datetime", Later)
    for one in (store, other):
        for certificate in (first, second):
            assert presents(one, authority, gateway, certificate) is None
    with pytest.raises(TrustError, match="is valid from"):
        presents(store, authority, gateway, authority.client(SITE))
    assert len(fingerprints(database)) == 2
    other.close()


def test_a_key_is_trusted_by_the_certificate_that_is_not_revoked(
    store: Store, authority: Authority, gateway: Gateway, tmp_path: Path
) -> None:
    old, new = authority.client(SITE), authority.client(SITE)
    for one in (old, new):
        presents(store, authority, gateway, one)
    batch = gateway.batch(readings())
    for gone in (old, new):
        revocations = revoked(authority, tmp_path, gone)
        assert isinstance(examine(store, SITE, batch, LIMIT, revocations), Signed)
        assert presents(store, authority, gateway, new, revocations) is None
    both = revoked(authority, tmp_path, old, new)
    assert isinstance(examine(store, SITE, batch, LIMIT, both), Untrusted)
    with pytest.raises(TrustError, match="was revoked on"):
        presents(store, authority, gateway, new, both)


def test_a_stranger_gives_a_known_key_no_certificate(
    database: Database, store: Store, authority: Authority, gateway: Gateway
) -> None:
    presents(store, authority, gateway, authority.client(SITE))
    with pytest.raises(TrustError):
        presents(store, authority, gateway, Authority().client(SITE))
    with pytest.raises(TrustError, match="common name is plant-b"):
        presents(store, authority, gateway, authority.client("plant-b"))
    assert len(fingerprints(database)) == 1

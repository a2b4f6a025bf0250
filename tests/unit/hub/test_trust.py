# SPDX-License-Identifier: Apache-2.0
"""Key statements: one that holds, and one for each way not to."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub.trust import TrustedKey, TrustError, check_statement

from .authority import Authority, Identity, issue

PUBLIC = Ed25519PrivateKey.generate().public_key().public_bytes_raw()


def check(
    authority: Authority, statement: object, *, site: str = "plant-a", intermediate: bool = False
) -> TrustedKey:
    known: list[x509.Certificate] = [authority.root.certificate]
    if intermediate:
        known.append(authority.intermediate.certificate)
    return check_statement(site, statement, known, datetime.now(UTC))


@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_statement_that_holds(authority: Authority, kind: str) -> None:
    leaf = authority.client("plant-a", kind=kind)
    key = check(authority, authority.key_statement(leaf, "plant-a", PUBLIC))
    assert key.public == PUBLIC
    assert key.certificate == authority.chain(leaf)
    assert key.not_after == leaf.certificate.not_valid_after_utc


def test_intermediate_may_come_from_the_ca_file(authority: Authority) -> None:
    leaf = authority.client("plant-a")
    statement = authority.key_statement(leaf, "plant-a", PUBLIC) | {"certificate": leaf.pem()}
    check(authority, statement, intermediate=True)
    with pytest.raises(TrustError, match="no certificate of the issuer CN=Test issuing is known"):
        check(authority, statement)


def refused(authority: Authority, leaf: Identity, message: str) -> None:
    with pytest.raises(TrustError, match=message):
        check(authority, authority.key_statement(leaf, "plant-a", PUBLIC))


def test_other_common_name(authority: Authority) -> None:
    refused(authority, authority.client("plant-b"), "common name is plant-b, expected plant-a")


def test_expired(authority: Authority) -> None:
    refused(authority, authority.client("plant-a", end=timedelta(seconds=-5)), "is valid from .* only")


def test_not_yet_valid(authority: Authority) -> None:
    refused(authority, authority.client("plant-a", start=timedelta(days=1)), "is valid from .* only")


def test_server_certificate(authority: Authority) -> None:
    refused(authority, authority.client("plant-a", server=True), "not meant for client authentication")


def test_foreign_authority(authority: Authority) -> None:
    foreign = Authority()
    with pytest.raises(TrustError, match="no certificate of the issuer"):
        check(authority, foreign.key_statement(foreign.client("plant-a"), "plant-a", PUBLIC))


def test_self_signed_root_that_is_brought_along(authority: Authority) -> None:
    foreign = Authority()
    statement = foreign.key_statement(foreign.client("plant-a"), "plant-a", PUBLIC)
    statement["certificate"] += foreign.root.pem()
    with pytest.raises(TrustError, match="no root of the CA file"):
        check(authority, statement)


def test_leaf_that_issues(authority: Authority) -> None:
    leaf = authority.client("plant-b")
    fake = issue("plant-a", leaf)
    statement = authority.key_statement(fake, "plant-a", PUBLIC)
    statement["certificate"] = fake.pem() + leaf.pem() + authority.intermediate.pem()
    with pytest.raises(TrustError, match="CN=plant-b is not a certificate authority"):
        check(authority, statement)


def test_statement_of_another_key(authority: Authority) -> None:
    statement = authority.key_statement(authority.client("plant-a"), "plant-a", PUBLIC)
    statement["public"] = base64.b64encode(bytes(32)).decode()
    with pytest.raises(TrustError, match="not signed by the certificate's key"):
        check(authority, statement)


def test_statement_for_another_site(authority: Authority) -> None:
    leaf = authority.client("plant-a")
    statement = authority.key_statement(leaf, "plant-a", PUBLIC)
    statement["statement"] = base64.b64encode(leaf.state("plant-b", PUBLIC)).decode()
    with pytest.raises(TrustError, match="not signed by the certificate's key"):
        check(authority, statement)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public": "!"}, "public is not base64"),
        ({"public": "AAAA"}, "public key of 3 bytes, expected 32"),
        ({"statement": None}, "statement is missing"),
        ({"certificate": ""}, "holds no certificate"),
        ({"certificate": 5}, "certificate is missing"),
        ({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "cannot be read"),
    ],
)
def test_malformed(authority: Authority, change: dict[str, object], message: str) -> None:
    statement = authority.key_statement(authority.client("plant-a"), "plant-a", PUBLIC)
    with pytest.raises(TrustError, match=message):
        check(authority, statement | change)
    with pytest.raises(TrustError, match="not an object"):
        check(authority, "text")

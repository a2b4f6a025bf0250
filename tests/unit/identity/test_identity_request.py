# SPDX-License-Identifier: Apache-2.0
"""identity_request on real files: the key is made once, never overwritten while it is used, and never told."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import identity_request as module
from cryptography import x509
from cryptography.hazmat.primitives import serialization

OWNER = (os.geteuid(), os.getegid())


def order(**changes: Any) -> module.Order:
    values = {
        "key_type": "EC",
        "key_size": 4096,
        "curve": "secp256r1",
        "common_name": "plant-a",
        "names": [],
        "usage": "client",
    }
    return module.Order(**{**values, **changes})


def bring(
    folder: Path, *, check: bool = False, new_key: bool = False, **changes: Any
) -> tuple[Any, list[str]]:
    request = module.Request(folder, "gateway", order(**changes), OWNER, 0o600, new_key=new_key)
    return request.bring(check=check), request.actions


def key_bytes(path: Path) -> bytes:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    return module.public_bytes(key.public_key())


def test_the_first_run_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    (csr, digest, is_next), actions = bring(tmp_path)
    assert actions == ["gateway.key made as EC secp256r1", "gateway.csr written"]
    assert (len(digest), is_next) == (64, False)
    assert stat.S_IMODE((tmp_path / "gateway.key").stat().st_mode) == 0o600
    assert (tmp_path / "gateway.csr").read_text() == csr
    request = x509.load_pem_x509_csr(csr.encode())
    assert request.subject.rfc4514_string() == "CN=plant-a"
    assert module.public_bytes(request.public_key()) == key_bytes(tmp_path / "gateway.key")
    assert sorted(one.oid.dotted_string for one in request.extensions) == [
        "2.5.29.15",
        "2.5.29.19",
        "2.5.29.37",
    ]


def test_the_second_run_changes_nothing(tmp_path: Path) -> None:
    first, _ = bring(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second, actions = bring(tmp_path)
    assert (second, actions) == (first, [])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_check_run_makes_nothing(tmp_path: Path) -> None:
    (csr, digest, _), actions = bring(tmp_path, check=True)
    assert (csr, digest) == ("", "")
    assert actions == ["gateway.key made as EC secp256r1"]
    assert list(tmp_path.iterdir()) == []


def test_another_name_is_asked_for_with_the_same_key(tmp_path: Path) -> None:
    bring(tmp_path)
    key = (tmp_path / "gateway.key").read_bytes()
    (csr, _, _), actions = bring(tmp_path, names=["DNS:hub.example", "IP:192.0.2.1"], usage="server")
    assert actions == ["gateway.csr written"]
    assert (tmp_path / "gateway.key").read_bytes() == key
    names = x509.load_pem_x509_csr(csr.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(name.value) for name in names.value] == ["hub.example", "192.0.2.1"]


def test_a_key_in_use_is_not_overwritten(tmp_path: Path) -> None:
    bring(tmp_path)
    (tmp_path / "gateway.crt").write_text("a certificate")
    key = (tmp_path / "gateway.key").read_bytes()
    (csr, _, is_next), actions = bring(tmp_path, curve="secp384r1")
    assert is_next
    assert actions == ["gateway.next.key made as EC secp384r1", "gateway.csr written"]
    assert (tmp_path / "gateway.key").read_bytes() == key
    # A run that was stopped before the certificate came goes on with the same one.
    (again, _, _), actions = bring(tmp_path, curve="secp384r1")
    assert (again, actions) == (csr, [])


def test_a_new_key_is_made_on_demand_only(tmp_path: Path) -> None:
    bring(tmp_path)
    (tmp_path / "gateway.crt").write_text("a certificate")
    (_, _, is_next), _ = bring(tmp_path, new_key=True)
    assert is_next
    # Nobody wants it any more: the request is for the key in use again.
    (csr, _, is_next), actions = bring(tmp_path)
    assert not is_next
    assert actions == ["gateway.next.key dropped: it was not put to use", "gateway.csr written"]
    assert module.public_bytes(x509.load_pem_x509_csr(csr.encode()).public_key()) == key_bytes(
        tmp_path / "gateway.key"
    )


@pytest.mark.parametrize(
    "content", ["", "rubbish", "-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_key_that_nobody_can_read_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "gateway.key").write_text(content)
    (tmp_path / "gateway.crt").write_text("a certificate")
    (_, _, is_next), actions = bring(tmp_path)
    assert not is_next
    assert actions[0] == "gateway.key made as EC secp256r1"


def test_a_key_that_was_opened_is_closed(tmp_path: Path) -> None:
    bring(tmp_path)
    (tmp_path / "gateway.key").chmod(0o644)
    _, actions = bring(tmp_path, check=True)
    assert actions == ["gateway.key set to mode 0600"]
    bring(tmp_path)
    assert stat.S_IMODE((tmp_path / "gateway.key").stat().st_mode) == 0o600


def test_a_damaged_request_is_written_again(tmp_path: Path) -> None:
    (csr, _, _), _ = bring(tmp_path)
    (tmp_path / "gateway.csr").write_text(csr[: len(csr) // 2])
    _, actions = bring(tmp_path)
    assert actions == ["gateway.csr written"]


def test_rsa_is_made_as_ordered(tmp_path: Path) -> None:
    bring(tmp_path, key_type="RSA", key_size=2048)
    assert module.kind_of(module.load_key(tmp_path / "gateway.key")) == "RSA 2048"


def test_a_name_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'URI:x', expected DNS:… or IP:…"):
        module.general_names(["URI:x"])
    with pytest.raises(ValueError, match="does not appear to be an IPv4"):
        module.general_names(["IP:hub"])

# SPDX-License-Identifier: Apache-2.0
"""What of a host's identity is found to differ, from what host_state tells of it."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils import _state_files
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _identity as module
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.unit.hub.authority import Authority, Identity, issue, name

FOLDER = "/etc/ssl/energy"
DAY = 86400


def csr_of(identity: Identity, common_name: str = "plant-a", alternative: str = "") -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common_name))
    if alternative:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(alternative)]), critical=False
        )
    return builder.sign(identity.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def described(owner: str, mode: str, kind: str = "file") -> dict[str, str]:
    return {"type": kind, "owner": owner, "group": owner, "mode": mode}


class Case:
    """A host on which nothing differs, to be changed by a test."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        # As sign.yml does: it starts an hour early.
        above = issue("Test issuing", authority.root, ca=True)
        self.leaf = issue("plant-a", above, start=timedelta(hours=-1), end=timedelta(days=365))
        intermediate = above.pem()
        self.wanted: dict[str, Any] = {
            "directory": FOLDER,
            "name": "gateway",
            "common_name": "plant-a",
            "subject_alt_names": [],
            "usage": "client",
            "key_type": "EC",
            "key_size": 4096,
            "curve": "secp256r1",
            "owner": "energy",
            "group": "energy",
            "key_mode": "0600",
            "packages": ["python3-cryptography"],
            "validity": 365,
            "renew_at": 0.5,
            "renew_all": False,
            "new_key": False,
            "intermediate": intermediate,
            "authorities": authority.root.pem() + intermediate,
        }
        self.host: dict[str, Any] = {
            "packages": {"python3-cryptography": "38.0.4-3"},
            "users": {"energy": {"uid": 999}},
            "groups": {"energy": {"gid": 999}},
            "files": {
                FOLDER: described("root", "0755", "directory"),
                f"{FOLDER}/gateway.key": described("energy", "0600"),
                f"{FOLDER}/gateway.crt": described("root", "0644"),
                f"{FOLDER}/ca.crt": described("root", "0644"),
            },
            "texts": {
                f"{FOLDER}/gateway.crt": self.leaf.pem() + intermediate,
                f"{FOLDER}/gateway.csr": csr_of(self.leaf),
                f"{FOLDER}/ca.crt": self.wanted["authorities"],
            },
            "key_pairs": {f"{FOLDER}/gateway.crt": True},
        }

    def found(self, **wanted: Any) -> dict[str, Any]:
        return module.differences(self.host, {**self.wanted, **wanted})


@pytest.fixture
def case(authority: Authority) -> Case:
    return Case(authority)


def test_nothing_differs(case: Case) -> None:
    found = case.found()
    assert (found["packages"], found["group"], found["user"], found["directory"]) == ([], False, False, False)
    assert (found["request"], found["reasons"], found["install"]) == ([], [], [])
    assert found["days_left"] == pytest.approx(365, abs=0.1)
    assert found["serial"] == f"{case.leaf.certificate.serial_number:x}"
    assert len(found["authorities"]) == 2


def test_what_a_cut_has_left_of_a_change_of_the_key_is_looked_after(case: Case) -> None:
    """Key and certificate are links until identity_install has finished, and that runs where they are."""
    for ending in ("key", "crt"):
        case.host["files"][f"{FOLDER}/gateway.{ending}"] = described("root", "0777", "link")
        assert case.found()["install" if ending == "crt" else "request"], ending
    assert case.found()["reasons"] == []


def test_a_fresh_host_lacks_everything(case: Case) -> None:
    case.host.update(packages={}, users={"energy": None}, groups={}, files={}, texts={}, key_pairs={})
    found = case.found()
    assert (found["packages"], found["user"], found["directory"]) == (["python3-cryptography"], True, True)
    # The group comes with the user of the same name.
    assert found["group"] is False
    assert case.found(group="energy-tls", owner="root")["group"] is True
    assert found["request"] == ["there is no key", "there is no request"]
    assert found["reasons"] == ["there is none"]
    assert (found["serial"], found["days_left"]) == ("", None)


@pytest.mark.parametrize(
    ("wanted", "reasons"),
    [
        ({"now": time.time() + 182 * DAY}, []),
        ({"now": time.time() + 183 * DAY}, ["50.1 % of its life have passed"]),
        ({"now": time.time() + 366 * DAY}, ["it has expired"]),
        ({"renew_all": True}, ["all are renewed"]),
        ({"validity": 30}, ["it lives longer than 30 days"]),
        ({"common_name": "plant-b"}, ["its name is CN=plant-a"]),
        ({"subject_alt_names": ["DNS:a.example"]}, ["its alternative names differ"]),
        ({"usage": "server"}, ["its usage differs"]),
    ],
)
def test_reasons_to_replace_it(case: Case, wanted: dict[str, Any], reasons: list[str]) -> None:
    assert case.found(**wanted)["reasons"] == reasons


def test_another_issuer_is_a_reason_and_the_chain_follows(case: Case, stranger: Authority) -> None:
    found = case.found(intermediate=issue("Other issuing", stranger.root, ca=True).pem())
    assert found["reasons"] == ["the issuing authority is another one"]
    assert found["install"] == ["the chain differs"]


@pytest.mark.parametrize("change", ["the key on disk", "the request"])
def test_another_key_is_a_reason(case: Case, change: str) -> None:
    if change == "the key on disk":
        case.host["key_pairs"][f"{FOLDER}/gateway.crt"] = False
    else:
        case.host["texts"][f"{FOLDER}/gateway.csr"] = csr_of(case.authority.client("plant-a"))
    assert case.found()["reasons"] == ["it belongs to another key"]


def test_the_request_that_was_just_written_counts(case: Case) -> None:
    other = csr_of(case.authority.client("plant-a"))
    assert module.differences(case.host, case.wanted, csr=other)["reasons"] == ["it belongs to another key"]


@pytest.mark.parametrize(
    ("wanted", "request_reasons"),
    [
        ({"key_type": "RSA"}, ["another kind of key is ordered"]),
        ({"curve": "secp384r1"}, ["another kind of key is ordered"]),
        ({"new_key": True}, ["a new key is ordered"]),
        ({"key_mode": "0640"}, ["owner, group or mode of the key differ"]),
        ({"common_name": "plant-b"}, ["the request is for other names"]),
    ],
)
def test_reasons_to_look_after_key_and_request(
    case: Case, wanted: dict[str, Any], request_reasons: list[str]
) -> None:
    assert case.found(**wanted)["request"] == request_reasons


def test_a_damaged_certificate_is_none(case: Case) -> None:
    case.host["texts"][f"{FOLDER}/gateway.crt"] = (
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    assert case.found()["reasons"] == ["there is none"]


def test_files_that_are_not_as_they_should_be(case: Case) -> None:
    case.host["texts"][f"{FOLDER}/ca.crt"] += "# a line too many\n"
    case.host["files"][f"{FOLDER}/gateway.crt"]["mode"] = "0666"
    case.host["files"][FOLDER]["mode"] = "0777"
    found = case.found()
    assert found["install"] == ["the authorities differ", f"owner or mode of {FOLDER}/gateway.crt differ"]
    assert found["directory"] is True


def test_the_host_tells_whether_certificate_and_key_belong_together(
    tmp_path: Path, authority: Authority
) -> None:
    mine, other = authority.client("plant-a"), authority.client("plant-a")
    for one, key in (("fits", mine), ("differs", other)):
        (tmp_path / f"{one}.crt").write_text(mine.pem())
        (tmp_path / f"{one}.key").write_text(key.key_pem())
    (tmp_path / "alone.crt").write_text(mine.pem())
    (tmp_path / "closed.crt").write_text(mine.pem())
    (tmp_path / "closed.key").write_bytes(
        mine.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert _state_files.key_pairs([f"{tmp_path}/*.crt", f"{tmp_path}/*.csr"]) == {
        f"{tmp_path}/closed.crt": False,
        f"{tmp_path}/differs.crt": False,
        f"{tmp_path}/fits.crt": True,
    }

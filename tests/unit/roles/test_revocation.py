# SPDX-License-Identifier: Apache-2.0
"""Revoking on the controller: what is entered, and the lists that are signed of it."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.wattfleet.energy.plugins.modules import certificate_revocation, revocation_list
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.unit.hub.authority import Identity, issue

PASSPHRASE = "correct horse battery"
UTC = UTC


def run(
    module: Any, capsys: pytest.CaptureFixture[str], check: bool = False, **arguments: Any
) -> dict[str, Any]:
    """The answer of a module, with `failed` when it failed, and what it said on standard error as `said`."""
    with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    told = capsys.readouterr()
    return json.loads(told.out) | {"said": told.err}


def warnings(told: dict[str, Any]) -> list[str]:
    """What a module has warned of; ansible-core 2.19 and newer wrap each warning in an object. In a process that has
    loaded the controller's half as well they show it on standard error instead, broken into lines."""
    said = [" ".join(one.split()) for one in told["said"].split("[WARNING]: ")[1:]]
    return [json.dumps(one) for one in told.get("warnings", [])] + said


class Folder:
    """An authority's folder with a ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "issued").mkdir()
        self.root = issue("Test root", None, ca=True)
        self.issuers: list[str] = []
        self.intermediates: list[Identity] = []

    def intermediate(self, name: str) -> Identity:
        made = issue(name, self.root, ca=True)
        file = self.path / f"{len(self.issuers)}"
        file.with_suffix(".crt").write_text(made.pem())
        file.with_suffix(".key").write_bytes(
            made.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(PASSPHRASE.encode()),
            )
        )
        self.issuers.append(f"{file}.crt")
        self.intermediates.append(made)
        return made

    def enter(self, name: str, serial: int, days: float = 300) -> None:
        end = datetime.now(UTC) + timedelta(days=days)
        entry = {"name": name, "serial": f"{serial:x}", "not_after": end.strftime("%Y%m%d%H%M%SZ")}
        with (self.path / "issued" / f"{name}.jsonl").open("a") as ledger:
            ledger.write(json.dumps(entry) + "\n")

    @property
    def list(self) -> Path:
        return self.path / "crl.pem"

    def lists(self) -> list[x509.CertificateRevocationList]:
        return revocation_list.lists_in(self.list.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.intermediate("Test issuing")
    return made


def revoke(folder: Folder, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    return run(certificate_revocation, capsys, directory=str(folder.path), who="test", **arguments)


def sign(folder: Folder, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    given = {
        "path": str(folder.list),
        "revoked": str(folder.path / "revoked.jsonl"),
        "issuers": folder.issuers,
        "passphrase": PASSPHRASE,
    }
    return run(revocation_list, capsys, **{**given, **arguments})


def test_all_living_certificates_of_a_name_once(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    for serial, days in ((0xA1, -1), (0xA2, 10), (0xA3, 300)):
        folder.enter("lab-01", serial, days)
    folder.enter("lab-02", 0xB1)
    told = revoke(folder, capsys, name="lab-01", reason="keyCompromise", check=True)
    assert told["changed"]
    assert not (folder.path / "revoked.jsonl").exists()
    told = revoke(folder, capsys, name="lab-01", reason="keyCompromise")
    assert [(one["serial"], one["reason"], one["who"]) for one in told["added"]] == [
        ("a2", "keyCompromise", "test"),
        ("a3", "keyCompromise", "test"),
    ]
    assert told["expired"] == 1
    before = (folder.path / "revoked.jsonl").read_text()
    told = revoke(folder, capsys, name="lab-01")
    assert (told["changed"], told["added"], told["already"]) == (False, [], ["a2", "a3"])
    assert (folder.path / "revoked.jsonl").read_text() == before


def test_one_certificate_by_its_number(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.enter("lab-01", 0xA1)
    folder.enter("lab-01", 0xA2)
    told = revoke(folder, capsys, serial="00:A2", reason="superseded")
    assert told["name"] == "lab-01"
    assert [one["serial"] for one in told["added"]] == ["a2"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "lab-1"}, "no certificate was ever issued to 'lab-1' .*; did you mean lab-01\\?"),
        ({"name": "../lab-01"}, "no certificate was ever issued to '\\.\\./lab-01'"),
        ({"name": "zzz"}, r"no certificate was ever issued to 'zzz' .*\(1 names are in its ledger\)"),
        ({"serial": "ff"}, "no certificate with the serial number ff is in the ledger of"),
        ({"serial": "xyz"}, "serial 'xyz': up to 40 hexadecimal digits are expected"),
    ],
)
def test_whom_nobody_knows_is_one_line(
    folder: Folder, capsys: pytest.CaptureFixture[str], asked: dict[str, str], message: str
) -> None:
    folder.enter("lab-01", 0xA1)
    told = revoke(folder, capsys, **asked)
    assert told["failed"]
    assert "\n" not in told["msg"]
    assert re.match(message, told["msg"]), told["msg"]


def test_a_torn_last_line_is_told_and_stops_nothing(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The power went while a certificate was entered, and again while a revocation was."""
    folder.enter("lab-01", 0xA1)
    with (folder.path / "issued/lab-01.jsonl").open("a") as ledger:
        ledger.write('{"name": "lab-01", "ser')
    entries = folder.path / "revoked.jsonl"
    entries.write_text('{"serial": "a1", "na')
    told = sign(folder, capsys)
    assert told["lists"][0]["revoked"] == 0
    assert [one for one in warnings(told) if "revoked.jsonl: the last line is torn and left out" in one]
    told = revoke(folder, capsys, name="lab-01")
    assert [one["serial"] for one in told["added"]] == ["a1"]
    torn = [one for one in warnings(told) if "the last line is torn" in one]
    # The other ledger's is not shown again where it was shown before.
    assert any("lab-01.jsonl" in one for one in torn), torn
    assert [json.loads(line)["serial"] for line in entries.read_text().splitlines()] == ["a1"]
    told = sign(folder, capsys)
    assert told["lists"][0]["revoked"] == 1


def test_another_line_that_is_no_entry_stops_it(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.enter("lab-01", 0xA1)
    with (folder.path / "issued/lab-01.jsonl").open("a") as ledger:
        ledger.write('{"name": "lab-01", "ser\n')
    folder.enter("lab-01", 0xA2)
    assert "line 2" in revoke(folder, capsys, name="lab-01")["msg"]


def test_a_list_is_signed_once_and_then_for_each_change(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.enter("lab-01", 0xA1)
    told = sign(folder, capsys)
    assert (told["changed"], told["days_left"], told["lists"][0]["reason"]) == (True, 30.0, "there was none")
    first = folder.lists()[0]
    assert not sign(folder, capsys)["changed"]
    revoke(folder, capsys, name="lab-01", reason="keyCompromise")
    told = sign(folder, capsys)
    assert told["lists"][0]["reason"] == "what is revoked has changed"
    second = folder.lists()[0]
    assert revocation_list.number_of(second) > revocation_list.number_of(first)
    assert second.last_update_utc > first.last_update_utc
    entry = second.get_revoked_certificate_by_serial_number(0xA1)
    assert entry is not None
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value == "keyCompromise"
    assert not sign(folder, capsys)["changed"]
    assert not [file for file in folder.path.iterdir() if file.name.startswith(".")]


def test_openssl_takes_and_refuses_by_it(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    issuer = folder.intermediates[0]
    good, bad = issue("lab-02", issuer), issue("lab-01", issuer)
    folder.enter("lab-01", bad.certificate.serial_number)
    revoke(folder, capsys, name="lab-01")
    sign(folder, capsys)
    (folder.path / "ca.crt").write_text(folder.root.pem() + issuer.pem())

    def verified(one: Identity) -> str:
        (folder.path / "leaf.crt").write_text(one.pem())
        done = subprocess.run(
            ["openssl", "verify", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "ca.crt", "leaf.crt"],
            cwd=folder.path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    assert verified(good) == "leaf.crt: OK\n"
    assert "certificate revoked" in verified(bad)


def test_two_issuers_have_a_list_each(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.intermediate("Test issuing 2")
    folder.enter("lab-01", 0xA1)
    revoke(folder, capsys, name="lab-01")
    sign(folder, capsys)
    assert [(one.issuer.rfc4514_string(), len(one)) for one in folder.lists()] == [
        ("CN=Test issuing", 1),
        ("CN=Test issuing 2", 1),
    ]
    # The old one's key has gone: its list stays as long as it is good.
    Path(folder.issuers[0]).with_suffix(".key").unlink()
    assert not sign(folder, capsys)["changed"]
    folder.enter("lab-02", 0xB1)
    revoke(folder, capsys, name="lab-02")
    assert "bring the key back" in sign(folder, capsys)["msg"]


@pytest.mark.parametrize(("passed", "renewed"), [(0.0, False), (9.8, False), (9.95, True), (40.0, True)])
def test_a_list_is_renewed_at_a_third_of_its_life(
    folder: Folder, capsys: pytest.CaptureFixture[str], passed: float, renewed: bool
) -> None:
    sign(folder, capsys)
    now = datetime.now(UTC) + timedelta(days=passed)
    reason = revocation_list.why(folder.lists()[0], [], 30, 0.33, now)
    assert bool(reason) == renewed, reason


def test_a_list_is_renewed_at_once_when_that_is_asked_for(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(folder, capsys)
    assert not sign(folder, capsys)["changed"]
    assert sign(folder, capsys, renew_at=0)["changed"]


def test_a_list_from_the_future_is_signed_anew(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """By a controller whose clock was ahead: every broker says that it is not valid yet, and lets nobody in."""
    (issuer,) = revocation_list.issuers_of(folder.issuers, [])
    now = datetime.now(UTC).replace(microsecond=0)
    key = folder.intermediates[0].key
    folder.list.write_text(revocation_list.sign(issuer, key, [], 30, now + timedelta(days=20)))
    (ahead,) = folder.lists()
    told = sign(folder, capsys)
    assert told["lists"][0]["reason"] == "it is not valid yet, and nobody can use it"
    (found,) = folder.lists()
    assert revocation_list.times(found)[0] <= now
    assert revocation_list.number_of(found) > revocation_list.number_of(ahead)
    assert not sign(folder, capsys)["changed"]


def test_a_shorter_life_takes_effect(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    sign(folder, capsys)
    told = sign(folder, capsys, days=7)
    assert (told["changed"], told["days_left"]) == (True, 7.0)


def test_a_list_that_was_lost_gets_a_greater_number(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(folder, capsys)
    number = revocation_list.number_of(folder.lists()[0])
    folder.list.unlink()
    assert sign(folder, capsys)["lists"][0]["number"] >= number


def test_a_wrong_passphrase_is_one_line_and_leaves_the_list(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(folder, capsys)
    before = folder.list.read_text()
    told = sign(folder, capsys, passphrase="another one altogether", days=7)
    assert told["failed"]
    assert "Is the passphrase the one it was made with?" in told["msg"]
    assert folder.list.read_text() == before

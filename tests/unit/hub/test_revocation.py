# SPDX-License-Identifier: Apache-2.0
"""Revocation lists: what is read of them, what is refused, and when the hub warns."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli
from energy_hub.commands import tools
from energy_hub.revocation import RevocationError, Revocations, certificate_id
from energy_hub.trust import TrustError, check_statement

from .authority import Authority, Identity

PUBLIC = Ed25519PrivateKey.generate().public_key().public_bytes_raw()


def written(folder: Path, text: str) -> Path:
    path = folder / "crl.pem"
    path.write_text(text)
    return path


def authorities(authority: Authority) -> list:
    return [authority.root.certificate, authority.intermediate.certificate]


def is_revoked(found: Revocations, one: Identity) -> bool:
    return found.when(certificate_id(one.certificate)) is not None


def test_the_lists_of_two_issuers_stand_one_after_the_other(authority: Authority, tmp_path: Path) -> None:
    other = Authority()
    mine, theirs, third = authority.client("plant-a"), other.client("plant-a"), authority.client("plant-b")
    path = written(tmp_path, other.crl([theirs]) + authority.crl([mine]))
    found = Revocations(path, [*authorities(authority), *authorities(other)])
    assert [is_revoked(found, one) for one in (mine, theirs, third)] == [True, True, False]


def test_a_list_that_no_authority_has_signed_revokes_nothing(authority: Authority, tmp_path: Path) -> None:
    """Its issuer's name is the same, its key is not."""
    mine = authority.client("plant-a")
    path = written(tmp_path, Authority().crl([mine]))
    assert not is_revoked(Revocations(path, authorities(authority)), mine)


def test_a_statement_of_a_revoked_certificate(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.client("plant-a")
    found = Revocations(written(tmp_path, authority.crl([leaf])), authorities(authority))
    statement = authority.key_statement(leaf, "plant-a", PUBLIC)
    check_statement("plant-a", statement, authorities(authority), datetime.now(UTC))
    with pytest.raises(TrustError, match=f"certificate {leaf.certificate.serial_number:x} was revoked on 20"):
        check_statement("plant-a", statement, authorities(authority), datetime.now(UTC), found)


def test_a_file_that_is_broken_or_gone_later_changes_nothing(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = authority.client("plant-a")
    path = written(tmp_path, authority.crl([leaf]))
    found = Revocations(path, authorities(authority))
    path.write_text("rubbish")
    found.refresh()
    found.refresh()
    path.unlink()
    found.refresh()
    assert is_revoked(found, leaf)
    assert [record.getMessage() for record in caplog.records] == [
        f"revocation list: {path}: holds no revocation list; what was known stays revoked"
    ]
    second = authority.client("plant-b")
    written(tmp_path, authority.crl([leaf, second]))
    found.refresh()
    assert is_revoked(found, second)


@pytest.mark.parametrize("text", ["", "rubbish", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_a_file_that_cannot_be_read_at_the_start(authority: Authority, tmp_path: Path, text: str) -> None:
    with pytest.raises(RevocationError, match=r"crl\.pem"):
        Revocations(written(tmp_path, text), authorities(authority))


def run(*arguments: str) -> int:
    return cli.main(["crl", *arguments])


def test_the_command_tells_how_long_they_are_good_for(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, authority.crl([authority.client("plant-a")], number=7))
    assert run("--file", str(path), "--json") == tools.OK
    told = json.loads(capsys.readouterr().out)
    assert told["days_left"] == 30.0
    assert [(one["number"], one["revoked"]) for one in told["lists"]] == [(7, 1)]
    assert run("--file", str(path)) == tools.OK
    assert "CN=Test issuing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("left", "code", "expected"),
    [
        (timedelta(days=16), tools.OK, ""),
        (timedelta(days=14, hours=12), tools.OK, "WRN revocation list of CN=Test issuing ends in 14.5 days"),
        (timedelta(hours=-12), tools.FAILED, "ERR revocation list of CN=Test issuing ended 0.5 days ago"),
    ],
)
def test_the_watch_warns_long_before(
    authority: Authority, tmp_path: Path, left: timedelta, code: int, expected: str
) -> None:
    path = written(tmp_path, authority.crl([], begins=left - timedelta(days=30), ends=left))
    log = tmp_path / "service.log"
    assert run("--file", str(path), "--watch", "0.5", "--log", str(log)) == code
    assert expected in log.read_text()
    assert log.read_text().count("\n") == (1 if expected else 0)


def test_the_watch_says_that_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--file", str(tmp_path / "crl.pem"), "--watch", "0.5") == tools.FAILED
    assert "No such file" in capsys.readouterr().err

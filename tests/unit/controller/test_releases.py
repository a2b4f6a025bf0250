# SPDX-License-Identifier: Apache-2.0
"""Making, signing and showing releases; the gateway's own code has to agree with what comes of it."""

from __future__ import annotations

import base64
import json
import stat
import sys
from pathlib import Path

import pytest
from wattfleet import cli, releases

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import manifest
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.verdict import (
    check_image,
)

VECTOR = ROOT / "docs/reference/firmware-release-vector"


@pytest.fixture(autouse=True)
def _passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(releases.PASSPHRASE, "correct horse battery")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "gateway-2.4.1.bin"
    path.write_bytes(bytes(range(256)) * 10)
    return path


def public_of(said: str) -> str:
    return next(line.split()[1] for line in said.splitlines() if line.startswith("public:"))


def make(image: Path, *more: str) -> int:
    words = ["release", "make", str(image), "--version", "2.4.1", "--number", "17", "--model", "moxa-uc-8220"]
    return cli.main([*words, *more])


def test_two_people_sign_and_a_gateway_takes_it(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = []
    for name in ("anna", "ben"):
        assert cli.main(["release", "keygen", str(tmp_path / f"{name}.key")]) == 0
        keys.append(public_of(capsys.readouterr().out))
    assert make(image, "--minimum", "2.0.0", "--forbidden", "2.2.9") == 0
    path = image.with_suffix(".json")
    trust = manifest.Trust(2, {manifest.key_id(base64.b64decode(one)): base64.b64decode(one) for one in keys})
    for name, refused in (("anna", True), ("ben", False)):
        assert cli.main(["release", "sign", str(path), "--key", str(tmp_path / f"{name}.key")]) == 0
        if refused:
            with pytest.raises(manifest.Refused, match="good signatures by 1 of"):
                manifest.open_envelope(path.read_bytes(), trust)
    found, _digest = manifest.open_envelope(path.read_bytes(), trust)
    assert (found.version, found.number, found.models, found.minimum, found.forbidden) == (
        "2.4.1",
        17,
        ("moxa-uc-8220",),
        "2.0.0",
        ("2.2.9",),
    )
    check_image(found, image)
    capsys.readouterr()
    assert cli.main(["release", "show", str(path), "--image", str(image), "--trust", keys[0]]) == 0
    said = capsys.readouterr().out
    assert "version: 2.4.1" in said
    assert ": good" in said
    assert "not among the keys of --trust" in said
    assert "is the image of this release" in said


def test_a_key_is_encrypted_readable_by_its_owner_alone_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "anna.key"
    assert cli.main(["release", "keygen", str(path)]) == 0
    assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cli.main(["release", "keygen", str(path)]) == 1
    assert "is there already" in capsys.readouterr().err
    monkeypatch.setenv(releases.PASSPHRASE, "short")
    assert cli.main(["release", "keygen", str(tmp_path / "ben.key")]) == 1
    assert "12 characters or more" in capsys.readouterr().err


def test_what_is_wrong_is_one_line(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "anna.key"
    cli.main(["release", "keygen", str(key)])
    make(image)
    path = image.with_suffix(".json")
    capsys.readouterr()

    def fails(*words: str) -> str:
        assert cli.main(["release", *words]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "signatures may be in it" in fails(
        "make", str(image), "--version", "2", "--number", "1", "--model", "m"
    )
    assert "--version: found '2.x'" in fails(
        "make", str(image), "--version", "2.x", "--number", "1", "--model", "m"
    )
    assert cli.main(["release", "sign", str(path), "--key", str(key)]) == 0
    assert "has signed it already" in fails("sign", str(path), "--key", str(key))
    assert "No such file" in fails("sign", str(tmp_path / "no.json"), "--key", str(key))
    monkeypatch.setenv(releases.PASSPHRASE, "another one altogether")
    assert "the passphrase is wrong" in fails("sign", str(path), "--key", str(key))
    path.write_text("{}")
    assert "expected manifest and signatures" in fails("show", str(path))


def test_a_changed_manifest_is_shown_as_such(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["release", "keygen", str(tmp_path / "anna.key")])
    public = public_of(capsys.readouterr().out)
    make(image)
    path = image.with_suffix(".json")
    cli.main(["release", "sign", str(path), "--key", str(tmp_path / "anna.key")])
    envelope = json.loads(path.read_text())
    content = json.loads(base64.b64decode(envelope["manifest"]))
    envelope["manifest"] = base64.b64encode(json.dumps({**content, "number": 99}).encode()).decode()
    path.write_text(json.dumps(envelope))
    capsys.readouterr()
    assert cli.main(["release", "show", str(path), "--trust", public]) == 1
    assert "WRONG: the manifest was changed" in capsys.readouterr().out


def test_the_vector_of_the_reference_is_read_by_both_sides() -> None:
    envelope = (VECTOR / "release.json").read_bytes()
    expected = json.loads((VECTOR / "expected.json").read_text())
    keys = {one: base64.b64decode(text) for one, text in expected["keys"].items()}
    found, digest = manifest.open_envelope(envelope, manifest.Trust(2, keys))
    assert digest == expected["digest"]
    assert found.version == expected["version"]
    _envelope, data, content = releases.read(VECTOR / "release.json")
    assert content["sha256"] == expected["sha256"]
    assert all(releases.key_id(public) == name for name, public in keys.items())
    assert releases.PREFIX == manifest.PREFIX
    assert base64.b64encode(data).decode() in envelope.decode()

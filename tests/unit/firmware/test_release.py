# SPDX-License-Identifier: Apache-2.0
"""Which releases a gateway takes, and what it says to those that it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import verdict
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.manifest import (
    PREFIX,
    Manifest,
    Refused,
    Trust,
    key_id,
    open_envelope,
)
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.versions import parts
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
IMAGE = bytes(range(256)) * 40
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3)]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
TRUST = Trust(2, {key_id(one): one for one in PUBLIC[:2]})
GATEWAY = verdict.Gateway("moxa-uc-8220", "2.3.0", number=16, taken="0" * 64)


def content(**changes: Any) -> dict[str, Any]:
    whole = {
        "format": 1,
        "kind": "firmware",
        "version": "2.4.1",
        "number": 17,
        "models": ["moxa-uc-8220"],
        "length": len(IMAGE),
        "sha256": hashlib.sha256(IMAGE).hexdigest(),
        "expires": (NOW + timedelta(days=90)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "minimum": "2.0.0",
        "forbidden": ["2.2.9"],
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not ...}


def envelope(keys: tuple[int, ...] = (0, 1), data: bytes | None = None, **changes: Any) -> bytes:
    signed = json.dumps(content(**changes)).encode() if data is None else data
    signatures = [
        {
            "key": key_id(PUBLIC[number]),
            "signature": base64.b64encode(KEYS[number].sign(PREFIX + signed)).decode(),
        }
        for number in keys
    ]
    return json.dumps({"manifest": base64.b64encode(signed).decode(), "signatures": signatures}).encode()


def judge(sent: bytes, gateway: verdict.Gateway = GATEWAY, now: datetime = NOW) -> Manifest:
    manifest, digest = open_envelope(sent, TRUST)
    verdict.check_manifest(manifest, digest, gateway, now)
    return manifest


def test_a_good_release_is_taken(tmp_path: Path) -> None:
    manifest = judge(envelope())
    (tmp_path / "image.bin").write_bytes(IMAGE)
    verdict.check_image(manifest, tmp_path / "image.bin")
    assert manifest.version == "2.4.1"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (envelope(()), "the manifest is not signed"),
        (envelope((0,)), "good signatures by 1 of the keys that this gateway trusts, and needs 2"),
        (envelope((0, 0)), "good signatures by 1 of the keys"),
        (envelope((0, 2)), "good signatures by 1 of the keys"),
        (
            envelope(models=["moxa-uc-3100"]),
            "the release is for moxa-uc-3100, and this gateway is a moxa-uc-8220",
        ),
        (envelope(expires="2026-11-28T12:00:00Z"), "the release expired on 2026-11-28 12:00 UTC"),
        (envelope(number=15), "release number 15 is a replay: this gateway has taken number 16"),
        (envelope(number=16), "release number 16 is a replay"),
        (envelope(version="2.2.0"), "2.2.0 is older than 2.3.0, which runs, and the release is no downgrade"),
        (envelope(minimum="2.3.1"), "2.3.0 runs, and this release needs 2.3.1 to start from"),
        (envelope(forbidden=["2.3"]), "this release must not be installed over 2.3.0"),
        (envelope(format=2), "format: 2 is not known here, 1 is"),
        (envelope(version="2.4-rc1"), "version: found '2.4-rc1', expected a version such as 2.4.1"),
        (envelope(number=0), "number: found 0, expected a whole number from 1 on"),
        (envelope(number=True), "number: found True"),
        (envelope(models=[]), "models: found []"),
        (envelope(length=-1), "length: found -1"),
        (envelope(sha256="AB" * 32), "sha256: found"),
        (envelope(expires="tomorrow"), "expires: found 'tomorrow', expected a time in UTC"),
        (envelope(kind="game"), "kind: found 'game', expected firmware or collector"),
        (envelope(region="eu"), "region: is not known here"),
        (envelope(data=b"[]"), "the manifest is not a JSON object"),
        (b"{}", "manifest: expected base64"),
        (b"\xff", "the release's manifest is not JSON"),
        (b" " * 70_000, "more than 65536"),
    ],
)
def test_every_refusal_says_why(sent: bytes, said: str) -> None:
    with pytest.raises(Refused) as refusal:
        judge(sent)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_release_that_was_taken_is_taken_again() -> None:
    manifest, digest = open_envelope(envelope(), TRUST)
    verdict.check_manifest(manifest, digest, verdict.Gateway("moxa-uc-8220", "2.4.1", 17, digest), NOW)


def test_a_downgrade_that_was_meant_is_taken() -> None:
    assert judge(envelope(version="2.2.0", downgrade=True)).version == "2.2.0"


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_flipped_bit_of_an_envelope_is_taken_for_another_release(position: int, bit: int) -> None:
    sent = bytearray(envelope())
    sent[position % len(sent)] ^= 1 << bit
    try:
        manifest = judge(bytes(sent))
    except Refused:
        return
    # Only what is not signed may differ: the names of the envelope's own keys, and white space.
    assert manifest == judge(envelope())


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (IMAGE[:-1], "has 10239 bytes, and the manifest says 10240: it is not whole"),
        (IMAGE[:500] + bytes([IMAGE[500] ^ 4]) + IMAGE[501:], "is not what was signed"),
    ],
)
def test_a_bad_image_is_found_on_the_disk(tmp_path: Path, image: bytes, said: str) -> None:
    (tmp_path / "image.bin").write_bytes(image)
    with pytest.raises(Refused, match=said):
        verdict.check_image(judge(envelope()), tmp_path / "image.bin")


def test_versions_compare_by_number() -> None:
    assert parts("2.10") > parts("2.9.9")
    assert parts("2.4") == parts("2.4.0")
    for text in ("", "2.", "v2", "2.04", "2..1"):
        with pytest.raises(ValueError, match="is no version"):
            parts(text)

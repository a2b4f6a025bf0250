# SPDX-License-Identifier: Apache-2.0
"""`wattfleet release`: keys that sign releases, manifests, and who has signed them.

The format is docs/reference/firmware-release.md; gateways read it by code of their own. Each signer has a key of their
own, encrypted with a passphrase, on a machine of their own: the envelope travels, the keys do not.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import getpass
import hashlib
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from wattfleet.errors import WattfleetError

PREFIX = b"energy/v1/release\0"
PASSPHRASE = "WATTFLEET_RELEASE_PASSPHRASE"  # noqa: S105  (the name of a variable)
SHORTEST = 12
DAYS = 90
_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){0,5}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")

Envelope = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Subcommands of `wattfleet release`."""
    commands = parser.add_subparsers(dest="release_command", metavar="COMMAND", required=True)

    keygen = commands.add_parser("keygen", help="make a key that signs releases")
    keygen.add_argument("key", type=Path, metavar="FILE", help="where the private key is written, encrypted")

    make = commands.add_parser("make", help="write the manifest of an image, not signed yet")
    make.add_argument("image", type=Path)
    make.add_argument("--output", type=Path, metavar="FILE", help="default: the image's name with .json")
    make.add_argument("--kind", choices=["firmware", "collector"], default="firmware")
    make.add_argument("--version", required=True, help="what the device tells once it runs, such as 2.4.1")
    make.add_argument("--number", required=True, type=int, help="grows from release to release")
    make.add_argument("--model", required=True, action="append", help="may be repeated")
    make.add_argument(
        "--days", type=int, default=DAYS, help="how long gateways take it (default: %(default)s)"
    )
    make.add_argument("--minimum", metavar="VERSION", help="the oldest version that it can be installed over")
    make.add_argument("--forbidden", metavar="VERSION", action="append", default=[], help="may be repeated")
    make.add_argument("--downgrade", action="store_true", help="an older version is meant")

    sign = commands.add_parser("sign", help="add one signature to a manifest")
    sign.add_argument("manifest", type=Path)
    sign.add_argument("--key", type=Path, required=True, metavar="FILE")

    show = commands.add_parser("show", help="what a manifest says, and who has signed it")
    show.add_argument("manifest", type=Path)
    show.add_argument("--image", type=Path, help="compare with this image")
    show.add_argument(
        "--trust", action="append", default=[], metavar="KEY", help="a public key in base64; may be repeated"
    )


def run(arguments: argparse.Namespace) -> int:
    """Does what was asked. Raises WattfleetError."""
    try:
        return {"keygen": _keygen, "make": _make, "sign": _sign, "show": _show}[arguments.release_command](
            arguments
        )
    except OSError as error:
        raise WattfleetError(f"{error.filename or 'the machine'}: {error.strerror}") from None


# Keys


def _passphrase(path: Path, *, new: bool = False) -> bytes:
    """From the environment, or from the person at the terminal."""
    given = os.environ.get(PASSPHRASE)
    if given is None:
        if not sys.stdin.isatty():
            raise WattfleetError(
                f"{path}: its passphrase is asked for at a terminal, or taken from {PASSPHRASE}"
            )
        given = getpass.getpass(f"Passphrase of {path}: ")
        if new and getpass.getpass("Once more: ") != given:
            raise WattfleetError("the two passphrases differ; no key was made")
    if new and len(given) < SHORTEST:
        raise WattfleetError(f"a passphrase has {SHORTEST} characters or more; no key was made")
    return given.encode()


def key_id(public: bytes) -> str:
    """Names a public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def _keygen(arguments: argparse.Namespace) -> int:
    path: Path = arguments.key
    if path.exists():
        raise WattfleetError(f"{path} is there already; a key is never overwritten")
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(_passphrase(path, new=True))
    )
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(handle)
    public = key.public_key().public_bytes_raw()
    print(f"{path}: key {key_id(public)}")
    print(f"public: {base64.b64encode(public).decode()}")
    return 0


def _load_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), _passphrase(path))
    except (ValueError, TypeError):
        raise WattfleetError(f"{path}: the passphrase is wrong, or this is no encrypted key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise WattfleetError(f"{path}: expected an Ed25519 key, as `wattfleet release keygen` makes it")
    return key


# Manifests


def _make(arguments: argparse.Namespace) -> int:
    for name in ("version", "minimum"):
        value = getattr(arguments, name)
        if value is not None and not _VERSION.fullmatch(value):
            raise WattfleetError(f"--{name}: found {value!r}, expected a version such as 2.4.1")
    for value in arguments.forbidden:
        if not _VERSION.fullmatch(value):
            raise WattfleetError(f"--forbidden: found {value!r}, expected a version such as 2.4.1")
    for value in arguments.model:
        if not _MODEL.fullmatch(value):
            raise WattfleetError(f"--model: found {value!r}, expected a name such as moxa-uc-8220")
    if arguments.number < 1 or arguments.days < 1:
        raise WattfleetError("--number and --days: expected a whole number from 1 on")
    length, digest = _digest(arguments.image)
    if length == 0:
        raise WattfleetError(f"{arguments.image} is empty")
    expires = datetime.now(UTC) + timedelta(days=arguments.days)
    content: dict[str, Any] = {
        "format": 1,
        "kind": arguments.kind,
        "version": arguments.version,
        "number": arguments.number,
        "models": sorted(set(arguments.model)),
        "length": length,
        "sha256": digest,
        "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
    }
    if arguments.minimum:
        content["minimum"] = arguments.minimum
    if arguments.forbidden:
        content["forbidden"] = sorted(set(arguments.forbidden))
    if arguments.downgrade:
        content["downgrade"] = True
    output = arguments.output or arguments.image.with_suffix(".json")
    if output.exists():
        raise WattfleetError(f"{output} is there already; signatures may be in it")
    data = json.dumps(content, sort_keys=True).encode()
    _write(output, {"manifest": base64.b64encode(data).decode(), "signatures": []})
    print(f"{output}: {arguments.kind} {arguments.version}, release {arguments.number}, not signed yet")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    envelope, data, content = read(arguments.manifest)
    key = _load_key(arguments.key)
    name = key_id(key.public_key().public_bytes_raw())
    if any(entry.get("key") == name for entry in envelope["signatures"]):
        raise WattfleetError(f"{arguments.manifest}: {name} has signed it already")
    signature = base64.b64encode(key.sign(PREFIX + data)).decode()
    envelope["signatures"].append({"key": name, "signature": signature})
    _write(arguments.manifest, envelope)
    count = len(envelope["signatures"])
    print(
        f"{arguments.manifest}: {content['kind']} {content['version']}, release {content['number']}, "
        f"signed by {name}, {count} signature{'s' if count > 1 else ''} now"
    )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    envelope, data, content = read(arguments.manifest)
    for field, value in content.items():
        print(f"{field}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    print(f"digest: {hashlib.sha256(data).hexdigest()}")
    trusted = {}
    for text in arguments.trust:
        public = _decoded(text, "--trust")
        if len(public) != 32:
            raise WattfleetError("--trust: expected an Ed25519 public key, 32 bytes in base64")
        trusted[key_id(public)] = public
    wrong = 0
    for entry in envelope["signatures"]:
        name = str(entry.get("key"))
        if name not in trusted:
            verdict = "not checked" if not trusted else "not among the keys of --trust"
        elif _is_good(trusted[name], _decoded(entry.get("signature"), "signature"), data):
            verdict = "good"
        else:
            verdict, wrong = "WRONG: the manifest was changed after it was signed", wrong + 1
        print(f"signed by {name}: {verdict}")
    if not envelope["signatures"]:
        print("signed by nobody")
    if arguments.image is not None:
        found = _digest(arguments.image)
        same = found == (content.get("length"), content.get("sha256"))
        print(f"{arguments.image}: {'is the image of this release' if same else 'is ANOTHER image'}")
        wrong += not same
    return 1 if wrong else 0


def _is_good(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, PREFIX + data)
    except InvalidSignature:
        return False
    return True


def read(path: Path) -> tuple[Envelope, bytes, dict[str, Any]]:
    """An envelope, the manifest's own bytes, and what they say. Raises WattfleetError."""
    try:
        envelope = json.loads(path.read_bytes())
    except ValueError as error:
        raise WattfleetError(f"{path} is not JSON: {error}") from None
    if (
        not isinstance(envelope, dict)
        or not isinstance(envelope.get("signatures"), list)
        or not all(isinstance(entry, dict) for entry in envelope["signatures"])
    ):
        raise WattfleetError(
            f"{path}: expected manifest and signatures, as `wattfleet release make` writes them"
        )
    data = _decoded(envelope.get("manifest"), f"{path}: manifest")
    try:
        content = json.loads(data)
    except ValueError as error:
        raise WattfleetError(f"{path}: its manifest is not JSON: {error}") from None
    missing = {"kind", "version", "number", "models", "length", "sha256", "expires"} - set(content)
    if missing:
        raise WattfleetError(f"{path}: its manifest has no {', '.join(sorted(missing))}")
    return envelope, data, content


def _decoded(value: Any, what: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise WattfleetError(f"{what}: expected base64") from None


def _digest(path: Path) -> tuple[int, str]:
    """Length and SHA-256 of a file."""
    hashed, length = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            hashed.update(block)
            length += len(block)
    return length, hashed.hexdigest()


def _write(path: Path, envelope: Envelope) -> None:
    """In one step: half an envelope would be nobody's."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(envelope, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)

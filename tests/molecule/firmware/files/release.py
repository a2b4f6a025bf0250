#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes an image and its signed manifest as people would, with keys of this scenario alone.

release.py FOLDER NAME --version V --number N [--behaviour B] [--kind collector --image FILE] [--model M]
           [--signers 2] [--expired]
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from wattfleet import cli, releases

PASSPHRASE = "of this scenario alone"


def key_file(folder: Path, number: int) -> Path:
    path = folder / f"{number}.key"
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode()))
    )
    return path


def do(*words: str) -> None:
    if cli.main(list(words)) != 0:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--version", required=True)
    parser.add_argument("--number", required=True)
    parser.add_argument("--behaviour", default="good")
    parser.add_argument("--kind", default="firmware")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--model", default="moxa-uc-8220")
    parser.add_argument("--signers", type=int, default=2)
    parser.add_argument("--expired", action="store_true")
    options = parser.parse_args()
    os.environ[releases.PASSPHRASE] = PASSPHRASE
    options.folder.mkdir(parents=True, exist_ok=True)
    image = options.folder / f"{options.name}.bin"
    manifest = image.with_suffix(".json")
    manifest.unlink(missing_ok=True)
    about = ["--version", options.version, "--model", options.model]
    if options.image:
        shutil.copyfile(options.image, image)
    else:
        do("lab", "firmware", "make", str(image), *about, "--behaviour", options.behaviour, "--size", "1M")
    do("release", "make", str(image), *about, "--number", options.number, "--kind", options.kind)
    if options.expired:
        envelope = json.loads(manifest.read_text())
        content = json.loads(base64.b64decode(envelope["manifest"]))
        content["expires"] = "2026-01-01T00:00:00Z"
        envelope["manifest"] = base64.b64encode(json.dumps(content).encode()).decode()
        manifest.write_text(json.dumps(envelope))
    for number in range(1, options.signers + 1):
        do("release", "sign", str(manifest), "--key", str(key_file(options.folder, number)))


if __name__ == "__main__":
    main()

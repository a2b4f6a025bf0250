# SPDX-License-Identifier: Apache-2.0
"""Certificates for hubs that are each wrong in one way, below the folder that is named."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from tests.unit.hub.authority import Authority, Identity, issue

DAY = timedelta(days=1)


def main(folder: Path) -> None:
    ours, theirs = Authority(), Authority()
    theirs.root = issue("Somebody's root", None, ca=True)
    theirs.intermediate = issue("Somebody's issuing", theirs.root, ca=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.crt").write_text(ours.root.pem() + ours.intermediate.pem())

    def write(name: str, authority: Authority, identity: Identity) -> None:
        (folder / f"{name}.crt").write_text(authority.chain(identity))
        (folder / f"{name}.key").write_text(identity.key_pem())

    write("good", ours, ours.client("localhost", server=True))
    write("expired", ours, ours.client("localhost", server=True, start=-2 * DAY, end=-DAY))
    write("early", ours, ours.client("localhost", server=True, start=DAY, end=2 * DAY))
    write("foreign", theirs, theirs.client("localhost", server=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The program on the gateway: `energy-firmware.pyz status | install | settle | offset | receive`.

systemd runs `install` and `settle`; the controller pipes an image into `receive`; people ask for `status`.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from . import engine, settings
from .host import FirmwareError, Host
from .incoming import Incoming
from .manifest import Refused, open_envelope
from .verdict import check_image


def _show(found: dict[str, Any]) -> None:
    current = found["attempt"]
    if current is None:
        print("no update is under way")
    else:
        print(
            f"{current['attempt']}: {current['from']} to {current['to']}, {current['phase']} {current['why']}".rstrip()
        )
        print("the way back is armed" if found["armed"] else "the way back is not armed")
        if found["unsettled"]:
            print(found["unsettled"])
    for kind, taken in sorted(found["taken"].items()):
        print(f"highest release of {kind} taken: {taken['number']}")
    for one in found["ended"][-10:]:
        why = f": {one['why']}" if one["why"] else ""
        print(f"{one['ended']}  {one['attempt']}  {one['from']} to {one['to']}  {one['phase']}{why}")


def receive(host: Host, sha256: str, length: int, offset: int, stream: int = 0) -> dict[str, Any]:
    """Take bytes of an image; once it is whole, whether the disk has what was signed."""
    incoming = Incoming(host, sha256)
    found = incoming.receive(stream, offset, length)
    told: dict[str, Any] = {"offset": found, "whole": found == length}
    if found == length:
        told |= verify(host, incoming)
    return told


def verify(host: Host, incoming: Incoming) -> dict[str, Any]:
    """Read a whole image from the disk; one that is not what was signed is given up, or it would stay so for ever."""
    try:
        manifest, _digest = open_envelope(
            incoming.release.read_bytes(), settings.load_gateway(host.root).trust
        )
        check_image(manifest, incoming.image)
    except Refused as refusal:
        incoming.remove()
        return {"refused": str(refusal), "offset": 0, "whole": False}
    return {}


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    host = host or Host()
    parser = argparse.ArgumentParser(
        prog="energy-firmware", description="Updates that are taken back unless they are confirmed."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="what is under way, and what has been").add_argument(
        "--json", action="store_true", help="for programs"
    )
    commands.add_parser("install", help=f"install what was accepted; {engine.INSTALL} does this")
    commands.add_parser("settle", help=f"bring an update to its end; {engine.SETTLE} does this")
    for name, text in (("offset", "how much of an image the disk has"), ("receive", "take more of it")):
        one = commands.add_parser(name, help=text)
        one.add_argument("sha256")
        if name == "receive":
            one.add_argument("length", type=int)
            one.add_argument("offset", type=int)
    options = parser.parse_args(arguments)
    try:
        if options.command == "status":
            found = engine.status(host)
            if options.json:
                print(json.dumps(found, indent=2))
            else:
                _show(found)
        elif options.command == "install":
            return engine.install(host)
        elif options.command == "settle":
            return engine.settle(host)
        elif options.command == "offset":
            print(json.dumps({"offset": Incoming(host, options.sha256).offset()}))
        else:
            print(json.dumps(receive(host, options.sha256, options.length, options.offset)))
    except (FirmwareError, Refused, OSError) as error:
        print(f"energy-firmware: {error}", file=sys.stderr)
        return 1
    return 0

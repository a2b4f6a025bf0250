# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The program on the host: `energy-guard.pyz status | apply | restore | confirm`, for systemd and for people."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from . import engine, hands, peer
from .errors import GuardError, RefusedError
from .host import Host


def _show(found: dict[str, Any]) -> None:
    if found["phase"] == "none":
        print("no change waits for a confirmation")
    else:
        step = f", at {found['step']}" if found["step"] else ""
        print(f"the change of {found['subject']} ({found['id']}) is {found['phase']}{step}")
        if found["timer"] is not None:
            print(f"it is undone in {found['timer']:g} s unless it is confirmed")
    for line in found["history"][-10:]:
        why = f": {line['reason']}" if line.get("reason") else ""
        print(f"{line['at']}  {line.get('subject') or '-'}  {line['outcome']}{why}")


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    host = host or Host()
    parser = argparse.ArgumentParser(
        prog="energy-guard", description="Changes that are undone unless they are confirmed."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="what waits, and what has happened").add_argument(
        "--json", action="store_true", help="for programs"
    )
    commands.add_parser("apply", help="apply the change that waits; energy-guard-apply.service does this")
    hand = commands.add_parser("hand", help="do what the unit asks that applies or undoes a change")
    hand.add_argument("name", choices=hands.UNITS)
    undo = commands.add_parser("restore", help="undo the change that waits").add_mutually_exclusive_group()
    undo.add_argument(
        "--boot", action="store_true", help="while the host boots: files only, nothing is waited for"
    )
    undo.add_argument("--now", action="store_true", help="by request")
    commands.add_parser("confirm", help="keep the change that waits; its nonce comes by standard input")
    options = parser.parse_args(arguments)
    try:
        if options.command == "status":
            found = engine.status(host)
            if options.json:
                print(json.dumps(found, indent=2))
            else:
                _show(found)
            return 0
        if options.command == "apply":
            return engine.apply(host)
        if options.command == "hand":
            return hands.serve(host, options.name)
        if options.command == "restore":
            return engine.restore(host, boot=options.boot, now=options.now)
        done = engine.confirm(host, sys.stdin.readline().strip(), peer.connection_age())
        print(f"the change of {done['subject']} is confirmed")
    except (GuardError, RefusedError, PermissionError) as error:
        print(f"energy-guard: {error}", file=sys.stderr)
        return 1
    return 0

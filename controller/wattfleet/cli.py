# SPDX-License-Identifier: Apache-2.0
"""The `wattfleet` command: what its parts are, and one line for what goes wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from wattfleet_lab import cli as lab_cli

from wattfleet import __version__, certificates, demo, gates_command
from wattfleet.errors import WattfleetError


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="wattfleet",
        description="Fleets of industrial energy gateways: one site is one file.",
        epilog="Example: wattfleet lab up --sites 3 && wattfleet demo --sites 3",
    )
    parser.add_argument("--version", action="version", version=f"wattfleet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    lab = commands.add_parser(
        "lab",
        help="a fleet on this machine: real systemd hosts, simulated meters",
        epilog="Example: wattfleet lab up --sites 3, then wattfleet lab cut lab-01 --boot",
    )
    lab_cli.add_arguments(lab)
    lab.set_defaults(run=lab_cli.run)
    demo_parser = commands.add_parser(
        "demo",
        help="lab, provisioning and data in one go",
        description="Start the lab, provision hub and sites with ansible-playbook, show the data arriving.",
        epilog="Example: wattfleet demo --sites 3",
    )
    demo.add_arguments(demo_parser)
    demo_parser.set_defaults(run=demo.run)
    ledger = commands.add_parser(
        "certificates",
        help="every certificate that was issued, and what is the matter with it",
        description="Read the authority's ledgers on this machine: who has which certificate, for how long, "
        "and in what state. States: valid, renew due, expired, revoked, replaced (a later one was installed), "
        "not installed (the run that had it signed was stopped).",
        epilog="Example: wattfleet certificates --ca /srv/wattfleet/ca lab-01 --all",
    )
    certificates.add_arguments(ledger)
    ledger.set_defaults(run=certificates.run)
    gates = commands.add_parser(
        "gates",
        help="what the gates of a rollout would say of sites now",
        description="Ask the hub how sites fare, and hold each figure against the site's own baseline, as a rollout "
        "does after its soak. Look at it before you trust it, or before a new limit decides.",
        epilog="Example: wattfleet gates lab-01 lab-02 --minutes 30",
    )
    gates_command.add_arguments(gates)
    gates.set_defaults(run=gates_command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except WattfleetError as error:
        print(f"wattfleet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("wattfleet: interrupted; run the same command again to go on", file=sys.stderr)
        return 130

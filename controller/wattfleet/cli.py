# SPDX-License-Identifier: Apache-2.0
"""The `wattfleet` command: what its parts are, and one line for what goes wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from wattfleet_lab import cli as lab_cli

from wattfleet import __version__, certificates, demo, gates_command, releases
from wattfleet.errors import WattfleetError
from wattfleet.rollout import cli as rollout_cli
from wattfleet.status import command as status_command


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
    release = commands.add_parser(
        "release",
        help="keys that sign releases, manifests, and who has signed them",
        description="Make a key, write the manifest of an image, sign it, show who has signed it.",
        epilog="Example: wattfleet release sign gateway-2.4.1.json --key anna.key",
    )
    releases.add_arguments(release)
    release.set_defaults(run=releases.run)
    rollout = commands.add_parser(
        "rollout",
        help="firmware and collector across the fleet, staged and gated",
        description="Bring a release to the fleet in waves; each wave has to be well before the next begins.",
        epilog="Example: wattfleet rollout plan gateway-2.4.1 -i FLEET --image IMAGE --manifest MANIFEST, read it, "
        "then wattfleet rollout start gateway-2.4.1 --digest HEX",
    )
    rollout_cli.add_arguments(rollout)
    status = commands.add_parser(
        "status",
        help="the fleet at a glance: who is silent, what is missing, what flows",
        description="Ask the hub how every site fares, and show those first that need somebody. Exit code 0 when all "
        "is well, 1 when a person has to do something: a line with an exclamation mark.",
        epilog="Example: wattfleet status -i inventory/fleet.sites.yml --watch, or with --html fleet.html for a page",
    )
    status_command.add_arguments(status)
    status.set_defaults(run=status_command.run)
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

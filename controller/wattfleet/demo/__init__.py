# SPDX-License-Identifier: Apache-2.0
"""`wattfleet demo`: lab, provisioning, and the data arriving, with both ends' totals side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from wattfleet_lab import option

from wattfleet.demo.steps import Demo
from wattfleet.errors import WattfleetError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wattfleet demo`."""
    parser.add_argument(
        "--sites", type=int, default=3, metavar="N", help="how many lab sites, 1 to 50 (default 3)"
    )
    option.add_to(parser)
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="also write the closing table as an SVG picture"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 when every figure agrees, 1 otherwise."""
    if not 1 <= arguments.sites <= 50:
        raise WattfleetError(f"--sites: found {arguments.sites}, the lab has 1 to 50 sites")
    # Piped into a file or a log, the tables would be folded to 80 columns.
    console = Console() if Console().is_terminal else Console(width=110)
    return Demo(console, arguments.lab, arguments.sites, arguments.picture).run()

# SPDX-License-Identifier: Apache-2.0
"""Which lab is meant: the same answer for every command that asks one."""

from __future__ import annotations

import argparse
import os

# The lab that has `.lab/ssh_config` beside its own.
DEFAULT = "default"


def chosen() -> str:
    """The lab that the environment names."""
    return os.environ.get("WATTFLEET_LAB") or DEFAULT


def add_to(parser: argparse.ArgumentParser, what: str = "which lab; several can be up at once") -> None:
    """`--lab NAME`."""
    parser.add_argument(
        "--lab", default=chosen(), metavar="NAME", help=f"{what} (default: $WATTFLEET_LAB, or `{DEFAULT}`)"
    )

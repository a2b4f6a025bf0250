# SPDX-License-Identifier: Apache-2.0
"""The command `energy-hub`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg

from energy_hub import __version__
from energy_hub.audit import command as audit
from energy_hub.commands import database, look, service, tools
from energy_hub.config import ConfigError
from energy_hub.databases import trouble
from energy_hub.description import DescriptionError
from energy_hub.evidence.keys import KeyFileError
from energy_hub.migrate import MigrationError
from energy_hub.move import MoveError
from energy_hub.revocation import RevocationError
from energy_hub.trust import TrustError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 3 (`migrate --check`) something would be changed."""
    if arguments is None:
        arguments = sys.argv[1:]
        # The same file under another name.
        if Path(sys.argv[0]).name == "energy-audit":
            arguments = ["audit", *arguments]
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (
        ConfigError, DescriptionError, KeyFileError, MigrationError, MoveError, RevocationError,
        TrustError,
    ) as error:  # fmt: skip
        return tools.fail(str(error))
    except psycopg.Error as error:
        return tools.fail(trouble(error))
    except BrokenPipeError:
        # The reader of our output has seen enough. Python would complain once more when it closes standard
        # output.
        sys.stdout = None
        return tools.OK
    except OSError as error:
        return tools.fail(str(error))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="energy-hub", description="The hub of a fleet of energy gateways.")
    parser.add_argument("--version", action="version", version=f"energy-hub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for part in (database, service, audit, look):
        part.add(commands)
    return parser

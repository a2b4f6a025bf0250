# SPDX-License-Identifier: Apache-2.0
"""Runs a fault test that needs no lab from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from tests.fault.report import FaultReport


def main(
    text: str | None, run: Callable[[int], FaultReport], control: Callable[[], FaultReport], rounds: int
) -> None:
    """Run a fault test, or its negative control, which has to fail; write the report and end the process."""
    parser = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    parser.add_argument(
        "--control", action="store_true", help="take the protection away; the count has to find out"
    )
    options = parser.parse_args()
    report = control() if options.control else run(options.rounds)
    target = report.write()
    print(
        f"{report.name}: {report.faults} faults, {report.readings} readings: {report.lost} lost, "
        f"{report.doubled} doubled, {report.invented} invented; {target.name}"
    )
    for line in report.findings[:10]:
        print(f"    {line}")
    sys.exit(0 if report.passed != options.control else 1)

# SPDX-License-Identifier: Apache-2.0
"""Fault tests at full size: `python tests/fault/run.py [--rounds N] [NAME …]`. `make faults` calls it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fault import kill_services, power_cut
from tests.fault.report import FaultReport
from tests.fleet.fleet import Fleet

FAULTS: dict[str, Callable[[Fleet, int], FaultReport]] = {
    "kill-services": kill_services.run,
    "power-cut": power_cut.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Inject faults into a lab fleet and count every reading at both ends."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(FAULTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sites", type=int, default=3)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in FAULTS]
    if unknown:
        parser.error(f"unknown fault test {unknown[0]!r}; there are {', '.join(FAULTS)}")
    fleet = Fleet("faults", options.sites)
    fleet.down()
    failed = 0
    try:
        fleet.up()
        result = fleet.play("site")
        if not result.ok:
            sys.exit(f"the fleet could not be provisioned, see {result.log}")
        for name in options.names or list(FAULTS):
            print(f"==> {name}", flush=True)
            report = FAULTS[name](fleet, options.rounds)
            target = report.write()
            print(
                f"    {report.faults} faults, {report.readings} readings: {report.lost} lost, "
                f"{report.doubled} doubled, {report.invented} invented, {report.excused} excused, "
                f"{report.locked_out} locked out; {target.name}"
            )
            for line in report.findings[:20]:
                print(f"    {line}")
            failed += not report.passed
    finally:
        fleet.down()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

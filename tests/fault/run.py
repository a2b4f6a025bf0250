# SPDX-License-Identifier: Apache-2.0
"""Fault tests at full size: `python tests/fault/run.py [--rounds N] [--control] [NAME …]`. `make faults` calls it.

Some need a lab fleet, which takes minutes to bring up, and one a lab of its own; the others run real processes on this
machine.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fault import (
    broker_away,
    clock_steps,
    corrupt_buffer,
    cut_hub,
    full_disk,
    harm,
    hub_away,
    hub_disk_full,
    kill_collector,
    kill_hub,
    kill_ingest,
    kill_services,
    kill_writer,
    lose_hub,
    lost_acknowledgement,
    power_cut,
    power_images,
    queue_lost,
    radio_away,
    restart_broker,
    restore_hub,
    shard_away,
    transfer,
    wan_delay,
    wan_loss,
)
from tests.fault.lockout import campaign as lockout
from tests.fault.report import FaultReport
from tests.fault.rig import rig
from tests.fleet.fleet import Fleet

# One with `prepare` has a lab of its own, which that brings up.
LAB: dict[str, ModuleType] = {
    "kill-services": kill_services,
    "power-cut": power_cut,
    "cut-hub": cut_hub,
    "lose-hub": lose_hub,
}
RIG: dict[str, ModuleType] = {
    "kill-collector": kill_collector,
    "kill-ingest": kill_ingest,
    "restart-broker": restart_broker,
    "broker-away": broker_away,
    "lost-acknowledgement": lost_acknowledgement,
    "wan-loss": wan_loss,
    "wan-delay": wan_delay,
    "clock-steps": clock_steps,
    "full-disk": full_disk,
    "corrupt-buffer": corrupt_buffer,
    "hub-away": hub_away,
    "kill-writer": kill_writer,
    "power-images": power_images,
    "shard-away": shard_away,
    "kill-hub": kill_hub,
    "queue-lost": queue_lost,
    "hub-disk-full": hub_disk_full,
    "harm": harm,
    "restore-hub": restore_hub,
    "radio-away": radio_away,
}

# A lab of its own, and no readings: it counts sites.
LOCKOUT = "lockout"

# A lab host of its own, and no readings either: it counts the bytes of an image.
TRANSFER = "transfer"

# Rounds at full size, where they are not told: 200 kills, or about five minutes of what takes its time.
FULL = {
    "clock-steps": 5,
    "wan-loss": 8,
    "wan-delay": 8,
    "hub-away": 3,
    "shard-away": 3,
    "restore-hub": 5,
    "cut-hub": 10,
    "lose-hub": 1,
    "broker-away": 3,
    "harm": 3,
    "kill-hub": 10,
    "queue-lost": 5,
    "hub-disk-full": 5,
    "corrupt-buffer": 10,
    "kill-writer": 200,
    "power-images": 200,
}
ROUNDS = 20
# Findings on the screen; the file has more.
SHOWN = 8


def main() -> int:
    names = [*RIG, *LAB, LOCKOUT, TRANSFER]
    parser = argparse.ArgumentParser(description="Inject faults and count every reading at both ends.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names)} (default: all)")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"default: {ROUNDS}, fewer where a round takes its time, {lockout.ROUNDS} of {LOCKOUT}",
    )
    parser.add_argument("--sites", type=int, default=3, help="of the lab, for those that need one")
    parser.add_argument(
        "--seed",
        type=int,
        help=f"of {LOCKOUT}, and of the instants in a lab: what is random in it (default: a new one)",
    )
    parser.add_argument("--hosts", type=int, default=lockout.HOSTS, help=f"of {LOCKOUT}: sites at once")
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        default=[],
        help=f"of {LOCKOUT}: these rounds of all that the seed makes",
    )
    parser.add_argument("--away", type=float, help="of shard-away: s that the database is away")
    parser.add_argument("--minutes", type=float, default=0, help=f"of {LOCKOUT}: no round begins after that")
    parser.add_argument(
        "--control",
        action="store_true",
        help="take the protection away instead, and fail unless the count finds out "
        f"(not for {', '.join(name for name, module in LAB.items() if not hasattr(module, 'control'))})",
    )
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"unknown fault test {unknown[0]!r}; there are {', '.join(names)}")
    if options.away and (options.control or options.names != ["shard-away"]):
        parser.error("--away is of shard-away alone, and not of its control: name that, and nothing else")
    rig.stop_on_sigterm()
    chosen = options.names or names
    failed = sum(
        not _run_on_rig(
            name,
            options.rounds or FULL.get(name, ROUNDS),
            options.control,
            {"away": options.away} if options.away else {},
        )
        for name in chosen
        if name in RIG
    )
    if TRANSFER in chosen:
        failed += not _run_on_rig(TRANSFER, options.rounds or 1, options.control)
    if LOCKOUT in chosen:
        failed += not _run_lockout(options)
    in_lab = [
        name for name in chosen if name in LAB and not (options.control and not hasattr(LAB[name], "control"))
    ]
    # Where nothing is prepared, and nothing broken for good, one lab serves all.
    shared = [name for name in in_lab if not hasattr(LAB[name], "prepare")]
    for names in (shared, *([name] for name in in_lab if name not in shared)):
        if names:
            failed += _run_in_lab(names, options)
    return 1 if failed else 0


def _run_on_rig(name: str, rounds: int, control: bool, more: dict[str, float] | None = None) -> bool:
    """Whether it found what it should."""
    print(f"==> {name}{': without the protection' if control else ''}", flush=True)
    start = time.monotonic()
    module = transfer if name == TRANSFER else RIG[name]
    try:
        report: FaultReport = module.control() if control else module.run(rounds, **(more or {}))
    except AssertionError as error:
        return _in_vain(name, rounds, error)
    report.figures["seconds"] = round(time.monotonic() - start, 1)
    return _tell(report, control=control)


def _in_vain(name: str, rounds: int, error: AssertionError) -> bool:
    """The rig or the lab waited in vain for one of its parts: that is a finding, too, but never a red control."""
    FaultReport(name, rounds, findings=[str(error)]).write()
    print(f"    {error}")
    return False


def _run_lockout(options: argparse.Namespace) -> bool:
    """Whether nobody was locked out; without the protection, whether that was seen."""
    print(f"==> {LOCKOUT}{': without the protection' if options.control else ''}", flush=True)
    if options.control:
        return lockout.control(options.seed)
    report = lockout.run(
        options.rounds or lockout.ROUNDS, options.seed, options.hosts, options.only, options.minutes
    )
    target = report.write()
    print(textwrap.indent(f"{report.summary()}\n{target.name}", "    "))
    return report.passed


def _run_in_lab(names: list[str], options: argparse.Namespace) -> int:
    """How many did not find what they should."""
    fleet = Fleet(os.environ.get("WATTFLEET_LAB", "faults"), options.sites)
    fleet.down()
    failed = 0
    try:
        getattr(LAB[names[0]], "prepare", Fleet.up)(fleet)
        result = fleet.play("site")
        if not result.ok:
            sys.exit(f"the fleet could not be provisioned, see {result.log}")
        for name in names:
            failed += not _run_on_fleet(name, fleet, options)
    finally:
        fleet.down()
    return failed


def _run_on_fleet(name: str, fleet: Fleet, options: argparse.Namespace) -> bool:
    """Whether it found what it should."""
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    print(f"==> {name}{': without the protection' if options.control else ''}, seed {seed}", flush=True)
    random.seed(seed)
    start = time.monotonic()
    module, rounds = LAB[name], options.rounds or FULL.get(name, ROUNDS)
    try:
        report: FaultReport = module.control(fleet) if options.control else module.run(fleet, rounds)
    except AssertionError as error:
        return _in_vain(name, rounds, error)
    report.figures |= {"seed": seed, "seconds": round(time.monotonic() - start, 1)}
    return _tell(report, control=options.control)


def _tell(report: FaultReport, *, control: bool) -> bool:
    """Write the report, and say what is in it. Whether it is as it should be."""
    target = report.write()
    print(
        f"    {report.faults} faults, {report.readings} readings: {report.lost} lost, {report.doubled} doubled, "
        f"{report.invented} invented, {report.disordered} out of order, {report.mistimed} with a wrong time, "
        f"{report.late} late, {report.evidence} pieces of evidence, {report.idle} met no work, "
        f"{report.excused} excused, {report.given_up} given up, {report.dropped} dropped and counted, "
        f"{report.locked_out} locked out; {target.name}"
    )
    for name, figure in report.figures.items():
        print(f"    {name}: {figure:g}")
    for line in report.findings[:SHOWN]:
        print(f"    {line}")
    if not control:
        return report.passed
    print("    red, as it has to be" if not report.passed else "    GREEN: the count does not see this fault")
    return not report.passed


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
        print("interrupted; everything is cleaned up", file=sys.stderr)
    sys.exit(code)

# SPDX-License-Identifier: Apache-2.0
"""What the commands of `wattfleet rollout` do. Exit codes: 0 good, 1 an error, 3 halted, 4 waits for a person."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live

from wattfleet.errors import WattfleetError
from wattfleet.rollout import gate, operations, plan_file, preparing, show
from wattfleet.rollout.arm import AnsibleArm, open_log
from wattfleet.rollout.driver import Driver
from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.fleet import read_fleet
from wattfleet.rollout.folder import INVENTORY, Folder
from wattfleet.rollout.ledger import Ledger, Step
from wattfleet.rollout.run import drive
from wattfleet.rollout.states import RolloutState
from wattfleet.rollout.status import Status, status_of

HALTED, WAITS = 3, 4
REFRESH = 1.0  # s


def plan(arguments: argparse.Namespace) -> int:
    """Make a plan, show it and save it."""
    name = arguments.name
    folder, ledger = _opened(arguments)
    one = preparing.make(
        folder,
        ledger,
        name,
        _inventory(arguments),
        image=arguments.image,
        manifest=arguments.manifest,
        limit=arguments.limit,
        ask=arguments.ask,
        tell=lambda text: print(text, file=sys.stderr),
    )
    made = one.plan
    if arguments.json:
        print(folder.plan(name).read_text(encoding="utf-8"), end="")
    else:
        console = show.console()
        console.print(show.plan(one), highlight=False)
        unknown = [site for site in made.terms if "was" not in made.terms[site]]
        if unknown:
            console.print(
                f"what {show.some(unknown)} run is not known: there is no taking back there", highlight=False
            )
        console.print(
            f"begin it: wattfleet rollout start {name} --digest {made.digest[: plan_file.LEAST_DIGITS]}",
            highlight=False,
        )
    return 0


def start(arguments: argparse.Namespace) -> int:
    """Begin a plan by its digest, and run it."""
    folder, ledger = _opened(arguments)
    preparing.begin(folder, ledger, arguments.name, arguments.digest, _who())
    return 0 if arguments.no_run else _drive(arguments, folder, ledger)


def run(arguments: argparse.Namespace) -> int:
    """Go on with a rollout."""
    folder, ledger = _opened(arguments)
    arguments.name = _newest(ledger, arguments.name)
    if operations.load(ledger, arguments.name).state is RolloutState.PLANNED:
        raise WattfleetError(f"{arguments.name} is planned and not begun: begin it with `start`")
    return _drive(arguments, folder, ledger)


def status(arguments: argparse.Namespace) -> int:
    """Show how it stands, once or until it is over."""
    _, ledger = _opened(arguments)
    name = _newest(ledger, arguments.name)
    if arguments.json:
        print(json.dumps(_status(ledger, name).document(), indent=2))
        return 0
    console = show.console()
    if not arguments.watch:
        console.print(show.status(_status(ledger, name)), highlight=False)
        return 0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rollout = operations.load(ledger, name)
            live.update(show.status(_status(ledger, name, rollout)), refresh=True)
            if Driver.is_over(rollout):
                return 0
            time.sleep(REFRESH)


def pause(arguments: argparse.Namespace) -> int:
    return _by_hand(arguments, operations.pause)


def resume(arguments: argparse.Namespace) -> int:
    return _by_hand(arguments, operations.resume)


def approve(arguments: argparse.Namespace) -> int:
    return _by_hand(arguments, lambda rollout: operations.approve(rollout, _who()))


def abort(arguments: argparse.Namespace) -> int:
    return _by_hand(arguments, lambda rollout: operations.abort(rollout, arguments.why))


def rollback(arguments: argparse.Namespace) -> int:
    return _by_hand(arguments, operations.rollback)


def retry(arguments: argparse.Namespace) -> int:
    return _by_hand(arguments, lambda rollout: operations.retry(rollout, arguments.site))


def skip(arguments: argparse.Namespace) -> int:
    return _by_hand(arguments, lambda rollout: operations.skip(rollout, arguments.site))


def log(arguments: argparse.Namespace) -> int:
    """Print entries, or check all of them."""
    _, ledger = _opened(arguments)
    if arguments.verify:
        faults = ledger.verify(arguments.head)
        for fault in faults:
            print(f"wattfleet: {ledger.path}: {fault}", file=sys.stderr)
        if not faults:
            print(f"{ledger.number} entries, none was changed; keep this elsewhere: {ledger.head()}")
        return 1 if faults else 0
    if arguments.head:
        raise WattfleetError("--head goes with --verify")
    name = None if arguments.all else _newest(ledger, arguments.name)
    if name is not None:
        ledger.rollout(name)
    for one in ledger.entries(name, arguments.site):
        print(json.dumps(show.entry_document(one)) if arguments.json else show.entry(one))
    return 0


# Driving.


def _drive(arguments: argparse.Namespace, folder: Folder, ledger: Ledger) -> int:
    name = arguments.name
    files = ledger.rollout(name).data["files"]
    inventory = _inventory(arguments) if arguments.inventory else Path(files["inventory"])
    fleet = read_fleet(inventory, cache=folder.path / "inventory.json")
    with open_log(folder.log(name)) as out:
        arm = AnsibleArm(fleet, gate.gate_of(fleet.facts, fleet.hub), out)
        with _reporting(ledger, name) as report:
            rollout = drive(folder, ledger, name, arm, _who(), report, stay=not arguments.no_wait)
    console = show.console()
    console.print(show.status(_status(ledger, name, rollout)), highlight=False)
    if rollout.state is RolloutState.HALTED:
        return HALTED
    return 0 if Driver.is_over(rollout) else WAITS


@contextmanager
def _reporting(ledger: Ledger, name: str) -> Iterator[Callable[[Rollout], None]]:
    """A table that follows the rollout on a terminal; elsewhere a line for each entry."""
    console = Console()
    last = ledger.number

    def lines(rollout: Rollout) -> None:
        nonlocal last
        if rollout.number == last:
            return
        for one in ledger.entries(name, beyond=last):
            print(show.entry(one), flush=True)
        last = rollout.number

    if not console.is_terminal:
        yield lines
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda rollout: live.update(show.status(_status(ledger, name, rollout)), refresh=True)


# What all of them need.


def _by_hand(arguments: argparse.Namespace, operation: Callable[[Rollout], list[Step]]) -> int:
    """A person's operation; a driver that runs takes it up within a turn."""
    folder, ledger = _opened(arguments)
    name = _newest(ledger, arguments.name)
    for step in preparing.operate(ledger, name, operation, _who())[-1:]:
        print(f"{name}: {step.site + ' is ' if step.site else ''}{step.new}: {step.why}")
    if not folder.is_driven(name):
        print(f"nobody drives it: wattfleet rollout run {name}")
    return 0


def _status(ledger: Ledger, name: str, rollout: Rollout | None = None) -> Status:
    rollout = rollout or operations.load(ledger, name)
    return status_of(rollout, ledger.reasons(name), datetime.now(UTC))


def _opened(arguments: argparse.Namespace) -> tuple[Folder, Ledger]:
    folder = Folder(arguments.state) if arguments.state else Folder.of(_inventory(arguments))
    return folder, folder.ledger()


def _inventory(arguments: argparse.Namespace) -> Path:
    """Raises WattfleetError when none was named."""
    named = arguments.inventory or os.environ.get(INVENTORY)
    if not named:
        raise WattfleetError(f"no fleet file is named: give it with -i, or in {INVENTORY}")
    path = Path(named)
    if not path.is_file():
        raise WattfleetError(f"{path}: there is no such fleet file")
    return path


def _newest(ledger: Ledger, name: str | None) -> str:
    """The rollout that is meant. Raises WattfleetError when there is none."""
    names = ledger.rollouts()
    if name is not None:
        ledger.rollout(name)
        return name
    if not names:
        raise WattfleetError(
            f"{ledger.path}: there is no rollout yet: make a plan with `wattfleet rollout plan`"
        )
    return names[-1]


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"

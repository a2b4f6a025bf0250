# SPDX-License-Identifier: Apache-2.0
"""`wattfleet status`: how the whole fleet fares, now. Asks the hub, and changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from wattfleet_lab import option
from wattfleet_lab.state import State

from wattfleet.errors import WattfleetError
from wattfleet.hub import Hub, hub_of
from wattfleet.rollout.fleet import read_fleet
from wattfleet.rollout.folder import INVENTORY, Folder
from wattfleet.status import figures, judge, page, table
from wattfleet.status.figures import Document

ALL_WELL, NEEDS_SOMEBODY = 0, 1
WATCH = 10.0  # s between two looks
# After a look, so many times as long as it took.
LEISURE = 3.0
# Of a fleet in order nobody wants to see five thousand lines.
MOST = 30

Look = Callable[[], Document]


@dataclass(frozen=True)
class _Asked:
    """Whom to ask: the hub, which sites, and where the rollouts' ledger is."""

    hub: Hub
    sites: list[str]
    rollouts: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wattfleet status`."""
    parser.add_argument(
        "-i",
        "--inventory",
        type=Path,
        metavar="FILE",
        help=f"the fleet file (default: ${INVENTORY}, else the lab's)",
    )
    parser.add_argument(
        "--site", action="append", default=[], metavar="SITE", help="only this site; given again for each"
    )
    parser.add_argument("--all", action="store_true", help=f"every site, not the first {MOST} alone")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=WATCH,
        metavar="SECONDS",
        help=f"look again and again, every {WATCH:.0f} s if nothing else is said, until Ctrl-C",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FILE",
        help="what `energy-hub fleet` has printed, instead of asking the hub; - is standard input",
    )
    parser.add_argument(
        "--check", action="store_true", help="with --html, only say whether it would be written"
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FOLDER",
        help="where the rollouts' ledger is (default: the folder rollouts beside the fleet file)",
    )
    parser.add_argument(
        "--ssh-config", type=Path, metavar="FILE", help="for `ssh -F FILE hub` (default: the lab's)"
    )
    option.add_to(parser, "the lab that is asked")


def run(arguments: argparse.Namespace) -> int:
    """0 when all is well, 1 when something needs a person."""
    if arguments.watch is not None and arguments.watch < 1:
        raise WattfleetError(f"--watch is {arguments.watch:g}, expected at least 1 s")
    if arguments.watch is not None and (arguments.figures or arguments.html or arguments.json):
        raise WattfleetError(
            "--watch shows a table that is asked for again and again: not with --figures, --html, --json"
        )
    if arguments.check and not arguments.html:
        raise WattfleetError("--check is about the page: name it with --html")
    look = _look(arguments)
    if arguments.watch is not None:
        return _watch(look, arguments.watch, table.console(), everything=arguments.all)
    document = look()
    if arguments.html:
        changed = page.write(document, arguments.html, check=arguments.check)
        told = "unchanged" if not changed else "would write" if arguments.check else "wrote"
        print(f"{told} {arguments.html}", file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        json.dump(document, sys.stdout, indent=2)
        print()
    elif not arguments.html:
        table.console().print(
            table.shown(document, None if arguments.all or arguments.site else MOST), highlight=False
        )
    return _code(document)


def _code(document: Document) -> int:
    bad = any(judge.needs_somebody(site) for site in document["sites"].values())
    return NEEDS_SOMEBODY if bad else ALL_WELL


def _look(arguments: argparse.Namespace) -> Look:
    if arguments.figures:
        given = _given(arguments.figures)
        rollouts = arguments.state or (Folder.of(arguments.inventory).path if arguments.inventory else None)
        firmware = figures.firmware_of(rollouts) if rollouts else {}
        return lambda: figures.complete(figures.only(figures.read(given), arguments.site), firmware)
    asked = _asked(arguments)
    return lambda: figures.complete(
        figures.from_hub(asked.hub, asked.sites), figures.firmware_of(asked.rollouts)
    )


def _given(path: Path) -> str:
    try:
        return sys.stdin.read() if path == Path("-") else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WattfleetError(f"{path}: the figures cannot be read: {error}") from None


def _asked(arguments: argparse.Namespace) -> _Asked:
    named = arguments.inventory or os.environ.get(INVENTORY)
    if named:
        inventory = Path(named)
        folder = Folder(arguments.state) if arguments.state else Folder.of(inventory)
        fleet = read_fleet(inventory, cache=folder.path / "inventory.json" if folder.path.is_dir() else None)
        if not fleet.hub and arguments.ssh_config is None:
            raise WattfleetError(f"{inventory}: the inventory has no hub to ask")
        hub = Hub(arguments.ssh_config) if arguments.ssh_config else hub_of(fleet.hub)
        return _Asked(hub, _chosen(list(fleet.sites), arguments.site, inventory), folder.path)
    lab = State.of(arguments.lab)
    inventory = lab.inventory / "fleet.sites.yml"
    names = sorted(file.stem for file in (lab.inventory / "sites").glob("*.yml"))
    if not names:
        raise WattfleetError(
            f"no fleet file is named: give it with -i, or in {INVENTORY}; and the lab {arguments.lab} is not up"
        )
    return _Asked(
        Hub(arguments.ssh_config or lab.ssh_config),
        _chosen(names, arguments.site, inventory),
        arguments.state or Folder.of(inventory).path,
    )


def _chosen(names: list[str], wanted: list[str], inventory: Path) -> list[str]:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise WattfleetError(f"{', '.join(unknown)}: not in {inventory}")
    return list(dict.fromkeys(wanted)) or names


def _watch(look: Look, every: float, console: Console, *, everything: bool) -> int:
    """Until somebody has seen enough. A hub that does not answer is waited for."""
    code = NEEDS_SOMEBODY
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        try:
            while True:
                began = time.monotonic()
                try:
                    document = look()
                except WattfleetError as error:
                    console.print(f"wattfleet: {error}", style="red", highlight=False, markup=False)
                else:
                    code = _code(document)
                    room = max(1, console.height - table.BESIDE) if console.is_terminal else MOST
                    found = table.shown(document, None if everything else room)
                    if console.is_terminal:
                        live.update(found, refresh=True)
                    else:
                        console.print(found, highlight=False)
                # The hub has other things to do: of a large fleet a look takes it seconds.
                time.sleep(max(every, LEISURE * (time.monotonic() - began)))
        except KeyboardInterrupt:
            return code

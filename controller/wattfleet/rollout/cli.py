# SPDX-License-Identifier: Apache-2.0
"""`wattfleet rollout`: its commands and their options. What they do is in `commands`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from wattfleet.rollout import commands
from wattfleet.rollout.folder import INVENTORY
from wattfleet.rollout.preparing import ASK

COMMAND = "wattfleet rollout"
Run = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands below `wattfleet rollout`."""
    parts = parser.add_subparsers(dest="rollout_command", required=True, metavar="COMMAND")
    _add_plan(parts)
    _add_start(parts)
    run = _add(
        parts, "run", commands.run, "go on with a rollout until it is over", f"{COMMAND} run gateway-2.4.1"
    )
    _name(run)
    _driving(run)
    status = _add(
        parts,
        "status",
        commands.status,
        "how it stands, and when it is expected to end",
        f"{COMMAND} status --watch",
    )
    _name(status)
    status.add_argument("--watch", action="store_true", help="stay, and follow it until it is over")
    status.add_argument("--json", action="store_true", help="for programs; has every site")
    for name, function, what in (
        ("pause", commands.pause, "begin nothing any more; what runs is finished"),
        ("resume", commands.resume, "go on after a pause"),
        ("approve", commands.approve, "let the sites pass whose gates are inconclusive"),
        ("rollback", commands.rollback, "take back every site that was touched, after it has ended"),
    ):
        _name(_add(parts, name, function, what, f"{COMMAND} {name} gateway-2.4.1"))
    abort = _add(
        parts,
        "abort",
        commands.abort,
        "halt it for good",
        f'{COMMAND} abort gateway-2.4.1 --why "wrong image"',
    )
    _name(abort)
    abort.add_argument("--why", default="aborted by hand", metavar="TEXT", help="stands in the ledger")
    for name, function, what in (
        ("retry", commands.retry, "give a site one more attempt that failed, fell silent or was left out"),
        ("skip", commands.skip, "leave out a site that has not been told to install"),
    ):
        one = _add(parts, name, function, what, f"{COMMAND} {name} plant-a --rollout gateway-2.4.1")
        one.add_argument("site", metavar="SITE")
        one.add_argument("--rollout", dest="name", metavar="NAME", help="which (default: the newest)")
    _add_log(parts)


def _add_plan(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = _add(
        parts,
        "plan",
        commands.plan,
        "who, when, in what order and why; changes nothing",
        f"{COMMAND} plan gateway-2.4.1 -i inventory/example/fleet.sites.yml --image gateway-2.4.1.bin "
        "--manifest gateway-2.4.1.json",
    )
    plan.add_argument("name", metavar="NAME", help="what the rollout is to be called")
    plan.add_argument("--image", type=Path, required=True, metavar="FILE", help="the release's image")
    plan.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="its signed manifest")
    plan.add_argument("--limit", metavar="PATTERN", help="these sites only, as ansible's --limit")
    plan.add_argument(
        "--ask",
        choices=ASK,
        default="unknown",
        help="which sites are asked what they run: those of which no rollout has told (default), all, or none",
    )
    plan.add_argument("--json", action="store_true", help="for programs")


def _add_start(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    start = _add(
        parts,
        "start",
        commands.start,
        "begin a plan that was read, and run it",
        f"{COMMAND} start gateway-2.4.1 --digest 1f0c9a72be55",
    )
    start.add_argument("name", metavar="NAME", help="the plan's name")
    start.add_argument("--digest", required=True, metavar="HEX", help="the plan's, or its first 12 digits")
    start.add_argument("--no-run", action="store_true", help="begin it only; `run` goes on with it")
    _driving(start)


def _add_log(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    log = _add(
        parts,
        "log",
        commands.log,
        "every step that was taken: when, by whom and why",
        f"{COMMAND} log --verify --head 4711:9f2c…",
    )
    _name(log)
    log.add_argument("--site", metavar="SITE", help="this site's only")
    log.add_argument("--all", action="store_true", help="of all rollouts")
    log.add_argument(
        "--verify", action="store_true", help="check that no entry was changed, removed or put in"
    )
    log.add_argument(
        "--head",
        metavar="NUMBER:HASH",
        help="with --verify: an earlier head, which shows that the end was cut off",
    )
    log.add_argument("--json", action="store_true", help="one object a line")


def _add(
    parts: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Run,
    what: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = parts.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", epilog=f"Example: {example}"
    )
    parser.add_argument(
        "-i", "--inventory", type=Path, metavar="FILE", help=f"the fleet file (default: ${INVENTORY})"
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FOLDER",
        help="where ledger and plans are (default: the folder rollouts beside the fleet file)",
    )
    parser.set_defaults(run=function)
    return parser


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="which rollout (default: the newest)")


def _driving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="end, with exit code 4, when it holds or is paused and a person is needed",
    )

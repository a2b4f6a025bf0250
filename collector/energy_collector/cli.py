# SPDX-License-Identifier: Apache-2.0
"""The command `energy-collector`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from energy_collector import __version__, config
from energy_collector.commands import FAILED, OK, complain
from energy_collector.errors import UnusableError

if TYPE_CHECKING:
    import argparse

Command = Callable[["argparse.Namespace"], int]
SERVICES = ("gateway", "persistence")


def _parser() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(
        prog="energy-collector",
        description="Reads meters, stores their readings and delivers them to the hub.",
        epilog="What needs a bus goes through the running gateway, which stays its only master. Where no"
        " gateway runs, the command opens the bus itself.",
    )
    parser.add_argument("--version", action="version", version=f"energy-collector {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, example: str, *, as_json: bool = True) -> argparse.ArgumentParser:
        epilog = f"example: energy-collector {example}"
        one = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog)
        if name != "check":
            one.add_argument(
                "--config",
                type=Path,
                default=config.DEFAULT_PATH,
                metavar="FILE",
                help="default: %(default)s",
            )
        if as_json:
            one.add_argument("--json", action="store_true", help="print JSON for programs")
        return one

    check = command(
        "check", "check a configuration; every fault gets a line", "check new.yaml", as_json=False
    )
    check.add_argument("file", type=Path, metavar="CONFIG")
    command("status", "show how the running gateway, its buses and its meters are", "status")
    command("probe", "ask every meter whether it answers", "probe")
    read = command("read", "read all points of a meter now", "read main")
    read.add_argument("meter", metavar="METER", help="its name in the configuration")
    scan = command("scan", "look for units on a bus", "scan hall --units 1-32")
    scan.add_argument("bus", metavar="BUS", help="its name in the configuration")
    scan.add_argument("--units", default="1-32", metavar="FIRST-LAST", help="default: %(default)s")
    buffer = command("buffer", "show what the buffer holds", "buffer export > readings.jsonl")
    buffer.add_argument(
        "--file", type=Path, metavar="FILE", help="export what can be read of a file that was put aside"
    )
    buffer.add_argument(
        "what", choices=["status", "export"], help="export prints a line of JSON for each reading"
    )
    command("counters", "show the running gateway's counts of requests and errors", "counters --json")
    once = command("run", "poll every meter and print the readings", "run --once")
    once.add_argument("--once", action="store_true", required=True)
    command("reload", "have the running gateway read its configuration again", "reload", as_json=False)
    command("gateway", "poll the meters and store their readings (a service)", "gateway", as_json=False)
    command("persistence", "deliver stored readings to the hub (a service)", "persistence", as_json=False)
    return parser


def _check(options: argparse.Namespace) -> int:
    # Imported here: the delivering service has no use for it.
    from energy_collector.stages import calibration

    settings = config.load(options.file)
    if settings.device_mapping.exists():
        try:
            calibration.load(settings.device_mapping)
        except calibration.MappingError as error:
            raise config.ConfigError([f"{settings.device_mapping}: {error}"]) from error
    print(
        f"{options.file}: site {settings.site}, {len(settings.meters)} meters on {len(settings.buses)} buses"
        f"{settings.by_radio}"
    )
    return OK


def _find(name: str) -> Command:
    """The function of a command. Only its own module is imported: the services stay small."""
    if name in SERVICES:
        return lambda options: _serve(name, options.config)
    if name == "check":
        return _check
    from energy_collector.commands import buffer, meters, running, scan

    return {
        "status": running.status,
        "counters": running.counters,
        "reload": running.reload,
        "probe": meters.probe,
        "read": meters.read,
        "run": meters.run_once,
        "scan": scan.scan,
        "buffer": buffer.buffer,
    }[name]


def _serve(name: str, path: Path) -> int:
    """Run a service with the configuration in `path`."""
    from energy_collector.commands import services

    return services.gateway(path) if name == "gateway" else services.persistence(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 misused."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if len(given) == 3 and given[0] in SERVICES and given[1] == "--config":
            # As systemd starts them. A parser would stay in their memory: 1.2 MB each.
            return _serve(given[0], Path(given[2]))
        options = _parser().parse_args(given)
        return _find(options.command)(options)
    except config.ConfigError as error:
        for fault in error.faults:
            complain(fault)
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        return FAILED
    except (UnusableError, OSError) as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return FAILED

# SPDX-License-Identifier: Apache-2.0
"""The command `energy-collector`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from energy_collector import __version__, config, control, quality
from energy_collector.buffer import Buffer, BufferUnusableError
from energy_collector.identity import IdentityError
from energy_collector.journal import set_up
from energy_collector.times import iso

OK, FAILED, MISUSED = 0, 1, 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="energy-collector", description="Reads meters and delivers their readings."
    )
    parser.add_argument("--version", action="version", version=f"energy-collector {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        if name != "check":
            one.add_argument("--config", type=Path, default=config.DEFAULT_PATH, metavar="FILE")
        return one

    command("gateway", "poll the meters and store their readings (a service)")
    command("persistence", "deliver stored readings to the hub (a service)")
    command("check", "check a configuration").add_argument("file", type=Path, metavar="CONFIG")
    command("probe", "ask every meter whether it answers")
    command("read", "read all points of a meter").add_argument("meter", metavar="METER")
    buffer = command("buffer", "show what the buffer holds")
    buffer.add_argument("what", choices=["status", "export"])
    command("counters", "show the running gateway's counts of requests and errors")
    command("run", "poll every meter and print the readings").add_argument(
        "--once", action="store_true", required=True
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 misused."""
    options = _parser().parse_args(arguments)
    commands = {
        "gateway": _gateway,
        "persistence": _persistence,
        "check": _check,
        "probe": _probe,
        "read": _read,
        "buffer": _buffer,
        "counters": _counters,
        "run": _run_once,
    }
    try:
        return commands[options.command](options)
    except config.ConfigError as error:
        for fault in error.faults:
            _complain(fault)
        return FAILED
    except (BufferUnusableError, IdentityError, control.NotRunningError, OSError) as error:
        _complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _complain(text: str) -> None:
    print(f"energy-collector: {text}", file=sys.stderr)


def _gateway(options: argparse.Namespace) -> int:
    # Imported here, as what talks to meters is below: the delivering service has no need of it, and saves its
    # memory.
    import asyncio

    from energy_collector.gateway import Gateway

    settings = config.load(options.config)
    _become_service()

    async def serve() -> None:
        await Gateway(settings).run()

    asyncio.run(serve())
    return OK


def _persistence(options: argparse.Namespace) -> int:
    # Imported here: the polling service has no need of TLS and MQTT, and saves their memory.
    from energy_collector.persistence import Persistence

    settings = config.load(options.config)
    _become_service()
    Persistence(settings).run()
    return OK


def _become_service() -> None:
    os.umask(0o077)
    set_up()


def _check(options: argparse.Namespace) -> int:
    settings = config.load(options.file)
    print(
        f"{options.file}: site {settings.site}, {len(settings.meters)} meters on {len(settings.buses)} buses"
    )
    return OK


def _ask(settings: config.Config, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Have the running gateway serve requests; do it ourselves where none runs, since then the buses are
    free."""
    try:
        return [control.ask(settings.control_socket, request) for request in requests]
    except control.NotRunningError:
        import asyncio

        return asyncio.run(_serve_directly(settings, requests))


async def _serve_directly(settings: config.Config, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from energy_collector.bus import Bus
    from energy_collector.clock import SourceClock
    from energy_collector.meters import make
    from energy_collector.operations import Operations
    from energy_collector.poller import PolledMeter

    buses = {one.name: Bus(one) for one in settings.buses}
    clock = SourceClock()
    meters = {one.name: PolledMeter(make(one), clock, 0) for one in settings.meters}
    operations = Operations(buses, meters, clock)
    answers: list[dict[str, Any]] = []
    try:
        for request in requests:
            try:
                answers.append({"ok": True, **await operations.handle(request)})
            except control.RequestError as error:  # noqa: PERF203  (each request fails for itself)
                answers.append({"ok": False, "error": error.error, "cause": error.cause})
    finally:
        for bus in buses.values():
            bus.close()
    return answers


def _probe(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    failed = False
    for meter in settings.meters:
        request = {"op": "read_meter", "meter": meter.name}
        answer = _ask(settings, [request])[0]
        where = f"{meter.name}: bus {meter.bus}, unit {meter.unit}, {meter.profile}"
        if answer["ok"]:
            good = sum(one["value"] is not None for one in answer["readings"])
            print(f"ok      {where}: {good} of {len(answer['readings'])} points have a value")
        else:
            failed = True
            print(f"FAILED  {where}: {answer['error']}. Likely cause: {answer['cause']}")
    return FAILED if failed else OK


def _read(options: argparse.Namespace) -> int:
    answer = _ask(config.load(options.config), [{"op": "read_meter", "meter": options.meter}])[0]
    if not answer["ok"]:
        _complain(f"{answer['error']}. Likely cause: {answer['cause']}")
        return FAILED
    _print_readings(answer)
    return OK


def _run_once(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    requests = [{"op": "read_meter", "meter": meter.name} for meter in settings.meters]
    failed = False
    for meter, answer in zip(settings.meters, _ask(settings, requests), strict=True):
        if answer["ok"]:
            _print_readings(answer)
        else:
            failed = True
            _complain(f"{meter.name}: {answer['error']}. Likely cause: {answer['cause']}")
    return FAILED if failed else OK


def _print_readings(answer: dict[str, Any]) -> None:
    for one in answer["readings"]:
        value = "-" if one["value"] is None else f"{one['value']:.10g}"
        print(f"{answer['time']}  {one['point']:<36} {value:>16} {one['unit']:<6} {one['quality']}")


def _buffer(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    path = settings.buffer.path
    if not path.exists():
        raise BufferUnusableError(f"{path}: there is no buffer yet; energy-gateway makes it")
    buffer = Buffer(path)
    try:
        if options.what == "status":
            state = asdict(buffer.state())
            print(json.dumps({**state, "oldest": iso(state["oldest"])}, indent=2))
        else:
            for sequence, one in buffer.export():
                row = {
                    "batch": sequence,
                    **one._asdict(),
                    "time": iso(one.time),
                    "quality": quality.name(one.quality),
                }
                print(json.dumps(row))
    finally:
        buffer.close()
    return OK


def _counters(options: argparse.Namespace) -> int:
    answer = control.ask(config.load(options.config).control_socket, {"op": "counters"})
    print(json.dumps(answer, indent=2))
    return OK if answer["ok"] else FAILED

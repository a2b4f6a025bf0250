# SPDX-License-Identifier: Apache-2.0
"""Serve simulated meters: python -m wattfleet_lab.meters --description FILE --control SOCKET [--log FILE]."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
from pathlib import Path

from wattfleet_lab.meters import description, profile
from wattfleet_lab.meters.control import Control
from wattfleet_lab.meters.fleet import Fleet
from wattfleet_lab.meters.namespace import ListenError

_log = logging.getLogger("wattfleet_lab.meters")


async def serve(path: Path, socket_path: Path) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the description again.

    Raises DescriptionError, ListenError, OSError when the start fails.
    """
    profile.measured()  # a missing data set is said before any port opens
    wanted = description.load(path)
    fleet = Fleet()
    control = Control(fleet)
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    server = None
    reloading = None
    try:
        await fleet.take(wanted)
        server = await control.open(socket_path)
        _log.info("ready: %d sites", len(fleet.sites))
        reloading = asyncio.create_task(_reload(fleet, path, reload))
        await fleet.warm_up(time.time())
        await stop.wait()
    finally:
        if reloading is not None:
            reloading.cancel()
        if server is not None:
            server.close()
            socket_path.unlink(missing_ok=True)
        await fleet.close()


async def _reload(fleet: Fleet, path: Path, asked: asyncio.Event) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            await fleet.take(description.load(path))
        except description.DescriptionError as error:
            _log.error("description not taken over: %s", error)
        except ListenError:
            _log.warning("not all sites are running")
        else:
            _log.info("description read again: %d sites", len(fleet.sites))
            await fleet.warm_up(time.time())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m wattfleet_lab.meters", description="Serve simulated meters."
    )
    parser.add_argument(
        "--description", type=Path, required=True, help="JSON file, see README.md beside the code"
    )
    parser.add_argument("--control", type=Path, required=True, help="unix socket to make")
    parser.add_argument("--log", type=Path, help="log file (default: standard error)")
    arguments = parser.parse_args()
    try:
        logging.basicConfig(
            filename=arguments.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
        )
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(arguments.description, arguments.control))
    except (description.DescriptionError, ListenError, OSError) as error:
        print(f"wattfleet meters: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

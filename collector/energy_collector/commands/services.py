# SPDX-License-Identifier: Apache-2.0
"""The two services, as systemd starts them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from energy_collector import config
from energy_collector.commands import OK
from energy_collector.journal import set_up


def gateway(path: Path) -> int:
    """Poll the meters until told to stop."""
    from energy_collector.aside import aside

    settings = aside(lambda: config.load(path))
    if settings.metrics_port is None:
        # asyncio does without TLS where there is none, and so do the meters: OpenSSL alone takes 4 MB.
        sys.modules["ssl"] = None  # type: ignore[assignment]  # None is how Python is told that there is none
    # Imported here: the delivering service has no need of asyncio and of what talks to meters.
    import asyncio

    from energy_collector.gateway import Gateway

    _become_service()

    async def serve() -> None:
        await Gateway(settings, path).run()

    asyncio.run(serve())
    return OK


def persistence(path: Path) -> int:
    """Deliver what is stored until told to stop."""
    # Imported here: the polling service has no need of TLS and MQTT, and saves their memory.
    from energy_collector.delivery.persistence import Persistence

    settings = without_meters(path)
    _become_service()
    Persistence(settings).run()
    return OK


def without_meters(path: Path) -> config.Config:
    """What the delivering service has to know: it never talks to a meter, and register maps would stay in its
    memory. Raises ConfigError."""
    from energy_collector.aside import aside

    return aside(lambda: replace(config.load(path), buses=(), meters=(), radios=()))


def _become_service() -> None:
    os.umask(0o077)
    set_up()

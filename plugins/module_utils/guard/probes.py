# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Connections that the gateway can make, before a change and after it."""

from __future__ import annotations

import socket
import threading
from typing import Any

TIMEOUT = 5.0


def name_of(probe: dict[str, Any]) -> str:
    return f"{probe['host']} port {probe['port']}"


def passing(probes: list[dict[str, Any]], timeout: float = TIMEOUT) -> list[dict[str, Any]]:
    """Those of the probes that answer, all asked at the same time."""
    answers = [False] * len(probes)

    def ask(number: int, probe: dict[str, Any]) -> None:
        try:
            with socket.create_connection((probe["host"], int(probe["port"])), timeout):
                answers[number] = True
        except OSError:
            answers[number] = False

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in enumerate(probes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        # The resolver has time-outs of its own, which are longer.
        thread.join(timeout + 1)
    return [probe for probe, answer in zip(probes, list(answers), strict=True) if answer]

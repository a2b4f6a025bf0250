# SPDX-License-Identifier: Apache-2.0
"""Tells systemd what the service does (sd_notify(3)); silent where there is no systemd."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send for instance `READY=1`; does nothing when the service was not started by systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", state, error)

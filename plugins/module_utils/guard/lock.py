# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""One process at a time, by a lock that the kernel takes from one that dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(file: Path, wait: float, busy: Exception) -> Iterator[None]:
    """Hold the lock of a file meanwhile. Raises `busy` when another process keeps it for `wait` seconds."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise busy from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)

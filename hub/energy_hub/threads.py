# SPDX-License-Identifier: Apache-2.0
"""A thread that ends by a fault of ours takes the process with it, and systemd starts that again.

Without one of its threads a worker looks alive, and its sites wait for ever. What it had in hand was not acknowledged,
or is in a transaction that the database takes back, so it comes again as after a cut.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import TracebackType

from energy_hub.logs import place

log = logging.getLogger(__name__)

FAILED = 1


def end_together() -> None:
    """From now on an exception that nobody catches ends the process with a failure, in whatever thread: the libraries'
    ones, and the main one, too. A line says where; the traceback goes to standard error."""
    threading.excepthook = _of_thread
    sys.excepthook = _of_main


def _of_thread(found: threading.ExceptHookArgs) -> None:
    try:
        if found.exc_value is not None:
            _tell(found.thread.name if found.thread else "?", found.exc_value)
        threading.__excepthook__(found)
    finally:
        # Not sys.exit(): it would end this thread alone, and wait for the others.
        os._exit(FAILED)


def _of_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    try:
        _tell("main", error)
        sys.__excepthook__(kind, error, trace)
    finally:
        os._exit(FAILED)


def _tell(name: str, error: BaseException) -> None:
    text = (
        "ERR fault: thread %s: %s; the service ends and is started again, nothing is lost; please report it"
    )
    log.error(text, name, place(error))

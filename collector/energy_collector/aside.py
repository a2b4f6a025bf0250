# SPDX-License-Identifier: Apache-2.0
"""Work whose tools are large and whose result is small, done in a child process: the memory goes with it.

A YAML reader and the readers of PEM files are needed for a moment, and would stay for as long as the service
runs.
"""

from __future__ import annotations

import os

# The half of pickle that does the work. The other one, in Python, is there for interpreters without it, and takes a
# quarter of a megabyte of each service.
from _pickle import dumps, loads
from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> T:
    """What `work` returns or raises; OSError when the child came to an end without saying anything."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if not data:
        raise OSError(f"a helping process ended with status {os.waitstatus_to_exitcode(status)}")
    # From our own child, by a pipe that nobody else has.
    failed, result = loads(data)
    if failed:
        raise result
    answer: T = result
    return answer


def _answer(work: Callable[[], object], writer: int) -> NoReturn:
    code = 1
    try:
        answer: tuple[bool, object]
        try:
            answer = False, work()
        except Exception as error:  # noqa: BLE001  (raised again by the parent)
            answer = True, error
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(dumps(answer))
        code = 0
    finally:
        # Nothing of the parent's is tidied up here.
        os._exit(code)

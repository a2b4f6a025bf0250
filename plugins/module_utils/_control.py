# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A client of the running collector's control socket: one JSON object a line each way, one request at a
time.
"""

from __future__ import annotations

import errno
import json
import socket
import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils import _faults

DEFAULT_SOCKET = "/run/energy/control.sock"
# As long as the collector gives a client: a whole meter on a slow line, each request timing out.
_TIMEOUT = 60.0
_LONGEST_LINE = 4 * 1024 * 1024


class NotRunningError(Exception):
    """Nobody listens: there is no socket file, or the process that made it is gone."""


class Control:
    """A connection to the collector. Raises NotRunningError when there is none to connect to."""

    def __init__(self, path: str, timeout: float = _TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            # Any other error (no permission, for instance) may hide a running collector; then nobody else may
            # use the bus.
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                raise NotRunningError(f"{path}: {error.strerror}") from None
            raise _faults.FaultError("COLLECTOR_STOPPED", f"{path}: {error.strerror or error}") from None
        self._pending = b""

    def close(self) -> None:
        self._socket.close()

    def request(self, op: str, **fields: t.Any) -> dict[str, t.Any]:
        """The answer to one request; a FaultError when its `ok` is false, or when there is none."""
        try:
            self._socket.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
            line = self._line()
        except TimeoutError:
            raise _faults.FaultError(
                "COLLECTOR_STOPPED", f"{self._path}: no answer to {op!r} within {self._timeout:g} s"
            ) from None
        except OSError as error:
            raise _faults.FaultError(
                "COLLECTOR_STOPPED", f"{self._path}: {error.strerror or error}"
            ) from None
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
            raise _faults.FaultError(
                "COLLECTOR", f"{self._path}: the answer to {op!r} is not a JSON object with `ok`"
            )
        if not answer["ok"]:
            raise _faults.from_text(str(answer.get("error", "no error given")), str(answer.get("cause", "")))
        return answer

    def _line(self) -> bytes:
        while b"\n" not in self._pending:
            chunk = self._socket.recv(65536)
            if not chunk or len(self._pending) > _LONGEST_LINE:
                raise _faults.FaultError(
                    "COLLECTOR_STOPPED", f"{self._path}: the collector ended the connection without an answer"
                )
            self._pending += chunk
        line, _newline, self._pending = self._pending.partition(b"\n")
        return line

# SPDX-License-Identifier: Apache-2.0
"""The control socket: a JSON object a line each way. The protocol is in docs/reference/gateway-
configuration.md."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from energy_collector.errors import UnusableError

MAX_LINE = 64 << 10
BACKLOG = 100
# Longer than the slowest answer: a whole meter on a slow line, each request timing out.
CLIENT_TIMEOUT = 60.0

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class RequestError(Exception):
    """A request that cannot be done. Both texts are one line."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(error)
        self.error = error
        self.cause = cause


class NotRunningError(UnusableError):
    """Nobody listens on the control socket."""


class ControlServer:
    """Serves `handler` on the socket, mode 0660."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the path cannot be used, or another gateway listens there."""
        if self._path.exists():
            self._remove_stale()
        self._server = await asyncio.start_unix_server(self._serve, sock=self._listening(), limit=MAX_LINE)

    def _listening(self) -> socket.socket:
        """A socket that has its name only once it listens: who sees the name is never refused."""
        new = Path(f"{self._path}~")
        new.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o117)
        try:
            sock.bind(str(new))
            sock.listen(BACKLOG)
            new.rename(self._path)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
        return sock

    def _remove_stale(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
        raise OSError(f"{self._path} is served by another energy-collector; a bus has one master")

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            # The client has gone, or sends a line without an end.
            return
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError as error:
            return _refusal(f"the request is not JSON: {error}", "a fault of the client")
        if not isinstance(request, dict):
            return _refusal("the request is not a JSON object", 'send for instance {"op": "status"}')
        try:
            return {"ok": True, **await self._handler(request)}
        except RequestError as error:
            return _refusal(error.error, error.cause)


def _refusal(error: str, cause: str) -> dict[str, Any]:
    return {"ok": False, "error": error, "cause": cause}


def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request to a running gateway; raises NotRunningError where none listens."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(CLIENT_TIMEOUT)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(f"no gateway listens on {path}") from error
        except PermissionError as error:
            raise UnusableError(
                f"{path}: permission denied; run this as root or as a member of the socket's group, energy"
            ) from error
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError as error:
            raise UnusableError(
                f"the gateway on {path} has not answered for {CLIENT_TIMEOUT:g} s; see journalctl -u energy-gateway"
            ) from error
    if not line:
        raise ConnectionError(f"the gateway on {path} closed the connection without an answer")
    answer: dict[str, Any] = json.loads(line)
    return answer

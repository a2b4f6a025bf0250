# SPDX-License-Identifier: Apache-2.0
"""A TCP relay between a gateway and its broker that does to the bytes what a bad network does.

TLS cannot be read here, but its records can be counted (RFC 8446, 5.1: five bytes of header, the last two the length):
an answer of the broker (PUBACK) is a short record, an acknowledgement of the hub a long one. Bytes that are eaten
make the rest of the connection worthless, so each of these ends with a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from enum import Enum

_RECORD_HEADER = 5
# Longer than a PUBACK (26 bytes in all), shorter than the topic of an acknowledgement alone with its JSON.
LONGEST_PUBACK = 80
PIECE = 4096


class Mode(Enum):
    """What happens to bytes from the hub to the gateway."""

    PASS = "pass"
    EAT = "eat"  # nothing comes back any more: PUBACKs are lost
    EAT_ACKNOWLEDGEMENTS = (
        "eat acknowledgements"  # PUBACKs pass until the first acknowledgement, which is lost
    )


class _Connection:
    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far

    def reset(self) -> None:
        """RST to both sides: what is under way is gone."""
        for writer in (self.near, self.far):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Relay:
    """Listens on loopback and connects to `port` there; a thread of its own."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.mode = Mode.PASS
        # Bytes a second from the gateway to the hub, None for no bound.
        self.rate: float | None = None
        self.resets = 0
        self.eaten = 0
        self.sent = 0  # bytes from the gateway to the hub
        self._target = port
        self._cut_in: int | None = None
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        assert self._listening.wait(10), "the relay does not listen"

    def stop(self) -> None:
        """End all connections and the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def reset(self) -> None:
        """Reset every connection now; from then on all passes."""
        done = threading.Event()

        def all_of_them() -> None:
            for connection in list(self._connections):
                self.resets += 1
                connection.reset()
            self.mode = Mode.PASS
            done.set()

        self._loop.call_soon_threadsafe(all_of_them)
        done.wait(10)

    def cut_in(self, count: int) -> None:
        """Reset the connection when the gateway has sent so many more bytes, in the middle of a batch."""
        self._cut_in = count

    @property
    def cut_is_done(self) -> bool:
        """Whether the last `cut_in` has happened."""
        return self._cut_in is None

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        # Small buffers: what waits for a thin line waits at the gateway.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        sock.bind(("127.0.0.1", 0))
        server = await asyncio.start_server(self._connection, sock=sock, limit=PIECE)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        for connection in list(self._connections):
            connection.reset()
        await asyncio.sleep(0.05)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, far_writer)
        self._connections.add(connection)
        ways = [
            asyncio.create_task(self._up(reader, connection)),
            asyncio.create_task(self._down(far_reader, connection)),
        ]
        try:
            # Each way ends with its connection; the other one has no use for what is left.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._connections.discard(connection)
            writer.close()
            far_writer.close()

    async def _up(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE if self.rate is None else 512):
                self.sent += len(piece)
                if self._cut_in is not None:
                    if len(piece) >= self._cut_in:
                        connection.far.write(piece[: self._cut_in])
                        await connection.far.drain()
                        self._cut_in = None
                        self.resets += 1
                        connection.reset()
                        return
                    self._cut_in -= len(piece)
                connection.far.write(piece)
                await connection.far.drain()
                if self.rate is not None:
                    await asyncio.sleep(len(piece) / self.rate)

    async def _down(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        eating = False
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                header = await reader.readexactly(_RECORD_HEADER)
                body = await reader.readexactly(int.from_bytes(header[3:]))
                is_long = len(body) + _RECORD_HEADER > LONGEST_PUBACK
                eating = (
                    eating or self.mode is Mode.EAT or (self.mode is Mode.EAT_ACKNOWLEDGEMENTS and is_long)
                )
                if eating:
                    self.eaten += 1
                    continue
                connection.near.write(header + body)
                await connection.near.drain()

# SPDX-License-Identifier: Apache-2.0
"""A connection that bytes go through: a TCP socket or a serial device. It knows nothing of Modbus."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import termios
import tty

from energy_collector.config import BusConfig

KEEPALIVE_IDLE = 30
KEEPALIVE_INTERVAL = 10
KEEPALIVE_COUNT = 3


class Line:
    """What has arrived waits in `buffer`. All methods raise OSError when the connection is gone."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self._arrived = asyncio.Event()
        self._gone: OSError | None = None

    def write(self, data: bytes) -> None:
        """Send everything."""
        raise NotImplementedError

    def close(self) -> None:
        """Hang up; may be called twice."""
        raise NotImplementedError

    async def more(self, timeout: float) -> bool:
        """Wait for more bytes; False when none came within `timeout` seconds."""
        if self._gone is None and not self._arrived.is_set():
            try:
                await asyncio.wait_for(self._arrived.wait(), max(timeout, 0))
            except asyncio.TimeoutError:
                return False
        if self._gone is not None:
            raise self._gone
        self._arrived.clear()
        return True

    def discard(self) -> int:
        """Forget what has arrived, and tell how many bytes it was."""
        count = len(self.buffer)
        self.buffer.clear()
        self._arrived.clear()
        return count

    @property
    def gone(self) -> bool:
        """Whether the other end has hung up."""
        return self._gone is not None

    def _feed(self, data: bytes) -> None:
        self.buffer += data
        self._arrived.set()

    def _lose(self, error: OSError) -> None:
        if self._gone is None:
            self._gone = error
            self._arrived.set()


class _Receiver(asyncio.Protocol):
    def __init__(self, line: TcpLine) -> None:
        self._line = line

    def data_received(self, data: bytes) -> None:
        self._line._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        lost = (
            exc
            if isinstance(exc, OSError)
            else ConnectionResetError(errno.ECONNRESET, "closed by the device")
        )
        self._line._lose(lost)


class TcpLine(Line):
    """A TCP connection with keepalive, so that a peer that vanished is noticed."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, host: str, port: int, timeout: float) -> TcpLine:
        """Connect within `timeout` seconds."""
        line = cls()
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: _Receiver(line), host, port)
        try:
            transport, _ = await asyncio.wait_for(connecting, timeout)
        except asyncio.TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, f"no connection within {timeout:g} s") from error
        except socket.gaierror as error:
            raise OSError(errno.EHOSTUNREACH, f"the name {host} has no address") from error
        line._transport = transport
        _tune(transport.get_extra_info("socket"))
        return line

    def write(self, data: bytes) -> None:
        """Send everything."""
        if self._gone is not None:
            raise self._gone
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Reset the connection: a gateway with few sockets gets its own back at once."""
        if self._transport is not None:
            self._transport.abort()


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)


class SerialLine(Line):
    """A serial device, opened exclusively."""

    def __init__(self, handle: int) -> None:
        super().__init__()
        self._handle = handle
        self._open = True
        asyncio.get_running_loop().add_reader(handle, self._read)

    @classmethod
    def open(cls, config: BusConfig) -> SerialLine:
        """Open and set up the device; EBUSY when another program holds it."""
        handle = os.open(config.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            _set_up(handle, config)
        except termios.error as error:
            os.close(handle)
            raise OSError(*error.args) from error
        except OSError:
            os.close(handle)
            raise
        return cls(handle)

    def write(self, data: bytes) -> None:
        """Send everything: a request is far shorter than the kernel's buffer."""
        if self._gone is not None:
            raise self._gone
        os.write(self._handle, data)

    def close(self) -> None:
        """Give the device back."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)

    def _read(self) -> None:
        try:
            data = os.read(self._handle, 4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if data:
            self._feed(data)
        else:
            self._fail(OSError(errno.ENODEV, "the serial device is gone"))

    def _fail(self, error: OSError) -> None:
        self.close()
        self._lose(error)


def _set_up(handle: int, config: BusConfig) -> None:
    fcntl.ioctl(handle, termios.TIOCEXCL)
    tty.setraw(handle, termios.TCSANOW)
    settings = termios.tcgetattr(handle)
    speed = getattr(termios, f"B{config.baudrate}")
    flags = settings[2] & ~(termios.PARENB | termios.PARODD | termios.CSTOPB | termios.CSIZE)
    flags |= termios.CS8 | termios.CREAD | termios.CLOCAL
    if config.parity != "N":
        flags |= termios.PARENB
    if config.parity == "O":
        flags |= termios.PARODD
    if config.stopbits == 2:
        flags |= termios.CSTOPB
    settings[2], settings[4], settings[5] = flags, speed, speed
    termios.tcsetattr(handle, termios.TCSANOW, settings)
    termios.tcflush(handle, termios.TCIOFLUSH)

# SPDX-License-Identifier: Apache-2.0
"""A connection that bytes go through: a TCP socket or a serial device. It knows nothing of Modbus.

It works on the file descriptor itself: a transport of asyncio closes its socket some time after it was told to,
and a gateway with a single place would refuse the connection that is to replace it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
import time
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable

from energy_collector.config import BusConfig
from energy_collector.hosts import resolvable

KEEPALIVE_INTERVAL = 10
KEEPALIVE_COUNT = 3
# More than any answer; what is left over is read at the next turn of the loop.
READ_SIZE = 4096


class Line(ABC):
    """What has arrived waits in `buffer`; `listener` is called after each arrival, and when the line is lost.

    `heard` is when the last bytes came, on the monotonic clock.
    """

    def __init__(self, handle: int) -> None:
        self.buffer = bytearray()
        self.heard = time.monotonic()
        # Why the other end is gone; None while it is there.
        self.lost: OSError | None = None
        self.listener: Callable[[], None] = lambda: None
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(handle, self._arrived)

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send everything. Raises OSError when the connection is gone."""

    @abstractmethod
    def _read(self) -> bytes:
        """What is there; empty at the end."""

    @abstractmethod
    def _end(self) -> OSError:
        """What the end of the stream means."""

    @abstractmethod
    def _release(self) -> None:
        """Close the descriptor."""

    def close(self) -> None:
        """Hang up, at once; may be called twice."""
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            self._handle = -1
            self._release()

    def lose(self, error: OSError) -> None:
        """The connection is of no use any more."""
        if self.lost is None:
            self.lost = error
            self.close()
            self.listener()

    def _arrived(self) -> None:
        try:
            data = self._read()
        except BlockingIOError:
            return
        except OSError as error:
            self.lose(error)
            return
        if not data:
            self.lose(self._end())
            return
        self.heard = time.monotonic()
        self.buffer += data
        self.listener()


class TcpLine(Line):
    """A TCP connection. A peer that vanished is noticed by keepalive while we are silent, and by the time that
    what we sent stays unacknowledged while we are not."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        super().__init__(sock.fileno())

    @classmethod
    async def open(cls, config: BusConfig, timeout: float) -> TcpLine:
        """Connect within `timeout` seconds, to the first of the name's addresses that answers."""
        try:
            return await asyncio.wait_for(cls._connect(config), timeout)
        except asyncio.TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, "no answer") from error

    @classmethod
    async def _connect(cls, config: BusConfig) -> TcpLine:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(resolvable(config.host), config.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise OSError(errno.EHOSTUNREACH, f"the name {config.host} has no address") from error
        failure: OSError | None = None
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                _tune(sock, config)
                await loop.sock_connect(sock, address)
                return cls(sock)
            except OSError as error:
                sock.close()
                failure = failure or error
            except BaseException:
                sock.close()
                raise
        raise failure or OSError(errno.EHOSTUNREACH, f"the name {config.host} has no address")

    def write(self, data: bytes) -> None:
        """Send everything: a request is far shorter than the kernel's buffer, unless nobody reads it."""
        if self.lost is not None:
            raise self.lost
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lose(error)
            raise
        if sent != len(data):
            self.lose(OSError(errno.ETIMEDOUT, "the device takes no more bytes"))
            raise self.lost or OSError(errno.ETIMEDOUT)

    def _read(self) -> bytes:
        return self._socket.recv(READ_SIZE)

    def _end(self) -> OSError:
        return OSError(errno.ECONNRESET, "closed by the device")

    def _release(self) -> None:
        self._socket.close()


def _tune(sock: socket.socket, config: BusConfig) -> None:
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, config.keepalive),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
        # A peer that has lost its power acknowledges nothing; left alone the kernel repeats for 15 minutes.
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(config.user_timeout * 1000)),
    ):
        sock.setsockopt(level, option, value)
    # Closing resets: a gateway with few sockets gets its own back at once, and not after a goodbye that it may
    # be too busy to answer.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class SerialLine(Line):
    """A serial device, opened exclusively."""

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

    def __init__(self, handle: int) -> None:
        self._device = handle
        super().__init__(handle)

    def write(self, data: bytes) -> None:
        """Send everything: a request is far shorter than the kernel's buffer."""
        if self.lost is not None:
            raise self.lost
        try:
            sent = os.write(self._device, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lose(_pulled(error))
            raise self.lost or error from error
        if sent != len(data):
            self.lose(OSError(errno.EIO, "the serial device takes no more bytes"))
            raise self.lost or OSError(errno.EIO)

    def _read(self) -> bytes:
        try:
            return os.read(self._device, READ_SIZE)
        except BlockingIOError:
            raise
        except OSError as error:
            raise _pulled(error) from error

    def _end(self) -> OSError:
        return OSError(errno.ENODEV, "the serial device is gone")

    def _release(self) -> None:
        os.close(self._device)


def _pulled(error: OSError) -> OSError:
    # A USB adapter that is pulled out gives EIO to whoever still holds it.
    if error.errno in (errno.EIO, errno.ENXIO):
        return OSError(errno.ENODEV, "the serial device is gone")
    return error


def _set_up(handle: int, config: BusConfig) -> None:
    # TIOCEXCL keeps out whoever comes later, except root; the lock keeps out a second collector of root's too.
    fcntl.ioctl(handle, termios.TIOCEXCL)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(errno.EBUSY, "another program holds the serial device") from error
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

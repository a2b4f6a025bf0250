# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A serial line that is talked to as if it were a socket, with the standard library alone."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import tty

PARITIES = ("N", "E", "O")
BAUDRATES = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)


class Line:
    """An open serial device with eight data bits. It is locked as the collector locks it, so that no two have it."""

    def __init__(self, device: str, baudrate: int, parity: str, stopbits: int) -> None:
        self._timeout: float | None = None
        self._handle = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            set_up(self._handle, baudrate, parity, stopbits)
        except BlockingIOError:
            os.close(self._handle)
            raise OSError(errno.EBUSY, "another program holds the serial device") from None
        except termios.error as error:
            os.close(self._handle)
            raise OSError(errno.ENOTTY, f"no serial device: {error.args[-1]}") from None

    def settimeout(self, seconds: float) -> None:
        self._timeout = seconds

    def setblocking(self, flag: bool) -> None:
        self._timeout = None if flag else 0.0

    def sendall(self, data: bytes) -> None:
        while data:
            if not select.select([], [self._handle], [], self._timeout)[1]:
                raise TimeoutError
            data = data[os.write(self._handle, data) :]

    def recv(self, count: int) -> bytes:
        if not select.select([self._handle], [], [], self._timeout)[0]:
            if self._timeout == 0.0:
                raise BlockingIOError
            raise TimeoutError
        return os.read(self._handle, count)

    def close(self) -> None:
        os.close(self._handle)


def set_up(handle: int, baudrate: int, parity: str, stopbits: int) -> None:
    """Take a serial device for this process alone and set its line up."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    tty.setraw(handle, termios.TCSANOW)
    settings = termios.tcgetattr(handle)
    flags = settings[2] & ~(termios.PARENB | termios.PARODD | termios.CSTOPB | termios.CSIZE)
    flags |= termios.CS8 | termios.CREAD | termios.CLOCAL
    flags |= {"N": 0, "E": termios.PARENB, "O": termios.PARENB | termios.PARODD}[parity]
    flags |= termios.CSTOPB if stopbits == 2 else 0
    settings[2] = flags
    settings[4] = settings[5] = getattr(termios, f"B{baudrate}")
    termios.tcsetattr(handle, termios.TCSANOW, settings)
    termios.tcflush(handle, termios.TCIOFLUSH)

# SPDX-License-Identifier: Apache-2.0
"""Listening sockets inside another network namespace.

A socket belongs for ever to the namespace its thread was in when it was made, so a short-lived thread
enters the namespace, makes the sockets and ends; no other thread ever leaves its own namespace.
"""

import ctypes
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

_CLONE_NEWNET = 0x40000000
_BACKLOG = 64


class ListenError(Exception):
    """A port cannot be opened; the message says which, where and why."""


def listen(site: str, netns: str | None, addresses: list[tuple[str, int]]) -> list[socket.socket]:
    """One listening socket for each address, all or none. Raises ListenError."""
    made: list[socket.socket] = []
    errors: list[Exception] = []

    def make() -> None:
        with ExitStack() as undo:
            try:
                if netns is not None:
                    _enter(site, netns)
                for address, port in addresses:
                    made.append(_listen(site, netns, address, port))
                    undo.callback(made[-1].close)
            except Exception as error:  # noqa: BLE001 - handed to the caller's thread below
                errors.append(error)
                return
            undo.pop_all()

    _in_thread(make) if netns is not None else make()
    if errors:
        raise errors[0]
    return made


def _in_thread(work: Callable[[], None]) -> None:
    thread = Thread(target=work, name="namespace")
    thread.start()
    thread.join()


def _enter(site: str, netns: str) -> None:
    try:
        handle = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ListenError(f"site {site}: network namespace {netns}: {error.strerror}") from error
    try:
        # os.setns exists from Python 3.12 on only.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(handle, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise ListenError(
                f"site {site}: cannot enter network namespace {netns}: {reason} (root is needed)"
            )
    finally:
        os.close(handle)


def _listen(site: str, netns: str | None, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        where = f" in {Path(netns).name}" if netns else ""
        raise ListenError(
            f"site {site}: cannot listen on {address}:{port}{where}: {error.strerror}"
        ) from error
    return made

# SPDX-License-Identifier: Apache-2.0
"""Makes the collection importable from the working tree, and a hub's broker as far as TLS goes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.hub.authority import Authority, Identity

COLLECTIONS = Path(__file__).resolve().parents[3] / ".collections"
if str(COLLECTIONS) not in sys.path:
    sys.path.insert(0, str(COLLECTIONS))


class Hub:
    """A TLS 1.3 server that demands a client certificate of `trusted`, and keeps every connection open."""

    def __init__(self, folder: Path, shown: str, key: str, trusted: str) -> None:
        (folder / "hub.crt").write_text(shown)
        (folder / "hub.key").write_text(key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(folder / "hub.crt", folder / "hub.key")
        self._context.load_verify_locations(cadata=trusted)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[ssl.SSLSocket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _address = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._open.append(self._context.wrap_socket(plain, server_side=True))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            one.close()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def stranger() -> Authority:
    return Authority()


@pytest.fixture
def make_hub(tmp_path: Path, authority: Authority) -> Iterator[Callable[[str], Hub]]:
    """A hub of `authority`; the argument is whom it trusts, in PEM."""
    hubs: list[Hub] = []

    def make(trusted: str) -> Hub:
        folder = tmp_path / "hub"
        folder.mkdir(exist_ok=True)
        shown: Identity = authority.client("localhost", server=True)
        hubs.append(Hub(folder, authority.chain(shown), shown.key_pem(), trusted))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()

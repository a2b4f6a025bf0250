# SPDX-License-Identifier: Apache-2.0
"""connect.py ADDRESS FILES: eight sites connect twice through the balancer, each by its own name; prints their ports.

FILES has `ca/ca.crt` and, in `clients/`, a key and a chain for each of plant-1 to plant-8. Whoever names nobody has to
be refused.
"""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path

SITES = [f"plant-{number}" for number in range(1, 9)]
DOMAIN = "brokers.energy.internal"
# An MQTT 5 CONNECT with a clean start, no properties and the client id "x".
CONNECT = bytes.fromhex("100e 0004 4d515454 05 02 003c 00 0001 78".replace(" ", ""))


def connect(address: str, files: Path, site: str) -> int:
    """As a gateway does: the broker's certificate is verified by the name that was dialled. The port it came from."""
    context = ssl.create_default_context(cafile=str(files / "ca/ca.crt"))
    context.load_cert_chain(files / f"clients/{site}.crt", files / f"clients/{site}.key")
    plain = socket.create_connection((address, 8883), 10)
    with plain, context.wrap_socket(plain, server_hostname=f"{site}.{DOMAIN}") as secure:
        port = int(secure.getsockname()[1])
        secure.sendall(CONNECT)
        answer = secure.recv(16)
    assert answer[:1] == b"\x20", f"{site}: no CONNACK, but {answer!r}"
    assert answer[3] == 0, f"{site}: refused with {answer[3]:#x}"
    return port


def nameless(address: str) -> None:
    """Without a name there is no broker."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, 8883), 10) as plain:
        try:
            context.wrap_socket(plain)
        except (ssl.SSLError, ConnectionError):
            return
    raise AssertionError("somebody who named nobody was let in")


def main() -> None:
    address, files = sys.argv[1], Path(sys.argv[2])
    for site in SITES * 2:
        print(connect(address, files, site))
    nameless(address)


if __name__ == "__main__":
    main()

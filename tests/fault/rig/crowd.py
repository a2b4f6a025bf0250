# SPDX-License-Identifier: Apache-2.0
"""Ten thousand connections, in a process of their own: `python -m tests.fault.rig.crowd PORT COUNT SOURCES KIND …`.

They come from 127.0.1.1 and on, as many addresses as are asked for. What is open is told on standard output, a line of
JSON a second, until the process is ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import ssl
import threading
import time

# s that a connection may take to be made: on one machine that is at once, or the other side's queue is full.
PATIENCE = 2.0
MUTE, HELLO, FULL, CHURN = "mute", "hello", "full", "churn"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("sources", type=int)
    parser.add_argument("kind", choices=(MUTE, HELLO, FULL, CHURN))
    parser.add_argument("--name", default="", help="to ask for (SNI)")
    parser.add_argument("--certificate", help="chain to show")
    parser.add_argument("--key")
    options = parser.parse_args()
    crowd = Crowd(options)
    threading.Thread(target=crowd.gather, daemon=True).start()
    while True:
        print(json.dumps(crowd.look()), flush=True)
        time.sleep(1.0)


class Crowd:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._open: set[socket.socket] = set()
        self._made = 0
        self._refused = 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if options.certificate:
            context.load_cert_chain(options.certificate, options.key)
        self._context = context
        out = ssl.MemoryBIO()
        client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=options.name or None)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        self._hello = out.read()

    def gather(self) -> None:
        """One after the other, as fast as it goes."""
        number = 0
        while self._options.kind == CHURN or number < self._options.count:
            source = f"127.0.1.{number % self._options.sources + 1}"
            number += 1
            try:
                self._one(source)
                self._made += 1
            except OSError:
                self._refused += 1

    def _one(self, source: str) -> None:
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        try:
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", self._options.port))
            if self._options.kind == HELLO:
                sock.sendall(self._hello)
            elif self._options.kind in (FULL, CHURN):
                sock = self._context.wrap_socket(sock, server_hostname=self._options.name)
            if self._options.kind == CHURN:
                # What the other side says to the certificate.
                sock.sendall(b"\x10")
                sock.recv(1)
        except OSError:
            sock.close()
            raise
        if self._options.kind == CHURN:
            sock.close()
            return
        sock.setblocking(False)
        self._open.add(sock)

    def look(self) -> dict[str, int]:
        """Those that the other side has closed are counted out."""
        for sock in list(self._open):
            if _is_over(sock):
                self._open.remove(sock)
                sock.close()
        return {"made": self._made, "refused": self._refused, "open": len(self._open)}


def _is_over(sock: socket.socket) -> bool:
    try:
        return sock.recv(4096) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main()

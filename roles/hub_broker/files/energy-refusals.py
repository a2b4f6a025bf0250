# SPDX-License-Identifier: Apache-2.0
"""Tells in the journal whom the broker has refused, and why, in words.

Mosquitto tells of a refused handshake in the words of OpenSSL, and of a refused topic only among its debug lines, of
which there are several for each message. So it writes all of them into a file in memory, which this program reads and,
when it has grown, empties.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LIMIT = 8 * 1024 * 1024  # bytes of the file
PAUSE = 0.5  # s between two looks
NOT_TOLD = (
    # Of every connection that ends without a word, long after its handshake too: nobody was refused.
    "unexpected eof while reading",
    # How a signature was found to be wrong; that the certificate is not taken comes as the next error.
    "EVP lib",
)
HANDSHAKE = 30.0  # s after which a connection is no longer in its handshake

NEW = re.compile(r"New connection from (\S+) on port \d+")
CONNECTED = re.compile(r"New client connected from (\S+) as ")
OPENSSL = re.compile(r"OpenSSL Error\[\d+\]: error:[0-9A-F]+:[^:]*:[^:]*:(.*)$")
FAILED = re.compile(r"Client connection from (\S+) failed: error:[0-9A-F]+:[^:]*:[^:]*:(.*?)\.?$")
DENIED = re.compile(r"Denied PUBLISH from (\S+) \(d\d, q\d, r\d, m\d+, '(.*)', \.\.\. \((\d+) bytes\)\)")
SUBSCRIBED = re.compile(r"^(\S+) [012] (\S+)$")

REASONS = {
    "unsupported protocol": "it speaks TLS 1.2 or older, and only 1.3 is taken",
    "peer did not return a certificate": "it has no certificate",
    "certificate verify failed": (
        "its certificate is foreign, expired, revoked or no client's, or the hub's revocation list has ended"
    ),
    "wrong version number": "it does not speak TLS",
    "http request": "it speaks HTTP",
    "no shared cipher": "it has no cipher in common with the broker",
    "no suitable signature algorithm": "it has no signature algorithm in common with the broker",
}


class Teller:
    """Makes lines for people out of the broker's."""

    def __init__(self, services: Sequence[str] = ()) -> None:
        self.services = services  # names that may read everything
        self.handshakes: dict[str, float] = {}

    def line(self, text: str, now: float) -> str:
        """What the journal is told of a line, empty for most."""
        if match := NEW.search(text):
            self.handshakes[match[1]] = now
        elif match := CONNECTED.search(text):
            self.handshakes.pop(match[1], None)
        elif match := DENIED.search(text):
            return f"refused a topic: {match[1]} may not publish to {match[2]!r} ({match[3]} bytes)"
        elif match := SUBSCRIBED.search(text):
            if match[1] not in self.services and not match[2].startswith(f"energy/v1/{match[1]}/"):
                return f"refused a topic: {match[1]} asked for {match[2]!r}, and gets nothing of it"
        elif match := FAILED.search(text):
            return f"refused a handshake from {match[1]}: {self.why(match[2])}"
        elif (match := OPENSSL.search(text)) and match[1] not in NOT_TOLD:
            return f"refused a handshake from {self.whom(now)}: {self.why(match[1])}"
        return ""

    def whom(self, now: float) -> str:
        """The broker does not say whose handshake failed: one of those that had begun and not ended."""
        self.handshakes = {peer: since for peer, since in self.handshakes.items() if now - since < HANDSHAKE}
        peers = list(self.handshakes)
        if len(peers) == 1:
            self.handshakes.clear()
        return (
            " or ".join(peers[-3:]) + (f" or {len(peers) - 3} others" if len(peers) > 3 else "") or "somebody"
        )

    @staticmethod
    def why(words: str) -> str:
        return f"{REASONS.get(words, 'see docs/how-to/revoke-a-gateway.md')} ({words})"


def lines(path: Path) -> Iterator[str]:
    """Complete lines that are added to the file, for ever. What was there before is not told again."""
    position = path.stat().st_size if path.exists() else 0
    rest = ""
    while True:
        try:
            with path.open("r+", encoding="utf-8", errors="replace") as file:
                if file.seek(0, 2) < position:
                    position = 0  # the broker was restarted, or somebody else has emptied it
                file.seek(position)
                *whole, rest = (rest + file.read()).split("\n")
                position = file.tell()
                yield from whole
                # The broker appends. What it writes between the look and the cut is lost: a few debug lines.
                if position > LIMIT:
                    file.truncate(0)
                    position = 0
        except FileNotFoundError:
            position = 0
        time.sleep(PAUSE)


def main() -> None:
    teller = Teller(sys.argv[2:])
    for line in lines(Path(sys.argv[1])):
        told = teller.line(line, time.monotonic())
        if told:
            print(f"<4>{told}", flush=True)


if __name__ == "__main__":
    main()

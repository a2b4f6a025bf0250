# SPDX-License-Identifier: Apache-2.0
"""Time stamps of RFC 3161 by the operating system's `openssl ts`: a third party says when a checkpoint was there.

Libraries for this are compiled, and the hub's one file carries nothing compiled (docs/decisions/0050-evidence.md).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

TIMEOUT = 30.0
# A response is a few KB with the authority's certificates in it.
MAX_RESPONSE = 65_536
_TIME = re.compile(r"^Time stamp: (\w{3}) +(\d+) (\d\d:\d\d:\d\d)(?:\.\d+)? (\d{4}) GMT$", re.MULTILINE)


class StampError(RuntimeError):
    """There is no time stamp, or it is not good; the message says why."""


class StampMissingError(StampError):
    """The program that looks at time stamps is not there."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Where time stamps come from, and the file with the certificates that they are checked against."""

    url: str
    ca: Path


def is_due(connection: psycopg.Connection, authority: Authority, interval: float) -> bool:
    """Whether the newest stamp of an authority is older than `interval` s."""
    row = connection.execute(
        "SELECT coalesce(max(received) < now() - make_interval(secs => %s), true) FROM checkpoint_stamp"
        " WHERE authority = %s",
        (interval, authority.url),
    ).fetchone()
    return row is not None and bool(row[0])


def stamp(connection: psycopg.Connection, number: int, digest: bytes, authority: Authority) -> datetime:
    """Have a checkpoint stamped, and keep the response; the time in it. Raises StampError."""
    response = request(digest, authority)
    moment = check(digest, response, authority.ca)
    connection.execute(
        "INSERT INTO checkpoint_stamp (checkpoint, authority, token) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (number, authority.url, response),
    )
    return moment


def request(digest: bytes, authority: Authority) -> bytes:
    """Ask for a stamp on a SHA-256; the DER of the response. Raises StampError."""
    query = _openssl("-query", "-sha256", "-digest", digest.hex(), "-cert")
    if not authority.url.startswith(("http://", "https://")):
        raise StampError(f"{authority.url}: expected http:// or https://")
    message = urllib.request.Request(  # noqa: S310  (the scheme was looked at)
        authority.url, query, {"Content-Type": "application/timestamp-query"}
    )
    try:
        with urllib.request.urlopen(message, timeout=TIMEOUT) as answer:  # noqa: S310  (as above)
            response: bytes = answer.read(MAX_RESPONSE + 1)
    except (OSError, urllib.error.URLError) as error:
        raise StampError(f"{authority.url}: no answer: {getattr(error, 'reason', error)}") from None
    if len(response) > MAX_RESPONSE:
        raise StampError(f"{authority.url}: its answer has more than {MAX_RESPONSE} bytes")
    with tempfile.TemporaryDirectory() as folder:
        ask, answer_file = Path(folder, "query"), Path(folder, "response")
        ask.write_bytes(query)
        answer_file.write_bytes(response)
        # The nonce too: an answer to an older question is none to this one.
        _verify("-queryfile", str(ask), "-in", str(answer_file), "-CAfile", str(authority.ca))
    return response


def check(digest: bytes, response: bytes, ca: Path) -> datetime:
    """The time for which a stamp vouches for a SHA-256. Raises StampError when it does not. The authority's certificate
    has to have been good at that time; it may have expired since."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "response")
        file.write_bytes(response)
        text = _openssl("-reply", "-in", str(file), "-text").decode(errors="replace")
        match = _TIME.search(text)
        if match is None:
            raise StampError(f"the time stamp authority refuses: {_refusal(text)}")
        moment = datetime.strptime(
            f"{match[1]} {match[2]} {match[3]} {match[4]}", "%b %d %H:%M:%S %Y"
        ).replace(tzinfo=UTC)
        at = str(int(moment.timestamp()))
        _verify("-digest", digest.hex(), "-in", str(file), "-CAfile", str(ca), "-attime", at)
    return moment


def _refusal(text: str) -> str:
    found = re.search(r"^(?:Status description|Failure info): (?!unspecified)(.+)$", text, re.MULTILINE)
    return found[1] if found else "without a reason"


def _verify(*arguments: str) -> None:
    _openssl("-verify", *arguments)


def _openssl(*arguments: str) -> bytes:
    command: Sequence[str] = ("openssl", "ts", *arguments)
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT
        )
    except FileNotFoundError:
        raise StampMissingError("the program openssl is missing: apt-get install openssl") from None
    except subprocess.TimeoutExpired:
        raise StampError(f"openssl ts {arguments[0]} does not come to an end") from None
    if done.returncode:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if ":error:" in line]
        reason = said[0].split(":") if said else []
        # THREAD:error:NUMBER:library:function:reason:file:line:data
        words = [word.strip() for word in (reason[5:6] + reason[8:]) if word.strip()]
        raise StampError(f"openssl ts {arguments[0]}: {', '.join(words) or 'failed'}")
    return done.stdout

# SPDX-License-Identifier: Apache-2.0
"""A gateway that is revoked, by the playbook and against the real broker: who is cut, refused, or notices nothing.

Besides what test_broker.py needs: REVOKE_INVENTORIES, the inventories of ansible-playbook separated by colons. The
tests are chosen by name: `revoke`, then `stale` while the broker has a list that has ended, then `renewed`.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from test_broker import ADDRESS, CONNECT, NAME, WAIT, client, context, first_answer

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
CUT_WITHIN = 60.0


def play(name: str, *arguments: str) -> str:
    inventories = [word for one in os.environ["REVOKE_INVENTORIES"].split(":") for word in ("-i", one)]
    done = subprocess.run(
        ["ansible-playbook", *inventories, str(PLAYBOOKS / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
    )
    return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"


def ticket(certificate: str) -> tuple[ssl.SSLContext, ssl.SSLSession]:
    """What a client needs to come back without showing its certificate again."""
    tls = context(certificate)
    plain = socket.create_connection((ADDRESS, 8883), WAIT)
    with plain, tls.wrap_socket(plain, server_hostname=NAME) as secure:
        secure.sendall(CONNECT)
        assert secure.recv(16)
        assert secure.session is not None
        return tls, secure.session


def resumed(tls: ssl.SSLContext, session: ssl.SSLSession) -> bool:
    """Whether the broker takes the ticket and the client with it."""
    plain = socket.create_connection((ADDRESS, 8883), WAIT)
    with plain, tls.wrap_socket(plain, server_hostname=NAME, session=session) as secure:
        secure.sendall(CONNECT)
        return bool(secure.recv(16)) and bool(secure.session_reused)


def refused(certificate: str) -> bool:
    try:
        return first_answer(context(certificate)) == b""
    except OSError:
        return True


def test_revoke_cuts_one_session_and_no_other() -> None:
    tls, session = ticket("plant-c")
    assert resumed(tls, session), "without a revocation the broker takes the ticket"
    with client("plant-c") as bad, client("plant-b") as good, client("ingest") as ingest:
        ingest.subscribe("energy/v1/+/batch")
        began = time.monotonic()
        told = play("revoke.yml", "-e", "site=plant-c", "-e", "reason=keyCompromise")
        assert told.endswith("exit code 0"), told
        assert "plant-c: 1 certificates revoked now" in told, told
        assert re.search(r"1 sessions cut \([0-9.:]+\), at most [0-9.]+ s after the start", told), told
        assert bad.lost.get(timeout=WAIT) >= 0x80
        took = time.monotonic() - began
        assert took <= CUT_WITHIN
        print(f"cut {took:.1f} s after the start of the playbook, all of it included")
        assert good.publish("energy/v1/plant-b/batch", b"still here") == 0
        assert ingest.messages.get(timeout=WAIT) == ("energy/v1/plant-b/batch", b"still here")
        assert good.lost.empty()
        assert ingest.lost.empty()
    assert refused("plant-c")
    with pytest.raises((OSError, AssertionError)):
        assert resumed(tls, session), "the old ticket is worth nothing"
    assert not refused("plant-b")


def test_revoke_again_changes_nothing() -> None:
    told = play("revoke.yml", "-e", "site=plant-c")
    assert "plant-c: 0 certificates revoked now, 1 were before" in told, told
    assert "no session was open" in told, told
    assert re.search(r"localhost +: ok=\d+ +changed=0 ", told), told


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-e", "site=plant-x"], "no certificate was ever issued to 'plant-x' .*did you mean plant-"),
        (["-e", "serial=ff"], "no certificate with the serial number ff is in the ledger"),
        ([], "Name what to revoke, one of the two"),
        (
            ["-e", "site=plant-b", "-e", "reason=weather"],
            r"reason is weather, and has to be\s+one of unspecified",
        ),
    ],
)
def test_revoke_refuses_what_it_does_not_know(arguments: list[str], line: str) -> None:
    told = play("revoke.yml", *arguments)
    assert re.search(line, told), told
    assert not told.endswith("exit code 0")
    assert not refused("plant-b")


@pytest.mark.parametrize("certificate", ["plant-a", "plant-b", "ingest"])
def test_stale_list_refuses_everybody(certificate: str) -> None:
    assert refused(certificate)


def test_renewed_list_lets_everybody_in_again() -> None:
    told = play("renew_crl.yml")
    assert told.endswith("exit code 0"), told
    assert re.search(r"[23]\d\.\d days left, 1 certificates revoked", told), told
    for certificate in ("plant-a", "plant-b", "ingest"):
        assert not refused(certificate)
    assert refused("plant-c")

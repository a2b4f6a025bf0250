# SPDX-License-Identifier: Apache-2.0
"""What the hub's journal is told of refusals, from lines as Mosquitto 2.0.11 writes them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[3] / "roles/hub_broker/files/energy-refusals.py"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("energy_refusals", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NEW = "New connection from 198.18.0.99:57132 on port 8883."


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "error:0A000102:SSL routines::unsupported protocol",
            "it speaks TLS 1.2 or older, and only 1.3 is taken",
        ),
        ("error:0A0000C7:SSL routines::peer did not return a certificate", "it has no certificate"),
        (
            "error:0A000086:SSL routines::certificate verify failed",
            "its certificate is foreign, expired, revoked",
        ),
        ("error:0A00010B:SSL routines::wrong version number", "it does not speak TLS"),
        ("error:0A000999:SSL routines::something new", "see docs/how-to/revoke-a-gateway.md"),
    ],
)
def test_a_handshake(program: ModuleType, line: str, words: str) -> None:
    teller = program.Teller()
    assert teller.line(NEW, 1.0) == ""
    told = teller.line(f"OpenSSL Error[0]: {line}", 1.1)
    assert told.startswith(f"refused a handshake from 198.18.0.99:57132: {words}")
    assert told.endswith(f"({line.rpartition(':')[2]})")
    told = program.Teller().line(f"Client connection from 198.18.0.99 failed: {line}.", 1.1)
    assert told.startswith(f"refused a handshake from 198.18.0.99: {words}")


def test_a_wrong_signature_is_told_by_what_follows_from_it(program: ModuleType) -> None:
    """A namesake of our authority has signed with another key: two errors, and the second one says what it means."""
    teller = program.Teller()
    teller.line(NEW, 1.0)
    assert teller.line("OpenSSL Error[0]: error:06880006:asn1 encoding routines::EVP lib", 1.1) == ""
    told = teller.line("OpenSSL Error[1]: error:0A000086:SSL routines::certificate verify failed", 1.1)
    assert told.startswith("refused a handshake from 198.18.0.99:57132: its certificate is foreign")


def test_of_several_handshakes_nobody_is_blamed_alone(program: ModuleType) -> None:
    teller = program.Teller()
    teller.line(NEW, 1.0)
    teller.line("New connection from 198.18.0.11:1000 on port 8883.", 1.0)
    teller.line("New connection from 198.18.0.12:1000 on port 8883.", 1.0)
    teller.line("New client connected from 198.18.0.12:1000 as lab-02 (p5, c0, k60, u'lab-02').", 1.1)
    told = teller.line("OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed", 1.1)
    assert told.startswith("refused a handshake from 198.18.0.99:57132 or 198.18.0.11:1000: ")
    told = teller.line("OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed", 60.0)
    assert told.startswith("refused a handshake from somebody: ")


def test_a_topic_of_another_site(program: ModuleType) -> None:
    line = "Denied PUBLISH from lab-01 (d0, q1, r0, m2, 'energy/v1/lab-02/batch', ... (1234 bytes))"
    assert program.Teller().line(line, 1.0) == (
        "refused a topic: lab-01 may not publish to 'energy/v1/lab-02/batch' (1234 bytes)"
    )


def test_a_subscription_to_what_is_anothers(program: ModuleType) -> None:
    teller = program.Teller(["ingest"])
    told = "refused a topic: lab-01 asked for 'energy/v1/#', and gets nothing of it"
    assert teller.line("lab-01 1 energy/v1/#", 1.0) == told
    assert teller.line("lab-01 1 energy/v1/lab-01/ack", 1.0) == ""
    assert teller.line("ingest 1 energy/v1/+/batch", 1.0) == ""


@pytest.mark.parametrize(
    "line",
    [
        "Received PUBLISH from lab-01 (d0, q1, r0, m2, 'energy/v1/lab-01/batch', ... (1234 bytes))",
        "New client connected from 198.18.0.11:1 as lab-01 (p5, c0, k60, u'lab-01').",
        "OpenSSL Error[0]: error:0A000126:SSL routines::unexpected eof while reading",
        "",
    ],
)
def test_nothing_is_told_of_what_is_accepted(program: ModuleType, line: str) -> None:
    assert program.Teller().line(line, 1.0) == ""


def test_the_file_is_read_on_after_it_was_emptied(program: ModuleType, tmp_path: Path) -> None:
    """By the program as it runs: what was there before is not told again, what is added is, and half a line waits."""
    denied = "Denied PUBLISH from lab-0{} (d0, q1, r0, m2, 'energy/v1/x/batch', ... (1 bytes))"
    log = tmp_path / "debug.log"
    log.write_text(denied.format(1) + "\n")
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(log)], stdout=subprocess.PIPE, text=True)
    watch = threading.Timer(20, process.kill)
    watch.start()
    try:
        assert process.stdout is not None
        threading.Event().wait(1.5)
        with log.open("a") as file:
            file.write(denied.format(2)[:20])
            file.flush()
            threading.Event().wait(0.8)
            file.write(denied.format(2)[20:] + "\n")
        assert "lab-02 may not" in process.stdout.readline()
        log.write_text("")
        threading.Event().wait(0.8)
        with log.open("a") as file:
            file.write(denied.format(3) + "\n")
        assert "lab-03 may not" in process.stdout.readline()
    finally:
        watch.cancel()
        process.kill()
        process.wait()

# SPDX-License-Identifier: Apache-2.0
"""The meters of the rig: what was still under way when the one who asked them died."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.fault.rig.meters import MeterServer

LINES, BETWEEN_LINES = 0x0000, 0x00C8


@pytest.fixture
def server() -> Iterator[MeterServer]:
    one = MeterServer()
    one.start()
    yield one
    one.stop()


def ask(sock: socket.socket, unit: int, address: int, *, wait: bool = True) -> None:
    sock.sendall(struct.pack(">HHHBBHH", 1, 0, 6, unit, 4, address, 6))
    if wait:
        assert len(sock.recv(64)) == 9 + 12


def test_the_last_poll_is_all_blocks_of_the_meter_that_was_asked_last(server: MeterServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        for unit, address in ((1, LINES), (2, LINES), (2, BETWEEN_LINES)):
            ask(sock, unit, address)
        assert [(one.unit, one.number) for one in server.last_poll()] == [(2, 2), (2, 1)]
        ask(sock, 2, LINES)
        assert [(one.unit, one.number) for one in server.last_poll()] == [(2, 3)]
        ask(sock, 1, LINES)
        ask(sock, 2, BETWEEN_LINES)
        assert [(one.unit, one.number) for one in server.last_poll()] == [(2, 4)]


def test_no_meter_has_a_last_poll_before_it_is_asked(server: MeterServer) -> None:
    assert server.last_poll() == []


def test_what_was_asked_and_not_heard_any_more_counts_as_well(server: MeterServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        ask(sock, 1, LINES, wait=False)
    server.settle()
    assert [one.number for one in server.last_poll()] == [1]


def test_the_meters_do_not_settle_while_somebody_is_connected(
    server: MeterServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fault.rig.meters.SETTLES", 0.5)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        ask(sock, 1, LINES)
        with pytest.raises(AssertionError, match="the meters see the connections end"):
            server.settle()

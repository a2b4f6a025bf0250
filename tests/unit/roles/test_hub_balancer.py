# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy with the role's configuration before servers that only say who they are."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.rig.balancer import Balancer
from tests.fault.rig.process import wait_for
from tests.ports import free_port

SITES = [f"plant-{number}" for number in range(40)]
DOMAIN = "brokers.energy.example"


class Server:
    """Answers the first bytes with its name, and holds the connection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open: list[socket.socket] = []
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self._open.append(peer)
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        try:
            if peer.recv(4096):
                peer.sendall(self.name.encode())
        except OSError:
            return  # a health check

    def stop(self) -> None:
        """As a process that is killed: nobody listens, and every connection is reset."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        for one in self._open:
            one.close()
        self._open.clear()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()


def hello(name: str | None) -> bytes:
    """The first message of a TLS client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def connect(balancer: Balancer, first: bytes, source: str = "127.0.0.1") -> tuple[socket.socket, str]:
    """The connection and who answers; empty when nobody does."""
    sock = socket.socket()
    sock.settimeout(10)
    sock.bind((source, 0))
    try:
        sock.connect(("127.0.0.1", balancer.port))
        sock.sendall(first)
        return sock, sock.recv(100).decode()
    except ConnectionError:
        return sock, ""


def where(balancer: Balancer, site: str) -> str:
    sock, name = connect(balancer, hello(f"{site}.{DOMAIN}"))
    sock.close()
    return name


@pytest.fixture
def servers() -> Iterator[dict[str, Server]]:
    found = {name: Server(name) for name in ("broker-1", "broker-2", "broker-3")}
    yield found
    for one in found.values():
        one.stop()


@pytest.fixture
def balancer(servers: dict[str, Server], tmp_path: Path) -> Iterator[Balancer]:
    one = Balancer(
        tmp_path / "balancer",
        {name: server.port for name, server in servers.items()},
        # One more is the look whether it listens, which sends nothing.
        hub_balancer_refusals_logged=4,
        hub_balancer_hello_timeout=1,
    )
    one.start()
    yield one
    one.stop()


def test_a_site_comes_to_the_same_broker_every_time(balancer: Balancer) -> None:
    first = {site: where(balancer, site) for site in SITES}
    spread = Counter(first.values())
    assert len(spread) == 3
    assert min(spread.values()) > 5
    for _ in range(3):
        assert {site: where(balancer, site) for site in SITES} == first
    # Names have no case; and the choice outlives the balancer.
    assert where(balancer, SITES[0].upper()) == first[SITES[0]]
    balancer.stop()
    balancer.start()
    assert {site: where(balancer, site) for site in SITES} == first


def test_without_the_variable_it_would_not(balancer: Balancer) -> None:
    """The control: what reads best is accepted, and is not sticky."""
    text = balancer.configuration.read_text()
    balancer.stop()
    balancer.write(text.replace("balance hash var(sess.site)", "balance hash req.ssl_sni"))
    balancer.start()
    assert any(len({where(balancer, site) for _ in range(6)}) > 1 for site in SITES[:10])


def test_only_the_sites_of_a_dead_broker_move_and_they_come_back(
    balancer: Balancer, servers: dict[str, Server]
) -> None:
    first = {site: where(balancer, site) for site in SITES}
    servers["broker-2"].stop()
    # The very first ones already: nobody waits for a health check.
    away = {site: where(balancer, site) for site in SITES}
    assert set(away.values()) == {"broker-1", "broker-3"}
    assert all(away[site] == first[site] for site in SITES if first[site] != "broker-2")
    servers["broker-2"].start()
    wait_for(lambda: {site: where(balancer, site) for site in SITES} == first, "all are back", 20)


def test_a_broker_is_drained(balancer: Balancer) -> None:
    first = {site: where(balancer, site) for site in SITES}
    sites = {name: next(site for site in SITES if first[site] == name) for name in set(first.values())}
    sessions = {name: connect(balancer, hello(f"{site}.{DOMAIN}"))[0] for name, site in sites.items()}
    balancer.ask("set server brokers/broker-1 state drain")
    assert "broker-1" not in {where(balancer, site) for site in SITES}
    balancer.ask("shutdown sessions server brokers/broker-1")
    assert sessions["broker-1"].recv(1) == b""
    sessions["broker-2"].settimeout(0.5)
    with pytest.raises(TimeoutError):
        sessions["broker-2"].recv(1)
    balancer.ask("set server brokers/broker-1 state ready")
    assert {site: where(balancer, site) for site in SITES} == first
    for one in sessions.values():
        one.close()


def test_who_names_nobody_is_refused_and_that_is_logged_with_a_limit(balancer: Balancer) -> None:
    began = time.monotonic()
    for first in (hello(None), b"GET / HTTP/1.1\r\n\r\n", b"\x10\x20\x00\x04MQTT"):
        sock, name = connect(balancer, first)
        sock.close()
        assert name == ""
    assert time.monotonic() - began < 5
    wait_for(lambda: sum("state=PR" in line for line in balancer.lines) == 3, "all three are logged")
    for _ in range(20):
        connect(balancer, b"GET / HTTP/1.1\r\n\r\n")[0].close()
    assert where(balancer, SITES[0])
    wait_for(lambda: any(f"site={SITES[0]}.{DOMAIN}" in line for line in balancer.lines), "it is logged")
    assert sum("state=PR" in line for line in balancer.lines) == 3


def test_the_log_says_by_which_port_the_broker_knows_a_gateway(
    balancer: Balancer, servers: dict[str, Server]
) -> None:
    sock, name = connect(balancer, hello(f"plant-a.{DOMAIN}"))
    peer = servers[name]._open[-1].getpeername()
    here = sock.getsockname()
    line = wait_for(
        lambda: next((one for one in balancer.lines if f"site=plant-a.{DOMAIN}" in one), ""), "it is logged"
    )
    assert f"{here[0]}:{here[1]} site=plant-a.{DOMAIN} broker={name} from={peer[0]}:{peer[1]} " in line
    sock.close()


def test_one_source_may_not_connect_without_end(servers: dict[str, Server], tmp_path: Path) -> None:
    ports = {name: server.port for name, server in servers.items()}
    balancer = Balancer(tmp_path / "balancer", ports, hub_balancer_source_rate=50)
    balancer.start()
    try:
        # Made beforehand: a busy machine takes its time for them, and here it is seconds that count.
        hellos = [hello(f"{site}.{DOMAIN}") for site in SITES + SITES]
        answers = []
        for one in hellos:
            sock, name = connect(balancer, one)
            sock.close()
            answers.append(name)
    finally:
        balancer.stop()
    assert all(answers[:40])
    assert not any(answers[60:])
    told = [line for line in balancer.lines if "state=PR" in line and "site=plant" in line]
    assert 5 < len(told) < 15, "some are told, and no more"


def test_one_source_may_not_hold_connections_without_end(servers: dict[str, Server], tmp_path: Path) -> None:
    ports = {name: server.port for name, server in servers.items()}
    balancer = Balancer(tmp_path / "balancer", ports, hub_balancer_source_connections=10)
    balancer.start()
    try:
        held = [connect(balancer, hello(f"{site}.{DOMAIN}")) for site in SITES]
        assert [bool(name) for _, name in held] == [True] * 10 + [False] * 30
        for sock, _ in held:
            sock.close()
        for server in servers.values():
            server.hang_up()
        wait_for(lambda: where(balancer, SITES[0]), "who has none any more is let in")
    finally:
        balancer.stop()


def test_when_it_fills_up_those_who_hold_few_are_let_in(servers: dict[str, Server], tmp_path: Path) -> None:
    ports = {name: server.port for name, server in servers.items()}
    balancer = Balancer(
        tmp_path / "balancer", ports, hub_balancer_connections=40, hub_balancer_source_crowded=3
    )
    balancer.start()
    try:
        # Some more are refused once it is full by three quarters.
        crowd = [connect(balancer, hello(f"{site}.{DOMAIN}"), "127.0.1.1") for site in SITES + SITES]
        assert sum(bool(name) for _, name in crowd) == 30
        few = [connect(balancer, hello(f"{site}.{DOMAIN}"), "127.0.2.2") for site in SITES[:5]]
        assert [bool(name) for _, name in few] == [True] * 3 + [False] * 2
        for sock, _ in crowd + few:
            sock.close()
    finally:
        balancer.stop()


def test_when_they_come_too_fast_those_who_bring_few_are_let_in(
    servers: dict[str, Server], tmp_path: Path
) -> None:
    ports = {name: server.port for name, server in servers.items()}
    balancer = Balancer(tmp_path / "balancer", ports, hub_balancer_rate=1, hub_balancer_source_crowded=10)
    balancer.start()
    try:
        first = hello(f"{SITES[0]}.{DOMAIN}")
        crowd = [connect(balancer, first, "127.0.1.1") for _ in range(40)]
        few = [connect(balancer, first, "127.0.2.2") for _ in range(3)]
        for sock, _ in crowd + few:
            sock.close()
    finally:
        balancer.stop()
    assert all(name for _, name in crowd[:10])
    # One now and then, where the machine was slow.
    assert sum(bool(name) for _, name in crowd[10:]) < 10
    assert all(name for _, name in few)

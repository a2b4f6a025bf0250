# SPDX-License-Identifier: Apache-2.0
"""The connection to the broker: a real mosquitto, and peers that are none."""

from __future__ import annotations

import json
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from energy_collector.config import HubConfig
from energy_collector.delivery import link
from energy_collector.delivery.link import Acked, Committed, Down, Event, Link, Ready, Up
from energy_collector.reading import Layout, Record

from tests.ports import free_port

from .collector_support import (
    PATIENCE,
    Authority,
    Broker,
    FakeHub,
    Service,
    document,
    running,
    wait_for,
)
from .test_collector_services import Line, fill

SITE = "plant-a"


class Client:
    """A link with a loop around it, as the service has one."""

    def __init__(self, hub: HubConfig) -> None:
        self._bell, self._button = socket.socketpair()
        self.link = Link(SITE, hub, b'{"state": "offline"}', self._wake)
        self.events: list[Event] = []
        self._unseen: list[Event] = []
        self.link.connect()

    def _wake(self) -> None:
        self._button.send(b"\0")

    def until(self, kind: type[Event], patience: float = PATIENCE) -> Event:
        """Serve the link until an event of `kind` comes; the others are kept in `events`."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            while self._unseen:
                event = self._unseen.pop(0)
                if isinstance(event, kind):
                    return event
            self._unseen += self.step()
        raise AssertionError(f"no {kind.__name__} among {self.events}")

    def step(self) -> list[Event]:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if self.link.interest is not None:
            poll.register(*self.link.interest)
        if any(handle == self._bell.fileno() for handle, _ in poll.poll(50)):
            self._bell.recv(99)
        found = self.link.service()
        self.events += found
        if any(isinstance(event, Ready) for event in found):
            self.link.begin()
        return found


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    found = Line(tmp_path)
    yield found
    found.hub.close()
    found.broker.stop()


def hub(folder: Path, port: int, **changes: object) -> HubConfig:
    files = {
        "ca": folder / "test-ca.crt",
        "certificate": folder / "plant-a.crt",
        "key": folder / "plant-a.key",
    }
    return HubConfig(**{"host": "localhost", "port": port, **files, **changes})  # type: ignore[arg-type]  # arguments of several types


def test_messages_go_both_ways(line: Line) -> None:
    client = Client(hub(line.folder, line.broker.port))
    client.until(Up)
    numbers = [client.link.publish("batch", bytes([index])) for index in range(5)]
    assert [client.until(Acked) for _ in numbers] == [Acked(number, "") for number in numbers]
    assert [line.hub.batches.get(timeout=PATIENCE) for _ in numbers] == [bytes([index]) for index in range(5)]
    line.hub.acknowledge("hello")
    assert client.until(Committed) == Committed(b"hello")
    client.link.close()


def test_a_refusal_by_the_access_list_is_told(line: Line) -> None:
    client = Client(hub(line.folder, line.broker.port))
    client.until(Up)
    number = client.link.publish("command", b"x")
    assert client.until(Acked) == Acked(number, "not authorized")
    client.link.close()


def test_the_socket_is_set_for_the_link(line: Line) -> None:
    for nodelay in (True, False):
        client = Client(hub(line.folder, line.broker.port, keepalive=120, tcp_nodelay=nodelay))
        client.until(Up)
        assert client.link._socket is not None
        found = client.link._socket
        assert bool(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is nodelay
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
        assert found.version() == "TLSv1.3"
        client.link.close()


def test_a_broker_that_stops_answering_is_noticed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_PATIENCE", 1.0)
    client = Client(hub(line.folder, line.broker.port, keepalive=1))
    client.until(Up)
    for _ in range(60):
        assert client.step() == [], "pings are answered"
    assert line.broker._process is not None
    line.broker._process.send_signal(signal.SIGSTOP)
    try:
        down = client.until(Down)
    finally:
        line.broker._process.send_signal(signal.SIGCONT)
    assert down == Down("no connection: no answer to a ping", "the hub is down or cannot be reached")


def test_another_one_with_our_name_ends_our_session(line: Line) -> None:
    first = Client(hub(line.folder, line.broker.port))
    first.until(Up)
    second = Client(hub(line.folder, line.broker.port))
    second.until(Up)
    down = first.until(Down)
    assert isinstance(down, Down)
    # mosquitto hangs up without the DISCONNECT that the standard asks for.
    assert down.reason in (
        "the broker has hung up",
        "the broker ends the connection: session taken over",
    )
    assert "another one uses our name" in down.cause
    second.link.close()


def test_no_more_than_the_broker_takes_is_under_way(line: Line) -> None:
    client = Client(hub(line.folder, line.broker.port))
    client.until(Up)
    sent = 0
    while client.link.has_room:
        client.link.publish("batch", b"x" * 100)
        sent += 1
    # mosquitto says 20 where nothing else is configured.
    assert sent == 20 - link.RESERVED
    for _ in range(sent):
        client.until(Acked)
    assert client.link.has_room
    client.link.close()


def test_a_name_that_the_hub_s_certificate_does_not_carry_is_refused(line: Line) -> None:
    down = Client(hub(line.folder, line.broker.port, host="127.0.0.1")).until(Down)
    assert isinstance(down, Down)
    assert "not for this name" in down.cause
    assert "IP address mismatch" in down.reason


def test_nothing_below_tls_1_3_is_spoken(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue(SITE)
    certificate, key = authority.issue("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            try:
                context.wrap_socket(peer, server_side=True)
            except ssl.SSLError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        down = Client(hub(tmp_path, listener.getsockname()[1])).until(Down)
        thread.join(PATIENCE)
    assert isinstance(down, Down)
    assert "VERSION" in down.reason
    assert "does not speak TLS 1.3" in down.cause


def test_what_is_no_broker_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue(SITE)
    certificate, key = authority.issue("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, context.wrap_socket(peer, server_side=True) as tls:
            tls.recv(1000)
            tls.sendall(
                b"HTTP/1.1 400 Bad Request\r\nServer: something-else\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            tls.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(hub(tmp_path, listener.getsockname()[1]))
        down = client.until(Down)
        client.link.close()
        thread.join(PATIENCE)
    assert isinstance(down, Down)
    assert down.reason.startswith("the broker does not speak MQTT 5: ")


@pytest.mark.parametrize(
    ("missing", "reason"), [("plant-a.key", "certificate or key is missing"), ("test-ca.crt", "missing")]
)
def test_missing_files_are_told(tmp_path: Path, missing: str, reason: str) -> None:
    Authority(tmp_path).issue(SITE)
    (tmp_path / missing).unlink()
    down = Client(hub(tmp_path, free_port())).until(Down)
    assert isinstance(down, Down)
    assert reason in down.reason


def test_a_link_that_is_closed_while_it_connects_leaves_nothing_open(line: Line) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    clients = [Client(hub(line.folder, line.broker.port)) for _ in range(5)]
    for client in clients:
        client.link.close()
    pairs = 2 * len(clients)
    wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + pairs, "the sockets are closed")
    wait_for(lambda: not [one for one in threading.enumerate() if one.name == "connect"], "no thread is left")


# Certificates that are replaced while the service runs.


def statuses(hub: FakeHub) -> list[str]:
    found = []
    while not hub.statuses.empty():
        found.append(json.loads(hub.statuses.get())["state"])
    return found


def acknowledge_next(line: Line) -> int:
    envelope, _ = line.next_batch()
    line.acknowledge(envelope.stream, envelope.sequence)
    return envelope.sequence


def test_renewed_certificates_are_taken_up_without_a_restart(line: Line) -> None:
    buffer = fill(line.folder, 3)
    service = Service("persistence", line.folder, line.config())
    with running(service):
        wait_for(lambda: acknowledge_next(line) == 3, "three batches")
        old = json.loads(line.hub.statuses.get(timeout=PATIENCE))["key"]["certificate"]
        line.authority.issue(SITE)
        wait_for(lambda: "going over to the new connection" in service.journal, "the new ones are taken up")
        status = json.loads(line.hub.statuses.get(timeout=PATIENCE))
        assert status["state"] == "online", "the broker has not sent the last will meanwhile"
        assert status["key"]["certificate"] == (line.folder / "plant-a.crt").read_text() != old
        assert status["first"] == status["sequence"] + 1 == 4, "all are gone"
        buffer.append(fill_more())
        wait_for(lambda: acknowledge_next(line) == 4, "batches go on")
        assert statuses(line.hub) == []
        assert service.journal.count("hub: connected") == 2
        assert "Likely cause" not in service.journal


def fill_more() -> list[Record]:
    return [Record(Layout(("m/p",), ("W",)), 1_000_000, [1.0])]


def test_new_certificates_that_the_hub_refuses_leave_the_old_connection(line: Line) -> None:
    buffer = fill(line.folder, 3)
    service = Service("persistence", line.folder, line.config())
    with running(service):
        wait_for(lambda: acknowledge_next(line) == 3, "three batches")
        good = {one: one.read_bytes() for one in line.folder.glob("plant-a.*")}
        foreign = line.folder / "foreign"
        foreign.mkdir()
        for path in Authority(foreign).issue(SITE):
            path.replace(line.folder / path.name)
        wait_for(lambda: "the old connection goes on" in service.journal, "the fault is told")
        assert "certificates: the new ones do not work" in service.journal
        buffer.append(fill_more())
        wait_for(lambda: acknowledge_next(line) == 4, "the old connection goes on")
        assert service.journal.count("hub: connected") == 1
        for path, data in good.items():
            path.write_bytes(data)


def test_half_of_a_renewal_is_not_taken_up(line: Line) -> None:
    fill(line.folder, 1)
    service = Service("persistence", line.folder, line.config())
    with running(service):
        wait_for(lambda: acknowledge_next(line) == 1, "a batch")
        other = line.folder / "other"
        other.mkdir()
        line.authority.folder = other
        certificate, key = line.authority.issue(SITE)
        certificate.replace(line.folder / "plant-a.crt")
        wait_for(lambda: "the new ones do not work" in service.journal, "certificate and key do not fit")
        assert "the certificate belongs to another key" in service.journal
        assert service.journal.count("hub: connected") == 1
        # The other half came late, as it does from a slow disk: it is not kept waiting for what was refused before.
        key.replace(line.folder / "plant-a.key")
        wait_for(lambda: "the hub takes the new ones" in service.journal, "the whole renewal is taken up")
        wait_for(lambda: service.journal.count("hub: connected") == 2, "the new connection")


def test_a_broker_of_another_port_says_that_nobody_listens(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue(SITE)
    Broker(tmp_path, authority)
    service = Service("persistence", tmp_path, document(tmp_path, hub={"port": free_port()}))
    with running(service):
        wait_for(lambda: "no connection: Connection refused" in service.journal, "the fault is told")

# SPDX-License-Identifier: Apache-2.0
"""Both services as processes, with real meters' servers, a real broker and a small hub."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import load_pem_x509_certificate
from energy_collector import config_file, control
from energy_collector.batches import batch
from energy_collector.cli import main
from energy_collector.delivery.persistence import Persistence
from energy_collector.delivery.telemetry import TelemetryLog
from energy_collector.delivery.telemetry import line as telemetry_line
from energy_collector.reading import Layout, Record
from energy_collector.storage.buffer import Buffer

from tests.ports import free_port

from .collector_support import (
    Authority,
    Broker,
    FakeHub,
    ModbusServer,
    Service,
    document,
    input_device,
    running,
    wait_for,
)

SITE = "plant-a"
FLOATS = list(struct.unpack(">2H", struct.pack(">f", 0.5))) * 120


class Line:
    """Broker, authority and hub of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.authority.issue(SITE, use_rsa=True)
        self.broker = Broker(folder, self.authority)
        self.broker.start()
        self.hub = FakeHub(self.broker, self.authority, SITE)

    def config(self, **changes: Any) -> dict[str, Any]:
        batches = {"interval": 1, "resend": 2, **changes.pop("batch", {})}
        changes.setdefault("hub", {}).setdefault("port", self.broker.port)
        return document(self.folder, batch=batches, **changes)

    def next_batch(self) -> tuple[batch.Batch, bytes]:
        data = self.hub.batches.get(timeout=30)
        return batch.parse(data), data

    def acknowledge(
        self, stream: bytes, watermark: int, ranges: list[list[int]] | None = None, generation: str = ""
    ) -> None:
        payload = {
            "stream": stream.hex(),
            "watermark": watermark,
            "ranges": ranges or [],
            "generation": generation,
        }
        self.hub.acknowledge(json.dumps(payload))


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    found = Line(tmp_path)
    yield found
    found.hub.close()
    found.broker.stop()


def fill(folder: Path, count: int, start: int = 1000) -> Buffer:
    """A buffer with `count` readings two seconds apart, so that each is a batch of its own."""
    buffer = Buffer(folder / "buffer.db")
    layout = Layout(("m/p",), ("W",))
    buffer.append([Record(layout, start + 2000 * index, [float(index)]) for index in range(count)])
    return buffer


def test_from_a_meter_to_the_hub_and_out_of_the_buffer(line: Line) -> None:
    with ModbusServer([input_device(1, 0, FLOATS), input_device(3, 0, FLOATS)]) as server:
        meters = [
            {"name": name, "bus": "hall", "unit": unit, "profile": "eastron-sdm630"}
            for name, unit in (("main", 1), ("gone", 2), ("press", 3))
        ]
        buses = [
            {"name": "hall", "type": "modbus-tcp", "host": "127.0.0.1", "port": server.port, "timeout": 1.0}
        ]
        # The gateway itself is read on whole minutes, which a run of this test may or may not meet.
        sources = {name: {"enabled": False} for name in ("host", "hwmon", "buses")}
        # Nothing comes twice here, however late it is acknowledged.
        settings = line.config(
            buses=buses, meters=meters, interval=0.5, sources=sources, batch={"resend": 60}
        )
        gateway = Service("gateway", line.folder, settings)
        persistence = Service("persistence", line.folder, settings)
        with running(persistence, gateway):
            status = json.loads(line.hub.statuses.get(timeout=30))
            assert status["state"] == "online"
            key = check_statement(status, line.authority)
            seen: set[tuple[str, int]] = set()
            for number in range(1, 4):
                envelope, _ = line.next_batch()
                envelope.verify(key)
                assert envelope.sequence == number
                body = batch.decode_body(envelope.body)
                assert body.site == SITE
                for reading in body.readings():
                    assert (reading.point, reading.time) not in seen
                    seen.add((reading.point, reading.time))
                    gone = reading.point.startswith("gone/")
                    assert (reading.value is None) == gone, reading
                assert {point.split("/")[0] for point, _ in seen} == {"main", "gone", "press"}
                line.acknowledge(envelope.stream, number)
            log = line.folder / "telemetry.log"
            wait_for(
                lambda: log.exists() and len(log.read_text().splitlines()) >= 3, "three lines of telemetry"
            )
            first = dict(part.split("=") for part in log.read_text().splitlines()[0].split()[1:])
            assert first["sequence"] == "1"
            assert "-" != first["sent"] <= first["puback"]
            assert first["puback"] != "-"
            assert first["committed"] >= first["puback"]
            check_socket(line.folder / "control.sock")
            assert persistence.kill(signal.SIGTERM) == 0
            assert gateway.kill(signal.SIGTERM) == 0
        assert gateway.journal.count("meter gone (bus hall, unit 2): ") == 1
        assert not (line.folder / "control.sock").exists()
        statuses = []
        while not line.hub.statuses.empty():
            statuses.append(json.loads(line.hub.statuses.get())["state"])
        assert statuses[-1] == "offline"


def check_statement(status: dict[str, Any], authority: Authority) -> Ed25519PublicKey:
    public = base64.b64decode(status["key"]["public"])
    certificate = load_pem_x509_certificate(status["key"]["certificate"].encode())
    vouching = certificate.public_key()
    assert isinstance(vouching, rsa.RSAPublicKey)
    message = b"energy/v1/key\0" + SITE.encode() + b"\0" + public
    vouching.verify(
        base64.b64decode(status["key"]["statement"]), message, padding.PKCS1v15(), hashes.SHA256()
    )
    assert authority.name == certificate.issuer
    return Ed25519PublicKey.from_public_bytes(public)


def check_socket(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    status = control.ask(path, {"op": "status"})
    assert status["site"] == SITE
    assert [one["connected"] for one in status["buses"]] == [True]
    by_name = {one["name"]: one for one in status["meters"]}
    assert by_name["main"]["last_success"] is not None
    assert by_name["main"]["consecutive_failures"] == 0
    assert by_name["gone"]["last_success"] is None
    assert by_name["gone"]["last_error"]
    assert status["buffer"]["dropped"] == 0
    read = control.ask(
        path, {"op": "read", "bus": "hall", "unit": 1, "function": 4, "address": 0, "count": 2}
    )
    assert read == {"ok": True, "registers": FLOATS[:2]}
    counters = control.ask(path, {"op": "counters"})
    assert counters["meters"]["main"]["answers"] > 0
    assert counters["meters"]["main"]["timeouts"] == 0
    meter = control.ask(path, {"op": "read_meter", "meter": "main"})
    assert {"point": "main/voltage_l1", "value": 0.5, "unit": "V", "quality": "good"} in meter["readings"]
    for wrong, error in (
        ({"op": "dance"}, "unknown op 'dance'"),
        ({"op": "read", "bus": "roof", "unit": 1}, "no bus 'roof'"),
        ({"op": "read", "bus": "hall", "unit": 999}, "unit is 999, not a whole number from 0 to 255"),
        ({"op": "read_meter", "meter": "x"}, "no meter 'x'"),
        ({"op": "read", "bus": "hall", "unit": 2, "address": 0}, "Modbus Error"),
    ):
        answer = control.ask(path, wrong)
        assert answer["ok"] is False
        assert error in answer["error"]
        assert answer["cause"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"hello\n[1]\n")
        with sock.makefile() as stream:
            assert "not JSON" in json.loads(stream.readline())["error"]
            assert "not a JSON object" in json.loads(stream.readline())["error"]


def test_without_an_acknowledgement_the_same_bytes_come_again(line: Line) -> None:
    fill(line.folder, 2)
    persistence = Service("persistence", line.folder, line.config())
    with running(persistence):
        first, data = line.next_batch()
        again = [line.next_batch()[1] for _ in range(4)]
        assert data in again
        line.acknowledge(first.stream, 1)
        buffer = Buffer(line.folder / "buffer.db")
        wait_for(
            lambda: [one.sequence for one in buffer.batches(0, 9)] == [2], "batch 1 is freed, batch 2 is not"
        )


def test_acknowledgements_with_ranges_and_of_other_streams(line: Line) -> None:
    buffer = fill(line.folder, 9)
    with running(Service("persistence", line.folder, line.config())):
        stream = line.next_batch()[0].stream
        wait_for(lambda: buffer.state().batches == 9, "nine batches")
        line.acknowledge(b"otherone", 99)
        line.hub.acknowledge("no JSON")
        line.hub.acknowledge(json.dumps({"stream": stream.hex(), "watermark": "all"}))
        line.acknowledge(stream, 2, [[4, 5], [8, 8]])
        wait_for(lambda: buffer.state().batches == 4, "five batches are freed")
        assert [one.sequence for one in buffer.batches(0, 99)] == [3, 6, 7, 9]


def test_everything_is_sent_again_after_the_broker_was_away(line: Line) -> None:
    fill(line.folder, 3)
    settings = line.config()
    settings["batch"]["resend"] = 3600
    persistence = Service("persistence", line.folder, settings)
    with running(persistence):
        before = {line.next_batch()[1] for _ in range(3)}
        line.broker.stop()
        line.broker.start()
        after = {line.next_batch()[1] for _ in range(3)}
        assert after == before


def test_live_batches_overtake_a_backlog_that_keeps_to_its_rate(line: Line) -> None:
    buffer = fill(line.folder, 200)
    settings = line.config(delivery={"backlog_rate": 1, "backlog_burst": 20, "backlog_start": 0})
    with running(Service("persistence", line.folder, settings)):
        backlog = [line.next_batch()[0].sequence for _ in range(20)]
        assert backlog == list(range(1, 21))
        buffer.append([Record(Layout(("m/p",), ("W",)), 10_000_000, [1.0])])
        wait_for(lambda: line.next_batch()[0].sequence == 201, "the live batch comes")
        assert buffer.state().batches == 201, "the backlog is still there"


def test_a_hub_that_was_silent_gets_everything_once_it_is_back(line: Line) -> None:
    fill(line.folder, 30)
    with running(Service("persistence", line.folder, line.config())):
        wait_for(lambda: line.next_batch()[0].sequence == 18, "as much as the broker takes at once")
        line.hub.close()
        line.hub = FakeHub(line.broker, line.authority, SITE)
        buffer = Buffer(line.folder / "buffer.db")
        got: set[int] = set()
        while len(got) < 30:
            envelope = line.next_batch()[0]
            got.add(envelope.sequence)
            line.acknowledge(envelope.stream, 0, [[envelope.sequence, envelope.sequence]])
        wait_for(lambda: buffer.state().batches == 0, "all are freed")


def test_a_buffer_that_was_put_aside_is_followed_by_a_new_stream(line: Line) -> None:
    fill(line.folder, 1)
    service = Service("persistence", line.folder, line.config())
    with running(service):
        first = json.loads(line.hub.statuses.get(timeout=30))
        envelope = line.next_batch()[0]
        line.acknowledge(envelope.stream, 1)
        for suffix in ("-shm", "-wal", ""):
            path = line.folder / f"buffer.db{suffix}"
            path.rename(line.folder / f"aside.db{suffix}")
        fill(line.folder, 1, start=9_000_000).close()
        second = json.loads(line.hub.statuses.get(timeout=30))
        assert second["stream"] != first["stream"]
        assert second["key"] == first["key"]
        envelope = line.next_batch()[0]
        assert envelope.stream.hex() == second["stream"]
        assert envelope.sequence == 1
        line.acknowledge(envelope.stream, 1)
        buffer = Buffer(line.folder / "buffer.db")
        wait_for(lambda: buffer.state().batches == 0, "the new stream is acknowledged")
        assert "it was put aside by the polling service; going on with a new one" in service.journal


def test_a_telemetry_log_that_cannot_be_written_is_told_once_and_stops_nothing(line: Line) -> None:
    fill(line.folder, 4)
    settings = line.config(telemetry_log=str(line.folder / "missing" / "telemetry.log"))
    service = Service("persistence", line.folder, settings)
    with running(service):
        for _ in range(4):
            envelope = line.next_batch()[0]
            # The second one frees nothing, writes nothing, and does not make the log well.
            line.acknowledge(envelope.stream, envelope.sequence)
            line.acknowledge(envelope.stream, envelope.sequence)
        buffer = Buffer(line.folder / "buffer.db")
        wait_for(lambda: buffer.state().batches == 0, "all are freed")
        assert service.journal.count("telemetry log") == 1
        (line.folder / "missing").mkdir()
        buffer.append([Record(Layout(("m/p",), ("W",)), 10_000_000, [1.0])])
        envelope = line.next_batch()[0]
        line.acknowledge(envelope.stream, envelope.sequence)
        wait_for(lambda: "telemetry log: well again" in service.journal, "it is written again")


def test_the_telemetry_log_can_be_rotated_and_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.log"
    log = TelemetryLog(path)
    log.write([telemetry_line(1000, "ab", 1, 2, 500, None)])
    path.rename(tmp_path / "telemetry.log.1")
    log.write([telemetry_line(2000, "ab", 2, 2, None, 1500)])
    assert path.read_text() == (
        "1970-01-01T00:00:02.000Z stream=ab sequence=2 readings=2 sent=-"
        " puback=1970-01-01T00:00:01.500Z committed=1970-01-01T00:00:02.000Z\n"
    )
    with pytest.raises(OSError, match="No space left"):
        TelemetryLog(Path("/dev/full")).write(["x"])


def test_the_status_carries_the_key_until_the_hub_has_shown_that_it_knows_it(tmp_path: Path) -> None:
    Authority(tmp_path).issue(SITE)
    service = Persistence(config_file.parse(document(tmp_path)))
    said: list[tuple[dict[str, Any], bool]] = []

    class Ear:
        def publish(self, _topic: str, payload: bytes, *, retain: bool = False) -> int:
            said.append((json.loads(payload), retain))
            return 1

    service._link = Ear()  # type: ignore[assignment]  # a stand-in with what is used of it
    service._publish_status()
    service._proven = True
    service._publish_status()
    service._proven = False
    service._publish_status()
    assert [("key" in status, retain) for status, retain in said] == [
        (True, True),
        (False, False),
        (True, True),
    ]
    assert said[0][0]["key"] == said[2][0]["key"]


def test_the_backlogs_of_many_sites_do_not_start_in_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Authority(tmp_path).issue(SITE)
    service = Persistence(config_file.parse(document(tmp_path, delivery={"backlog_start": 20})))
    starts: list[float] = []
    monkeypatch.setattr(service._delivery, "connected", lambda _newest, _now, start: starts.append(start))
    for _ in range(50):
        service._on_up()
    assert all(0 <= start <= 20 for start in starts)
    assert max(starts) - min(starts) > 10


def test_the_last_will_tells_of_a_killed_service(line: Line) -> None:
    persistence = Service("persistence", line.folder, line.config())
    with running(persistence):
        assert json.loads(line.hub.statuses.get(timeout=30))["state"] == "online"
        persistence.kill()
        assert json.loads(line.hub.statuses.get(timeout=30)) == {"state": "offline", "site": SITE}


def test_killed_persistence_goes_on_where_it_was(line: Line) -> None:
    fill(line.folder, 40)
    persistence = Service("persistence", line.folder, line.config())
    seen: dict[int, bytes] = {}
    with running(persistence):
        while len(seen) < 40:
            if len(seen) in (5, 12, 25):
                persistence.kill()
                persistence.start()
            envelope, data = line.next_batch()
            assert seen.setdefault(envelope.sequence, data) == data
            if envelope.sequence % 3 == 0:
                line.acknowledge(envelope.stream, 0, [[envelope.sequence, envelope.sequence]])
    times = [
        reading.time
        for data in seen.values()
        for reading in batch.decode_body(batch.parse(data).body).readings()
    ]
    assert sorted(times) == [1000 + 2000 * index for index in range(40)]


def test_a_hub_of_a_foreign_authority_gets_nothing(line: Line) -> None:
    fill(line.folder, 1)
    foreign = Authority(line.folder, "foreign-ca")
    persistence = Service("persistence", line.folder, line.config(hub={"ca": str(foreign.path)}))
    with running(persistence):
        wait_for(
            lambda: "the hub's certificate is not from our CA" in persistence.journal, "the fault is told"
        )
        assert line.hub.batches.empty()


def test_sealing_goes_on_while_the_hub_is_away_and_without_certificates(tmp_path: Path) -> None:
    buffer = fill(tmp_path, 5)
    settings = document(tmp_path, hub={"port": free_port()}, batch={"interval": 1})
    persistence = Service("persistence", tmp_path, settings)
    with running(persistence):
        wait_for(lambda: buffer.state().batches == 5, "all is sealed")
        wait_for(
            lambda: "the identity role has not run" in persistence.journal, "the missing certificate is told"
        )
    assert stat.S_IMODE((tmp_path / "signing.key").stat().st_mode) == 0o600


def test_a_killed_gateway_loses_nothing_committed_and_doubles_nothing(tmp_path: Path) -> None:
    with ModbusServer([input_device(1, 0, FLOATS)]) as server:
        settings = document(tmp_path, interval=0.1, batch={"interval": 1})
        settings["buses"][0]["port"] = server.port
        gateway = Service("gateway", tmp_path, settings)
        persistence = Service("persistence", tmp_path, settings)
        committed: set[tuple[str, int]] = set()
        with running(gateway, persistence):
            reader = None
            for kill in range(4):
                path = tmp_path / "buffer.db"
                wait_for(path.exists, "the buffer")
                reader = reader or Buffer(path)
                before = len(committed)
                while len(committed) < before + 100:
                    committed |= {(one.point, one.time) for _, one in reader.export()}
                    time.sleep(0.05)
                (gateway if kill % 2 else persistence).kill()
                (gateway if kill % 2 else persistence).start()
        final = [(one.point, one.time) for _, one in Buffer(tmp_path / "buffer.db").export()]
    assert len(final) == len(set(final))
    assert committed <= set(final)
    by_point: dict[str, list[int]] = {}
    for point, when in final:
        by_point.setdefault(point, []).append(when)
    assert all(times == sorted(set(times)) for times in map(sorted, by_point.values()))


def test_a_second_gateway_is_refused(tmp_path: Path) -> None:
    settings = document(tmp_path)
    first, second = Service("gateway", tmp_path, settings), Service("gateway", tmp_path, settings)
    with running(first):
        wait_for((tmp_path / "control.sock").exists, "the first one listens")
        command = [sys.executable, "-m", "energy_collector", "gateway", "--config", str(second._path)]
        other = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert other.returncode == 1
    assert "a bus has one master" in other.stderr
    assert len(other.stderr.splitlines()) == 1


def test_a_gateway_takes_over_the_socket_of_a_killed_one(tmp_path: Path) -> None:
    gateway = Service("gateway", tmp_path, document(tmp_path))
    path = tmp_path / "control.sock"
    with running(gateway):
        wait_for(path.exists, "the socket")
        gateway.kill()
        gateway.start()
        wait_for(lambda: _answers(path), "the new gateway answers")


def _answers(path: Path) -> bool:
    try:
        return bool(control.ask(path, {"op": "status"})["ok"])
    except control.NotRunningError:
        return False


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(30)
        for what in ("gateway", "persistence"):
            service = Service(what, tmp_path, document(tmp_path))
            service.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="600000")
            heard = []
            while len(heard) < 3:
                heard.append(ear.recv(100))
            assert service.kill(signal.SIGTERM) == 0
            heard.append(ear.recv(100))
            assert heard[0] == b"READY=1"
            assert heard[1:3] == [b"WATCHDOG=1"] * 2
            while heard[-1] != b"STOPPING=1":
                heard.append(ear.recv(100))


def test_probe_and_run_once_without_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ModbusServer([input_device(1, 0, FLOATS)]) as server:
        settings = document(tmp_path)
        settings["buses"][0]["port"] = server.port
        settings["buses"].append(
            {"name": "roof", "type": "modbus-tcp", "host": "127.0.0.1", "port": free_port()}
        )
        settings["meters"].append({"name": "solar", "bus": "roof", "unit": 1, "profile": "sunspec-inverter"})
        service = Service("gateway", tmp_path, settings)
        path = str(service._path)
        assert main(["probe", "--config", path]) == 1
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("ok      main: bus hall, unit 1")
        assert out[1].startswith("FAILED  solar: bus roof, unit 1, sunspec-inverter: CONNECTION_REFUSED")
        assert main(["read", "main", "--config", path]) == 0
        assert "main/voltage_l1" in capsys.readouterr().out
        assert main(["run", "--once", "--config", path]) == 1
        found = capsys.readouterr()
        assert len(found.out.splitlines()) == 22
        assert found.err.startswith("energy-collector: solar: CONNECTION_REFUSED")
        assert main(["buffer", "status", "--config", path]) == 1
        assert "there is no buffer yet" in capsys.readouterr().err
        fill(tmp_path, 2)
        assert main(["buffer", "export", "--config", path]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert main(["counters", "--config", path]) == 1
        assert "no gateway listens" in capsys.readouterr().err


def test_an_unusable_signing_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = Service("persistence", tmp_path, document(tmp_path))
    key = tmp_path / "signing.key"
    rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, mode, message in (
        (b"rubbish", 0o600, "is no PEM private key"),
        (rsa_key, 0o600, "is no Ed25519 key"),
        (rsa_key, 0o644, "others may read this private key; chmod 600 it"),
    ):
        key.write_bytes(content)
        key.chmod(mode)
        before = os.umask(0o077)
        try:
            assert main(["persistence", "--config", str(service._path)]) == 1
        finally:
            os.umask(before)
        assert message in capsys.readouterr().err


def test_the_configuration_of_the_tests_is_complete(tmp_path: Path) -> None:
    assert config_file.parse(document(tmp_path)).site == SITE

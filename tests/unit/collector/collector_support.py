# SPDX-License-Identifier: Apache-2.0
"""Real parts for the collector's tests: certificates, a broker, Modbus servers, the services as processes."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime as dt
import ipaddress
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from energy_collector.config import Config
from energy_collector.config_file import parse
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.ports import free_port

PATIENCE = 30.0


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until `condition` gives something true, and return it; fail the test when it never does."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {patience:g} s: {what}")


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        self.folder = folder
        # What the certificates are good for beside the name localhost.
        self.addresses: list[str] = []
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.name, self.key.public_key(), is_authority=True)
        self.path = folder / f"{name}.crt"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject: x509.Name, public: Any, *, is_authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            names: list[x509.GeneralName] = [x509.DNSName("localhost")]
            names += [x509.IPAddress(ipaddress.ip_address(one)) for one in self.addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name: str, *, use_rsa: bool = False) -> tuple[Path, Path]:
        """A certificate and its key, as files."""
        key = rsa.generate_private_key(65537, 2048) if use_rsa else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), is_authority=False)
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        paths[1].chmod(0o600)
        return paths


class Broker:
    """mosquitto with TLS 1.3, mutual TLS and an access list by common name."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        certificate, key = authority.issue("broker")
        access = folder / "access"
        access.write_text(
            "user ingest\ntopic readwrite energy/v1/#\n"
            "pattern write energy/v1/%u/batch\npattern write energy/v1/%u/status\n"
            "pattern read energy/v1/%u/ack\npattern read energy/v1/%u/witness\n"
        )
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\ncafile {authority.path}\n"
            f"certfile {certificate}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n"
            f"acl_file {access}\nallow_anonymous false\n"
            # Started by root it would give its rights up, and could not read the key.
            "user root\n"
        )

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def listens() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return True
            return False

        wait_for(listens, "the broker listens")

    def stop(self) -> None:
        """Stop; it can be started again."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


class FakeHub:
    """The hub's side of the broker. Acknowledges nothing by itself."""

    def __init__(self, broker: Broker, authority: Authority, site: str) -> None:
        certificate, key = authority.issue("ingest")
        self.batches: queue.Queue[bytes] = queue.Queue()
        self.statuses: queue.Queue[bytes] = queue.Queue()
        self._site = site
        context = ssl.create_default_context(cafile=str(authority.path))
        context.load_cert_chain(str(certificate), str(key))
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="ingest", protocol=mqtt.MQTTv5)
        self._client.tls_set_context(context)
        self._client.on_connect = lambda client, *_: client.subscribe(f"energy/v1/{site}/#", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._take
        self._client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]  # seconds, whole or not
        self._client.connect("localhost", broker.port)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE)

    def _take(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        topic = message.topic.rsplit("/", 1)[1]
        if topic == "batch":
            self.batches.put(bytes(message.payload))
        elif topic == "status":
            self.statuses.put(bytes(message.payload))

    def acknowledge(self, payload: str) -> None:
        """Send an acknowledgement."""
        self._client.publish(f"energy/v1/{self._site}/ack", payload, qos=1).wait_for_publish(PATIENCE)

    def witness(self, payload: bytes) -> None:
        """Publish what was signed, retained."""
        topic = f"energy/v1/{self._site}/witness"
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(PATIENCE)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()


class ModbusServer:
    """pymodbus's server in a thread of its own; `devices` are its units."""

    def __init__(self, devices: list[SimDevice]) -> None:
        self.port = free_port()
        self._devices = devices
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._server = ModbusTcpServer(self._devices, address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)
        self._listening.set()
        await self._server.serving

    def __enter__(self) -> ModbusServer:
        self._thread.start()
        assert self._listening.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(PATIENCE)  # type: ignore[no-untyped-call]  # pymodbus has no types here
        self._thread.join(PATIENCE)


def input_device(unit: int, first: int, registers: list[int]) -> SimDevice:
    """A unit with input registers only."""
    unused = [SimData(0, values=0, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=False, datatype=DataType.BITS)]
    block = [SimData(first, values=registers, datatype=DataType.REGISTERS)]
    return SimDevice(unit, simdata=(bits, bits, unused, block))


def holding_device(unit: int, first: int, registers: list[int]) -> SimDevice:
    """A unit with holding registers only."""
    unused = [SimData(0, values=0, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=False, datatype=DataType.BITS)]
    block = [SimData(first, values=registers, datatype=DataType.REGISTERS)]
    return SimDevice(unit, simdata=(bits, bits, block, unused))


BASIC: dict[str, Any] = {
    "site": "plant-a",
    "interval": 1,
    "buses": [{"name": "hall", "type": "modbus-tcp", "host": "127.0.0.1", "port": 1}],
    "meters": [{"name": "main", "bus": "hall", "unit": 1, "profile": "eastron-sdm630", "role": "main"}],
    "hub": {"host": "localhost", "port": 1},
}


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A whole configuration whose files all lie in `folder`."""
    found = copy.deepcopy(BASIC)
    found["hub"] |= {
        "ca": str(folder / "test-ca.crt"),
        "certificate": str(folder / "plant-a.crt"),
        "key": str(folder / "plant-a.key"),
    }
    found["signing_key"] = str(folder / "signing.key")
    found["buffer"] = {"path": str(folder / "buffer.db")}
    found["telemetry_log"] = str(folder / "telemetry.log")
    found["control_socket"] = str(folder / "control.sock")
    for key, value in changes.items():
        if isinstance(value, dict):
            found.setdefault(key, {}).update(value)
        else:
            found[key] = value
    return found


class Service:
    """One of the services as a process of its own."""

    def __init__(self, what: str, folder: Path, config: dict[str, Any]) -> None:
        self.what = what
        self._path = folder / f"{what}.yaml"
        self._path.write_text(yaml.safe_dump(config))
        self._log_path = folder / f"{what}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Start it; its journal goes to a file."""
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "energy_collector", self.what, "--config", str(self._path)],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, and wait for the end."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self.wait()

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        assert self._process is not None
        code = self._process.wait(PATIENCE)
        self._process = None
        return code

    @property
    def journal(self) -> str:
        """What it has written so far."""
        return self._log_path.read_text()


@contextlib.contextmanager
def running(*services: Service) -> Iterator[None]:
    """Run services for the length of a test."""
    try:
        for service in services:
            service.start()
        yield
    finally:
        for service in services:
            service.kill()


def config_of(folder: Path, **meter: Any) -> Config:
    """A configuration of one meter, `main`, with these keys changed or added."""
    changed = document(folder)
    changed["meters"][0].update(meter)
    return parse(changed)

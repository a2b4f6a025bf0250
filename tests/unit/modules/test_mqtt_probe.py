# SPDX-License-Identifier: Apache-2.0
"""mqtt_probe against a real mosquitto and OpenSSL's own server, each cause made to happen."""

from __future__ import annotations

import json
import os
import queue
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from ansible_collections.wattfleet.energy.plugins.modules import mqtt_probe as module
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.ports import free_port
from tests.unit.hub.authority import Authority, Identity, issue

from .conftest import FakeCollector
from .test_through_ansible import Run, run  # noqa: F401  the fixture

DAY = timedelta(days=1)
ACCESS = "pattern readwrite test/%u/#\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@dataclass
class Files:
    """Certificates and keys of one test."""

    folder: Path
    authority: Authority

    def write(self, name: str, identity: Identity) -> None:
        (self.folder / f"{name}.crt").write_text(self.authority.chain(identity))
        (self.folder / f"{name}.key").write_text(identity.key_pem())

    @property
    def authorities(self) -> str:
        return self.authority.root.pem() + self.authority.intermediate.pem()

    def revoke(self, identity: Identity) -> None:
        now = datetime.now(UTC)
        issuer = self.authority.intermediate
        entry = x509.RevokedCertificateBuilder().serial_number(identity.certificate.serial_number)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(now - DAY)
            .next_update(now + DAY)
            .add_revoked_certificate(entry.revocation_date(now - DAY).build())
            .sign(issuer.key, hashes.SHA256())
        )
        root = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.authority.root.certificate.subject)
            .last_update(now - DAY)
            .next_update(now + DAY)
            .sign(self.authority.root.key, hashes.SHA256())
        )
        pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (made, root))
        (self.folder / "list.crl").write_bytes(pem)


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    made = Files(tmp_path, authority)
    (tmp_path / "ca.crt").write_text(made.authorities)
    made.write("server", authority.client("localhost", server=True))
    made.write("client", authority.client("plant-a"))
    return made


@contextmanager
def serving(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 10
        while True:
            assert process.poll() is None, f"{command[0]} did not start"
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < end, f"{command[0]} does not listen"
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


Broker = Callable[..., int]


@pytest.fixture
def broker(files: Files) -> Iterator[Broker]:
    """Starts a mosquitto with further lines of configuration; its port."""
    with ExitStack() as stack:

        def start(*lines: str, tls: bool = True) -> int:
            port = free_port()
            folder = files.folder
            settings = [
                f"listener {port} 127.0.0.1",
                *(
                    (
                        f"cafile {folder}/ca.crt",
                        f"certfile {folder}/server.crt",
                        f"keyfile {folder}/server.key",
                        "tls_version tlsv1.3",
                        "require_certificate true",
                        "use_identity_as_username true",
                    )
                    if tls
                    else ()
                ),
                *(("allow_anonymous true",) if "allow_anonymous false" not in lines else ()),
                *lines,
                "user root",
            ]
            (folder / "mosquitto.conf").write_text("\n".join(settings) + "\n")
            command = ["/usr/sbin/mosquitto", "-c", str(folder / "mosquitto.conf")]
            stack.enter_context(serving(command, port))
            return port

        yield start


@pytest.fixture
def openssl(files: Files) -> Iterator[Callable[..., int]]:
    """Starts OpenSSL's test server with further arguments; its port."""
    with ExitStack() as stack:

        def start(*arguments: str) -> int:
            port = free_port()
            folder = files.folder
            command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet"]
            command += ["-cert", f"{folder}/server.crt", "-cert_chain", f"{folder}/server.crt"]
            stack.enter_context(serving([*command, "-key", f"{folder}/server.key", *arguments], port))
            return port

        yield start


def probe(files: Files, port: int, client: str | None = "client", **changes: Any) -> dict[str, Any]:
    """The result of the module's own function, without Ansible around it."""
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "server_name": "localhost",
        "ca": "",
        "ca_content": files.authorities,
        "client_certificate": client and str(files.folder / f"{client}.crt"),
        "client_key": client and str(files.folder / f"{client}.key"),
        "client_id": "",
        "publish": [],
        "subscribe": [],
        "timeout": 5.0,
        "connect": False,
        **changes,
    }
    return module.look(options, options["connect"])


def failure(result: dict[str, Any], cause: str) -> str:
    assert not result["ok"]
    assert result["failure"]["cause"] == cause, result["failure"]
    message: str = result["failure"]["message"]
    assert "\n" not in message
    return message


def stranger() -> Authority:
    """Somebody else's authority."""
    made = Authority()
    made.root = issue("Other root", None, ca=True)
    made.intermediate = issue("Other issuing", made.root, ca=True)
    return made


def test_a_good_broker_is_told_with_version_cipher_certificate_and_latency(
    files: Files, broker: Broker
) -> None:
    result = probe(files, broker())
    assert result["ok"], result
    assert result["version"] == "TLSv1.3"
    assert result["cipher"].startswith("TLS_")
    assert result["client_certificate"] == "accepted"
    assert result["certificate"]["common_name"] == "localhost"
    assert result["certificate"]["names"] == ["DNS:localhost", "IP:127.0.0.1"]
    assert 29 < result["certificate"]["days_left"] <= 30
    # Two stretches of time, one after the other: neither has to be the longer one.
    assert 0 <= result["latency"]["connect"] < 5
    assert 0 < result["latency"]["handshake"] < 5
    assert result["failure"] is None


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [(-2 * DAY, -DAY, "was valid until"), (DAY, 2 * DAY, "is not valid before")],
    ids=["expired", "not yet valid"],
)
def test_time_tells_the_dates_and_the_clock(
    files: Files, broker: Broker, start: timedelta, end: timedelta, words: str
) -> None:
    server = files.authority.client("localhost", server=True, start=start, end=end)
    files.write("server", server)
    message = failure(probe(files, broker()), "time")
    assert f"CN=localhost {words} " in message
    date = server.certificate.not_valid_after_utc if end < DAY else server.certificate.not_valid_before_utc
    assert date.strftime("%Y-%m-%d %H:%M:%S UTC") in message
    assert f"this host's clock says {datetime.now(UTC):%Y-%m-%d %H:}" in message


def test_an_expired_root_is_a_matter_of_time_too(files: Files, broker: Broker) -> None:
    old = Authority()
    expired = x509.CertificateBuilder().subject_name(old.root.certificate.subject)
    made = (
        expired.issuer_name(old.root.certificate.subject)
        .public_key(old.root.key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.now(UTC) - 3 * DAY)
        .not_valid_after(datetime.now(UTC) - DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(old.root.key, hashes.SHA256())
    )
    server = old.client("localhost", server=True)
    (files.folder / "server.crt").write_text(old.chain(server))
    (files.folder / "server.key").write_text(server.key_pem())
    port = broker()
    result = probe(files, port, ca_content=made.public_bytes(serialization.Encoding.PEM).decode())
    assert "CN=Test root was valid until" in failure(result, "time")


def test_chain_names_the_issuer(files: Files, broker: Broker) -> None:
    port = broker()
    message = failure(probe(files, port, ca_content=stranger().root.pem()), "chain")
    assert "CN=localhost, issued by CN=Test issuing, is not trusted: its issuer is not among" in message
    # An authority that was lost and made anew has the old one's name.
    anew = Authority()
    bundle = anew.root.pem() + anew.intermediate.pem()
    message = failure(probe(files, port, ca_content=bundle), "chain")
    assert "it was made anew" in message


def test_a_certificate_that_signed_itself(files: Files, openssl: Callable[..., int]) -> None:
    # Made by OpenSSL itself: with its own key identifier it is a leaf and a root in one.
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=localhost"
    command += f" -keyout {files.folder}/server.key -out {files.folder}/server.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    assert "signed itself" in failure(probe(files, openssl("-tls1_3"), None), "chain")


def test_a_clients_certificate_is_no_servers(files: Files, broker: Broker) -> None:
    files.write("server", files.authority.client("localhost"))
    assert "not meant for a server" in failure(probe(files, broker()), "chain")


def test_name_tells_both(files: Files, broker: Broker) -> None:
    message = failure(probe(files, broker(), server_name="hub.energy.internal"), "name")
    assert "is for DNS:localhost, IP:127.0.0.1, and not for hub.energy.internal" in message


def test_version_tells_what_the_server_speaks(files: Files, openssl: Callable[..., int]) -> None:
    message = failure(probe(files, openssl("-tls1_2"), None), "version")
    assert "no TLS 1.3 in common: the server speaks TLSv1.2 at most" in message


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (None, "asks for a client certificate, and none was shown"),
        ("foreign", "does not know its issuer"),
        ("expired", "by the server's clock it has expired"),
        ("revoked", "it was revoked"),
    ],
)
def test_a_refused_client_certificate_is_not_taken_for_a_good_handshake(
    files: Files, broker: Broker, client: str | None, words: str
) -> None:
    foreign = stranger()
    identity = foreign.client("plant-a")
    (files.folder / "foreign.crt").write_text(foreign.chain(identity))
    (files.folder / "foreign.key").write_text(identity.key_pem())
    files.write("expired", files.authority.client("plant-a", start=-2 * DAY, end=-DAY))
    revoked = files.authority.client("plant-a")
    files.write("revoked", revoked)
    files.revoke(revoked)
    port = broker(*([f"crlfile {files.folder}/list.crl"] if client == "revoked" else []))
    result = probe(files, port, client, connect=client is None)
    message = failure(result, "client_certificate")
    # The end of the connection may overtake the alert; then the certificate is still named as the cause.
    assert words in message or "right after the handshake" in message
    assert result["client_certificate"] == ("refused" if client else "none")
    assert result["version"] == "TLSv1.3"


def test_own_files_are_told_as_such(files: Files) -> None:
    (files.folder / "client.key").write_text("no key")
    failure(probe(files, 1), "files")
    failure(probe(files, 1, "missing"), "files")
    failure(probe(files, 1, ca_content="nothing"), "files")
    failure(probe(files, 1, ca_content=None, ca=str(files.folder / "none")), "files")
    files.write("client", files.authority.client("plant-a"))
    files.write("other", files.authority.client("plant-a"))
    result = probe(files, 1, client_key=str(files.folder / "other.key"))
    assert "KEY_VALUES_MISMATCH" in failure(result, "files")


def test_an_encrypted_key_asks_nobody(files: Files) -> None:
    identity = files.authority.client("plant-a")
    encryption = serialization.BestAvailableEncryption(b"secret")
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    files.write("client", identity)
    (files.folder / "client.key").write_bytes(identity.key.private_bytes(*formats, encryption))
    failure(probe(files, 1), "files")


def test_who_is_not_there(files: Files) -> None:
    assert "nothing listens" in failure(probe(files, free_port()), "refused")
    assert "is not found" in failure(probe(files, 1, host="no-such-host.invalid"), "unresolved")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "no TLS handshake within" in failure(probe(files, port, timeout=0.2), "timeout")


# Rules that make each cause happen, in a network of its own that has loopback only.
RULES = """
table inet filter {
    chain output {
        type filter hook output priority 0;
        tcp dport 1001 reject with icmpx admin-prohibited
        tcp dport 1002 reject with icmpx host-unreachable
        tcp dport 1003 reject with tcp reset
        tcp dport 1004 drop
    }
}
"""
PORTS = """
import json, sys
from ansible_collections.wattfleet.energy.plugins.module_utils import _tls_probe
def cause(host, port):
    try:
        _tls_probe._connect(_tls_probe.Target(host, port, "x", "", timeout=4))
    except _tls_probe.ProbeError as error:
        return error.cause, error.message
print(json.dumps([cause(*one) for one in json.loads(sys.argv[1])]))
"""


def test_the_way_there_tells_a_firewall_from_a_route_that_is_missing() -> None:
    asked = [
        ("127.0.0.1", 1001), ("::1", 1001), ("127.0.0.1", 1002), ("127.0.0.1", 1003), ("127.0.0.1", 1004),
        ("127.0.0.1", 1005), ("192.0.2.1", 1005), ("192.0.2.2", 1005), ("192.0.2.3", 1005),
    ]  # fmt: skip
    inside = (
        f"ip link set lo up && nft '{RULES}' && ip route add prohibit 192.0.2.2 && ip route add unreachable 192.0.2.3"
        ' && exec "$0" -c "$1" "$2"'
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", inside, sys.executable, PORTS, json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("a network namespace takes the rights of root")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [cause for cause, _ in told] == [
        "filtered", "filtered", "no_route", "refused", "timeout", "refused", "no_route", "filtered", "no_route",
    ]  # fmt: skip
    assert told[0][1] == "127.0.0.1:1001: a firewall forbids it, and 127.0.0.1 says so: check the rules there"
    assert "and ::1 says so" in told[1][1]
    assert "nobody has this address" in told[2][1]
    assert "no route there" in told[6][1]


def test_what_does_not_speak_tls(files: Files, broker: Broker) -> None:
    assert "does this port speak TLS?" in failure(probe(files, broker(tls=False)), "closed")


def test_a_session_and_what_it_may_do(files: Files, broker: Broker) -> None:
    (files.folder / "access").write_text(ACCESS)
    port = broker(f"acl_file {files.folder}/access", "use_username_as_clientid true")
    own, foreign = "test/plant-a/x", "test/plant-b/x"
    result = probe(files, port, connect=True, publish=[own, foreign], subscribe=[own, "test/plant-a/y"])
    assert result["ok"], result
    assert result["mqtt"]["reason_code"] == 0
    assert [(one["topic"], one["allowed"]) for one in result["mqtt"]["publish"]] == [
        (own, True),
        (foreign, False),
    ]
    assert result["mqtt"]["publish"][1]["reason"] == "not authorized"
    assert [one["delivered"] for one in result["mqtt"]["subscribe"]] == [True, None]


def test_a_broker_that_chooses_the_client_id_tells_it(files: Files, broker: Broker) -> None:
    result = probe(files, broker(), connect=True)
    assert result["mqtt"]["client_id"]
    assert probe(files, broker(), connect=True, client_id="mine")["mqtt"]["client_id"] == "mine"


def test_a_refused_session_is_told_with_its_reason_code(files: Files, broker: Broker) -> None:
    (files.folder / "passwords").write_text("")
    port = broker(
        "allow_anonymous false", f"password_file {files.folder}/passwords", "use_identity_as_username false"
    )
    result = probe(files, port, connect=True)
    assert "not authorized" in failure(result, "mqtt")
    assert result["mqtt"]["reason_code"] == 0x87
    assert result["client_certificate"] == "accepted"


@contextmanager
def session(files: Files, port: int) -> Iterator[queue.Queue[int]]:
    """The running collector's session, and in a queue the reason for its end."""
    lost: queue.Queue[int] = queue.Queue()
    connected: queue.Queue[int] = queue.Queue()
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, "plant-a", protocol=mqtt.MQTTv5, reconnect_on_failure=False
    )
    context = ssl.create_default_context(cafile=str(files.folder / "ca.crt"))
    context.load_cert_chain(files.folder / "client.crt", files.folder / "client.key")
    client.tls_set_context(context)
    client.on_connect = lambda _c, _u, _f, reason, _p: connected.put(reason.value)
    client.on_disconnect = lambda _c, _u, _f, reason, _p: lost.put(reason.value)
    client.connect("localhost", port)
    client.loop_start()
    try:
        assert connected.get(timeout=10) == 0
        yield lost
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("client_id", ["", "plant-a", "another"])
def test_the_session_of_the_running_collector_is_left_alone(
    run: Run,  # noqa: F811  the fixture
    files: Files,
    broker: Broker,
    make_collector: Callable[..., FakeCollector],
    client_id: str,
) -> None:
    port = broker("use_username_as_clientid true")
    collector = make_collector({"status": {"ok": True, "site": "plant-a"}})
    options = {
        "host": "127.0.0.1",
        "port": port,
        "server_name": "localhost",
        "ca": str(files.folder / "ca.crt"),
        "client_certificate": str(files.folder / "client.crt"),
        "client_key": str(files.folder / "client.key"),
        "connect": True,
        "client_id": client_id,
    }
    with session(files, port) as lost:
        result = run("mqtt_probe", **options, socket=collector.path)
        assert result["ok"], result
        assert result["collector"] is True
        assert result["mqtt"] is None
        assert "TLS handshake only" in result["note"]
        assert lost.empty()
        # The same without the rule: one name is one session, and the collector would lose it.
        result = run("mqtt_probe", **options, socket=str(files.folder / "none"))
        assert result["mqtt"]["reason_code"] == 0
        assert lost.get(timeout=10) >= 0x80


def test_a_session_of_another_name_is_begun_beside_the_collector(files: Files) -> None:
    files.write("client", files.authority.client("probe"))
    assert module.why_no_session("plant-a", "probe", str(files.folder / "client.crt")) == ""
    assert module.why_no_session(None, "", None) == ""
    # A collector that does not tell its site may be anybody's.
    assert module.why_no_session("", "probe", str(files.folder / "client.crt"))


def test_check_mode_publishes_nothing(run: Run, files: Files, broker: Broker) -> None:  # noqa: F811  the fixture
    options = {
        "host": "127.0.0.1",
        "port": broker(),
        "server_name": "localhost",
        "ca_content": files.authorities,
        "client_certificate": str(files.folder / "client.crt"),
        "client_key": str(files.folder / "client.key"),
        "connect": True,
        "publish": ["test/x"],
        "socket": str(files.folder / "none"),
    }
    result = run("mqtt_probe", check=True, **options)
    assert result["ok"], result
    assert result["mqtt"]["publish"] == []
    assert result["note"].startswith("check mode")
    assert run("mqtt_probe", **options)["mqtt"]["publish"][0]["allowed"]


def test_options_that_make_no_sense(run: Run) -> None:  # noqa: F811  the fixture
    assert "port 0 is outside" in run("mqtt_probe", host="a", port=0)["msg"]
    assert "set connect to true" in run("mqtt_probe", host="a", publish=["x"])["msg"]

# SPDX-License-Identifier: Apache-2.0
"""Time stamps of a real authority: `openssl ts -reply` behind HTTP on the loopback."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli
from energy_hub.audit.context import Scope
from energy_hub.audit.verify import verify
from energy_hub.commands import tools
from energy_hub.evidence import stamps, step
from energy_hub.evidence.keys import raw
from energy_hub.evidence.stamps import Authority, StampError
from energy_hub.store import Store

from .conftest import Database
from .test_checkpoint import fill

CONFIG = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
signer_cert = {folder}/tsa.crt
signer_key = {folder}/tsa.key
certs = {folder}/root.crt
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
accuracy = secs:1
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
[stamping]
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
"""


class Stamper:
    """A time stamp authority; `answer` may be exchanged for something worse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "config").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01\n")
        common = ("-config", str(folder / "config"), "-days", "30", "-nodes", "-newkey", "ec")
        curve = ("-pkeyopt", "ec_paramgen_curve:P-256")
        request = "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=Stamps"
        (folder / "config").write_text(request + CONFIG.format(folder=folder))
        self.openssl(
            "req", "-x509", *common, *curve, "-extensions", "root", "-keyout", "root.key", "-out", "root.crt"
        )
        self.openssl("req", *common[:2], *common[4:], *curve, "-keyout", "tsa.key", "-out", "tsa.csr")
        self.openssl(
            *("x509", "-req", "-in", "tsa.csr", "-CA", "root.crt", "-CAkey", "root.key", "-CAcreateserial"),
            *("-days", "30", "-extfile", "config", "-extensions", "stamping", "-out", "tsa.crt"),
        )
        self.answer: Callable[[bytes], bytes] = self.reply
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/timestamp-query"
                query = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked += 1
                body = outer.answer(query)
                self.send_response(200)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.authority = Authority(f"http://127.0.0.1:{self.server.server_port}/", folder / "root.crt")
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def openssl(self, *arguments: str) -> bytes:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def reply(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        return self.openssl(
            "ts",
            "-reply",
            "-config",
            "config",
            "-section",
            "one",
            "-queryfile",
            "query",
            "-chain",
            "root.crt",
        )

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def stamper(tmp_path: Path) -> Iterator[Stamper]:
    one = Stamper(tmp_path / "tsa")
    yield one
    one.stop()


DIGEST = bytes(range(32))


def test_stamp_is_good_for_its_digest_alone(stamper: Stamper) -> None:
    response = stamps.request(DIGEST, stamper.authority)
    moment = stamps.check(DIGEST, response, stamper.authority.ca)
    assert abs(moment - datetime.now(UTC)) < timedelta(minutes=1)
    with pytest.raises(StampError, match="message imprint mismatch"):
        stamps.check(bytes(32), response, stamper.authority.ca)


def test_stamp_of_another_authority_is_refused(stamper: Stamper, tmp_path: Path) -> None:
    response = stamps.request(DIGEST, stamper.authority)
    other = Stamper(tmp_path / "other")
    other.stop()
    with pytest.raises(StampError, match="certificate verify error, "):
        stamps.check(DIGEST, response, other.authority.ca)


def test_stamp_that_answers_another_question_is_refused(stamper: Stamper) -> None:
    """Of the same digest, but of yesterday: the nonce tells."""
    kept: list[bytes] = []

    def again(query: bytes) -> bytes:
        kept.append(stamper.reply(query))
        return kept[0]

    stamper.answer = again
    stamps.request(DIGEST, stamper.authority)
    with pytest.raises(StampError, match="nonce mismatch"):
        stamps.request(DIGEST, stamper.authority)


def test_authority_that_answers_nonsense(stamper: Stamper) -> None:
    stamper.answer = lambda _: b"nonsense"
    with pytest.raises(StampError):
        stamps.request(DIGEST, stamper.authority)
    stamper.answer = lambda _: bytes(100_000)
    with pytest.raises(StampError, match="more than 65536 bytes"):
        stamps.request(DIGEST, stamper.authority)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "file:///etc/passwd", "no url"])
def test_authority_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(StampError, match=r"no answer|expected http"):
        stamps.request(DIGEST, Authority(url, tmp_path))


def test_checkpoints_are_stamped_now_and_then_and_audited(
    database: Database, stamper: Stamper, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "checkpoint.key"
    cli.main(["checkpoint-key", "--key", str(key)])
    store = Store(database.conninfo("energy_ingest"))
    fill(store, "plant-a", 2)
    store.close()
    command = ["checkpoint", "--database", database.conninfo("energy_ingest"), "--key", str(key)]
    command += ["--stamp-url", stamper.authority.url, "--stamp-ca", str(stamper.authority.ca)]
    assert cli.main(command) == tools.OK
    assert "checkpoint 1: stamped by http://127.0.0.1" in capsys.readouterr().out
    assert cli.main(command) == tools.OK
    assert stamper.asked == 1
    assert cli.main([*command, "--stamp-interval", "0"]) == tools.OK
    assert stamper.asked == 2
    stamper.answer = lambda _: b""
    assert cli.main([*command, "--stamp-interval", "0"]) == tools.FAILED
    assert database.one("SELECT count(*) FROM checkpoint") == 4
    assert database.rows("SELECT checkpoint FROM checkpoint_stamp ORDER BY 1") == [(1,), (3,)]

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(loaded, Ed25519PrivateKey)
    scope = Scope(keys=frozenset([raw(loaded.public_key())]), stamp_ca=stamper.authority.ca)
    with database.connect("energy_read") as connection:
        report = verify(connection, scope)
    assert [one for one in report.findings.values() if one.kind.startswith(("stamp", "checkpoint"))] == []
    assert report.checked["time stamps"] == 2

    # Signed anew with the hub's key, for a time long ago: the chain holds, the stamp does not.
    with database.connect() as owner:
        owner.execute("UPDATE checkpoint_stamp SET checkpoint = 2 WHERE checkpoint = 3")
    with database.connect("energy_read") as connection:
        report = verify(connection, scope)
        received = database.one("SELECT received FROM checkpoint_stamp WHERE checkpoint = 2")
        differing = [one for one in report.findings.values() if one.kind == "stamp-differs"]
        assert [(one.subject, one.first, one.last) for one in differing] == [
            ("stamp of checkpoint 2", received, received)
        ]
        assert "--stamp-ca" in verify(connection, Scope()).unchecked[2]


def test_checkpoint_that_was_made_for_a_later_time(database: Database, stamper: Stamper) -> None:
    store = Store(database.conninfo("energy_ingest"))
    fill(store, "plant-a", 2)
    store.close()
    hub, found = Ed25519PrivateKey.generate(), []
    for wrong in (timedelta(minutes=1), timedelta(hours=1)):
        with database.connect("energy_ingest") as connection:
            done = step.run(connection, hub, datetime.now(UTC) + wrong)
            assert done is not None
            stamps.stamp(connection, done.number, done.checkpoint.digest, stamper.authority)
        with database.connect("energy_read") as connection:
            report = verify(connection, Scope(stamp_ca=stamper.authority.ca))
        found.append(
            [one.subject for one in report.findings.values() if one.kind == "checkpoint-dated-falsely"]
        )
    # Clocks may differ a little.
    assert found == [[], ["stamp of checkpoint 2"]]


def test_url_and_certificates_belong_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checkpoint", "--stamp-url", "http://localhost/"]) == tools.FAILED
    assert "belong together" in capsys.readouterr().err

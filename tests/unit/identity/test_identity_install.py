# SPDX-License-Identifier: Apache-2.0
"""identity_install against a real TLS server: what is proven replaces the old, and nothing else does."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import identity_install as module

from tests.ports import free_port
from tests.unit.cuts import cut_at
from tests.unit.hub.authority import Authority, Identity, issue

from .conftest import Hub

MakeHub = Callable[[str], Hub]


class FailedError(Exception):
    """fail_json was called."""


class FakeModule:
    """What `run` needs of an AnsibleModule."""

    def __init__(self, check_mode: bool = False, **params: Any) -> None:
        self.params = {
            "name": "gateway",
            "usage": "client",
            "hub": None,
            "watch_user": None,
            "wait": 2,
            **params,
        }
        self.check_mode = check_mode
        self.warnings: list[str] = []
        self.failure: dict[str, Any] = {}

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def fail_json(self, **result: Any) -> None:
        self.failure = result
        raise FailedError(result["msg"])


class Host:
    """The folder of a gateway, and the module run in it."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.authorities = authority.root.pem() + authority.intermediate.pem()
        self.warnings: list[str] = []

    def put(self, identity: Identity) -> None:
        """The certificate that is in use before the test."""
        (self.folder / "gateway.crt").write_text(self.authority.chain(identity))
        (self.folder / "gateway.key").write_text(identity.key_pem())
        (self.folder / "ca.crt").write_text(self.authorities)

    def renewed(self, old: Identity, authority: Authority | None = None, **options: Any) -> str:
        """A new chain for the key of `old`."""
        authority = authority or self.authority
        return authority.chain(issue("plant-a", authority.intermediate, key=old.key, **options))

    def run(self, certificate: str, hub: Hub | None = None, port: int = 0, **options: Any) -> dict[str, Any]:
        where = {
            "host": "127.0.0.1",
            "port": hub.port if hub else port,
            "server_name": "localhost",
            "timeout": 5.0,
        }
        fake = FakeModule(
            **{
                "directory": str(self.folder),
                "certificate": certificate,
                "authorities": self.authorities,
                "hub": where if hub or port else None,
                **options,
            }
        )
        self.warnings = fake.warnings
        return module.run(fake)

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def in_use(self) -> str:
        """The certificate in place. It has to belong to the key in place, as whoever connects finds them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(self.folder / "gateway.crt", self.folder / "gateway.key")
        return self.text("gateway.crt")

    def again(self) -> Callable[[], None]:
        """Makes the folder what it is now, for the next cut."""
        kept = self.folder.with_name("kept")
        shutil.copytree(self.folder, kept)

        def make() -> None:
            shutil.rmtree(self.folder)
            shutil.copytree(kept, self.folder)

        return make


@pytest.fixture
def host(tmp_path: Path, authority: Authority) -> Host:
    folder = tmp_path / "energy"
    folder.mkdir()
    return Host(folder, authority)


@pytest.fixture
def old(host: Host) -> Identity:
    identity = host.authority.client("plant-a")
    host.put(identity)
    return identity


def test_the_second_run_changes_nothing(host: Host, old: Identity) -> None:
    result = host.run(host.text("gateway.crt"))
    assert (result["changed"], result["proof"], result["replaced"]) == (False, "none", [])
    assert host.names() == {"gateway.crt", "gateway.key", "ca.crt"}


def test_what_the_hub_takes_replaces_the_old(host: Host, old: Identity, make_hub: MakeHub) -> None:
    before, new = host.text("gateway.crt"), host.renewed(old)
    result = host.run(new, make_hub(host.authorities))
    assert (result["changed"], result["proof"], result["replaced"]) == (True, "hub", ["gateway.crt"])
    assert host.text("gateway.crt") == new
    assert host.text("gateway.crt.previous") == before
    assert host.names() == {"gateway.crt", "gateway.crt.previous", "gateway.key", "ca.crt"}


def test_what_the_hub_refuses_leaves_the_old(
    host: Host, old: Identity, make_hub: MakeHub, stranger: Authority
) -> None:
    before = host.text("gateway.crt")
    with pytest.raises(module.NotProvenError) as refusal:
        host.run(host.renewed(old), make_hub(stranger.root.pem()))
    assert str(refusal.value).startswith(
        "the hub does not take the new certificate, the old one stays: 127.0.0.1:"
    )
    assert "\n" not in str(refusal.value)
    assert host.text("gateway.crt") == before
    assert host.names() == {"gateway.crt", "gateway.key", "ca.crt"}


def test_a_check_run_tells_and_replaces_nothing(host: Host, old: Identity) -> None:
    before = host.text("gateway.crt")
    result = host.run(host.renewed(old), check_mode=True)
    assert (result["changed"], result["replaced"]) == (True, ["gateway.crt"])
    assert host.text("gateway.crt") == before


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("another key", "it does not belong to the key"),
        ("another authority", "the chain does not verify"),
        ("expired", "certificate has expired"),
        ("not a client", "the chain does not verify"),
        ("rubbish", "the files are not usable"),
    ],
)
def test_what_cannot_serve_is_refused_on_the_host(
    host: Host, old: Identity, stranger: Authority, what: str, fault: str
) -> None:
    before = host.text("gateway.crt")
    certificate = {
        "another key": lambda: host.authority.chain(host.authority.client("plant-a")),
        "another authority": lambda: host.renewed(old, stranger),
        "expired": lambda: host.renewed(old, start=timedelta(days=-2), end=timedelta(days=-1)),
        "not a client": lambda: host.renewed(old, server=True),
        "rubbish": lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    }[what]()
    with pytest.raises(module.NotProvenError, match=fault):
        host.run(certificate)
    assert host.text("gateway.crt") == before


def test_without_the_hub_a_certificate_that_serves_stays(host: Host, old: Identity) -> None:
    before = host.text("gateway.crt")
    with pytest.raises(module.NotProvenError, match="cannot be proven, the old one stays"):
        host.run(host.renewed(old), port=free_port())
    assert host.text("gateway.crt") == before


def test_without_the_hub_an_expired_one_is_replaced_with_a_warning(host: Host) -> None:
    expired = host.authority.client("plant-a", start=timedelta(days=-2), end=timedelta(days=-1))
    host.put(expired)
    new = host.renewed(expired)
    result = host.run(new, port=free_port())
    assert (result["proof"], host.text("gateway.crt")) == ("host", new)
    assert len(host.warnings) == 1
    assert "without the hub's word" in host.warnings[0]


def test_the_first_certificate_needs_no_hub(host: Host) -> None:
    identity = host.authority.client("plant-a")
    (host.folder / "gateway.key").write_text(identity.key_pem())
    host.run(host.authority.chain(identity), port=free_port())
    assert host.names() == {"gateway.crt", "gateway.key", "ca.crt"}
    assert host.warnings == []


def test_a_server_is_proven_by_its_own_purpose(host: Host) -> None:
    server, client = host.authority.client("hub", server=True), host.authority.client("hub")
    (host.folder / "server.key").write_text(client.key_pem())
    with pytest.raises(module.NotProvenError, match="does not verify"):
        host.run(host.authority.chain(client), name="server", usage="server")
    (host.folder / "server.key").write_text(server.key_pem())
    assert host.run(host.authority.chain(server), name="server", usage="server")["proof"] == "host"


def test_a_new_key_comes_with_its_certificate(host: Host, old: Identity, make_hub: MakeHub) -> None:
    following = host.authority.client("plant-a")
    (host.folder / "gateway.next.key").write_text(following.key_pem())
    result = host.run(host.authority.chain(following), make_hub(host.authorities))
    assert result["replaced"] == ["gateway.key", "gateway.crt"]
    assert host.text("gateway.key") == following.key_pem()
    assert host.names() == {"gateway.crt", "gateway.crt.previous", "gateway.key", "ca.crt"}


AFTERWARDS = {"gateway.crt", "gateway.crt.previous", "gateway.key", "ca.crt"}


@pytest.mark.parametrize("afterwards", ["the same again", "the order withdrawn"])
def test_a_cut_at_any_step_of_a_change_of_the_key(host: Host, old: Identity, afterwards: str) -> None:
    """Nobody has to come: whatever the moment, the two in place belong together."""
    before, following = host.text("gateway.crt"), host.authority.client("plant-a")
    new, instead = host.authority.chain(following), host.renewed(old)
    (host.folder / "gateway.next.key").write_text(following.key_pem())
    again = host.again()
    found: list[str] = []
    while True:
        again()
        if not cut_at(len(found) + 1, lambda: host.run(new)):
            break
        found.append({before: "old", new: "new"}[host.in_use()])
        if found[-1] == "old" and afterwards == "the order withdrawn":
            # As identity_request does.
            (host.folder / "gateway.next.key").unlink()
            host.run(instead)
            assert host.in_use() == instead
        else:
            host.run(new)
            assert host.in_use() == new
        assert host.names() == AFTERWARDS, f"step {len(found)}"
        assert not host.run(host.text("gateway.crt"))["changed"]
    print(f"{found.count('old')} cuts leave the old, {found.count('new')} the new")
    assert found == sorted(found, reverse=True), "once the new are in place, no later cut may lose them"
    assert set(found) == {"old", "new"}


def test_a_cut_at_any_step_of_the_way_back(host: Host, old: Identity) -> None:
    before, following = host.text("gateway.crt"), host.authority.client("plant-a")
    new = host.authority.chain(following)
    (host.folder / "gateway.next.key").write_text(following.key_pem())
    again = host.again()
    found: list[str] = []
    while True:
        again()
        install = module.Install(
            {
                "directory": str(host.folder),
                "name": "gateway",
                "usage": "client",
                "certificate": new,
                "authorities": host.authorities,
                "hub": None,
            }
        )
        install.stage()
        install.choose_key()
        install.promote()
        assert host.in_use() == new
        if not cut_at(len(found) + 1, install.undo):
            break
        found.append({before: "old", new: "new"}[host.in_use()])
        # The new key was kept, or is in use: its certificate still serves.
        host.run(new)
        assert host.in_use() == new
        assert host.names() == AFTERWARDS, f"step {len(found)}"
    assert host.in_use() == before
    assert host.names() == {"gateway.crt", "gateway.key", "gateway.next.key", "ca.crt"}
    assert found == sorted(found), "once the old are back, no later cut may bring the new"
    assert set(found) == {"old", "new"}


def test_a_cut_at_any_step_of_a_renewal(host: Host, old: Identity) -> None:
    before, new = host.text("gateway.crt"), host.renewed(old)
    again = host.again()
    found: list[str] = []
    while True:
        again()
        if not cut_at(len(found) + 1, lambda: host.run(new)):
            break
        found.append({before: "old", new: "new"}[host.in_use()])
        host.run(new)
        assert host.in_use() == new
        assert host.names() == AFTERWARDS, f"step {len(found)}"
        assert host.text("gateway.crt.previous") == before
    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}


def test_a_check_run_tells_of_a_change_that_was_cut_and_leaves_it(host: Host, old: Identity) -> None:
    following = host.authority.client("plant-a")
    new = host.authority.chain(following)
    (host.folder / "gateway.next.key").write_text(following.key_pem())
    again, step = host.again(), 0
    while not (host.folder / "gateway.crt").is_symlink():
        step += 1
        again()
        assert cut_at(step, lambda: host.run(new))
    left = host.names()
    assert ".gateway.pair" in left
    assert host.run(host.text("gateway.crt"), check_mode=True)["changed"]
    assert host.names() == left


class Collector(threading.Thread):
    """Holds one connection, and makes a new one with new files as the real one does; with `stubborn` it does not."""

    def __init__(self, host: Host, hub: Hub, *, stubborn: bool) -> None:
        super().__init__(daemon=True)
        self._host, self._hub, self._stubborn = host, hub, stubborn
        self.stop = threading.Event()
        self.connected = threading.Event()

    def _connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cadata=self._host.authorities)
        context.load_cert_chain(self._host.folder / "gateway.crt", self._host.folder / "gateway.key")
        plain = socket.create_connection(("127.0.0.1", self._hub.port))
        return context.wrap_socket(plain, server_hostname="localhost")

    def run(self) -> None:
        used = self._host.text("gateway.crt")
        link = self._connect()
        self.connected.set()
        while not self.stop.wait(0.05):
            if self._host.text("gateway.crt") != used and not self._stubborn:
                used = self._host.text("gateway.crt")
                following = self._connect()
                link.close()
                link = following
        link.close()


@pytest.mark.parametrize("stubborn", [False, True])
def test_the_old_one_comes_back_where_the_collector_does_not(
    host: Host, old: Identity, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr(module, "HOLD", 0.3)
    monkeypatch.setattr(module, "LOOK", 0.05)
    hub = make_hub(host.authorities)
    collector = Collector(host, hub, stubborn=stubborn)
    collector.start()
    assert collector.connected.wait(5)
    time.sleep(0.1)
    before, new = host.text("gateway.crt"), host.renewed(old)
    following = host.authority.client("plant-a") if stubborn else None
    if following:
        # With a key of its own, so that both files have to come back.
        new = host.authority.chain(following)
        (host.folder / "gateway.next.key").write_text(following.key_pem())
    try:
        if following:
            key = host.text("gateway.key")
            with pytest.raises(FailedError, match="the old files are in place again"):
                host.run(new, hub, watch_user=getpass.getuser(), wait=1)
            assert host.text("gateway.crt") == before
            assert host.text("gateway.key") == key
            assert host.text("gateway.next.key") == following.key_pem()
        else:
            result = host.run(new, hub, watch_user=getpass.getuser(), wait=30)
            assert result["connection"] == "new"
            assert 0 <= result["seconds"] < 30
            assert host.text("gateway.crt") == new
    finally:
        collector.stop.set()
        collector.join()


def test_a_collector_that_was_not_connected_is_not_waited_for(
    host: Host, old: Identity, make_hub: MakeHub
) -> None:
    result = host.run(host.renewed(old), make_hub(host.authorities), watch_user=getpass.getuser(), wait=60)
    assert result["connection"] == "none"


def test_a_new_connection_counts_only_once_it_has_lasted() -> None:
    looks = iter([{1}, {1, 2}, {2}, {3}, {3}, {3}, {3}, {3}, {3}, {3}, {3}])
    module_hold, module_look = module.HOLD, module.LOOK
    module.HOLD, module.LOOK = 0.15, 0.05
    try:
        assert module.await_new(lambda: next(looks), {1}, 5) is not None
        assert len(list(looks)) < 6, "it counted before the third connection had lasted"
    finally:
        module.HOLD, module.LOOK = module_hold, module_look


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_public_files_stay_readable_for_all_and_roots(host: Host, old: Identity) -> None:
    (host.folder / "ca.crt").chmod(0o600)
    assert host.run(host.text("gateway.crt"))["changed"]
    assert (host.folder / "ca.crt").stat().st_mode & 0o777 == 0o644

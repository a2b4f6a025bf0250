# SPDX-License-Identifier: Apache-2.0
"""What a gateway keeps of the hub's checkpoints, and what it refuses. The messages are made by the hub's own code."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the hub, which signs what is tested here, needs Python 3.11", allow_module_level=True)

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_collector.delivery import witness
from energy_collector.delivery.witness import RefusedError, Witnesses
from energy_hub.evidence import merkle
from energy_hub.evidence.checkpoint import Checkpoint, SiteTree, sign
from energy_hub.evidence.witness import Fleet, describe
from hypothesis import given
from hypothesis import strategies as st

from .collector_support import Service, running, wait_for
from .test_collector_services import Line

SITE = "plant-a"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Hub:
    """Signs over trees of three sites, of which ours grows."""

    def __init__(self, key: Ed25519PrivateKey | None = None, salt: bytes = b"") -> None:
        self.key = key or Ed25519PrivateKey.generate()
        self.salt = salt
        self.last: Checkpoint | None = None
        self.number = 0

    def leaves(self, size: int) -> list[bytes]:
        return [merkle.leaf_hash(self.salt + b"%d" % number) for number in range(size)]

    def sign(self, size: int, since: int | None = None, number: int | None = None) -> bytes:
        self.number = number or self.number + 1
        tree = SiteTree(size, merkle.root(self.leaves(size)))
        trees = {"plant-0": SiteTree(7, bytes(32)), SITE: tree, "plant-b": SiteTree(9, bytes(32))}
        previous = self.last.digest if self.last else bytes(32)
        time = START + timedelta(minutes=self.number)
        self.last = sign(self.key, self.number, time, previous, trees)
        document = {
            **describe(self.last),
            "site": SITE,
            "size": size,
            "root": tree.root.hex(),
            "index": 1,
            "path": [one.hex() for one in Fleet(trees).path(1)],
        }
        if since is not None:
            document["since"] = {"size": since, "path": [one.hex() for one in self.proof(since, size)]}
        return json.dumps(document).encode()

    def proof(self, old: int, size: int) -> Sequence[bytes]:
        nodes: dict[tuple[int, int], bytes] = {}
        frontier = merkle.Frontier()
        for number, leaf in enumerate(self.leaves(size)):
            for level, found in enumerate(frontier.append(leaf)):
                nodes[level, number >> level] = found
        return merkle.consistency_path(old, size, lambda level, index: nodes[level, index])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "witness.jsonl"


@pytest.fixture
def witnesses(path: Path) -> Witnesses:
    return Witnesses(path, SITE)


def numbers(path: Path) -> list[int]:
    return [int(json.loads(line)["checkpoint"].split()[2]) for line in path.read_text().splitlines()]


def test_what_goes_on_is_kept(witnesses: Witnesses, path: Path) -> None:
    hub = Hub()
    assert witnesses.status() == {}
    assert not witnesses.holds_only_one
    assert witnesses.take(hub.sign(3))
    assert witnesses.holds_only_one
    assert witnesses.status() == {"witness": {"refused": 0, "number": 1, "size": 3}}
    assert witnesses.take(hub.sign(3))
    assert not witnesses.holds_only_one
    assert witnesses.take(hub.sign(10, since=3))
    # Proven from one that is held and not the newest.
    assert witnesses.take(hub.sign(12, since=3))
    assert numbers(path) == [1, 2, 3, 4]
    assert "since" not in path.read_text()


def test_what_is_kept_outlives_the_service(witnesses: Witnesses, path: Path) -> None:
    hub = Hub()
    witnesses.take(hub.sign(3))
    again = Witnesses(path, SITE)
    assert again.status()["witness"]["size"] == 3
    assert again.take(hub.sign(5, since=3))
    with pytest.raises(RefusedError):
        again.take(hub.sign(4))
    assert again.status() == {"witness": {"refused": 1, "number": 2, "size": 5}}


def test_one_that_cannot_prove_itself_yet_is_waited_for(witnesses: Witnesses, path: Path) -> None:
    hub = Hub()
    witnesses.take(hub.sign(3))
    assert not witnesses.take(hub.sign(6))
    assert not witnesses.take(hub.sign(7, since=6))
    assert witnesses.take(hub.sign(8, since=3))
    assert numbers(path) == [1, 4]
    assert witnesses.status()["witness"]["refused"] == 0


def test_one_that_comes_twice_or_late_is_no_fault(witnesses: Witnesses, path: Path) -> None:
    hub = Hub()
    first, second, third = hub.sign(3), hub.sign(4), hub.sign(5, since=3)
    assert witnesses.take(first)
    assert witnesses.take(third)
    for payload in (third, first, second):
        assert not witnesses.take(payload)
    assert numbers(path) == [1, 3]


def refused(witnesses: Witnesses, payload: bytes, why: str) -> None:
    before = witnesses.status()
    with pytest.raises(RefusedError, match=why):
        witnesses.take(payload)
    assert witnesses.status()["witness"]["refused"] == before.get("witness", {"refused": 0})["refused"] + 1


def test_a_hub_that_knows_less_is_refused(witnesses: Witnesses) -> None:
    hub = Hub()
    witnesses.take(hub.sign(10))
    refused(witnesses, hub.sign(8), "knows 8 batches of this site, 1 knew 10")


def test_a_hub_that_knows_others_is_refused(witnesses: Witnesses) -> None:
    hub = Hub()
    witnesses.take(hub.sign(10))
    hub.salt = b"changed"
    refused(witnesses, hub.sign(10), "another tree of the same 10 batches")
    refused(witnesses, hub.sign(12, since=10), "does not begin with the 10 that checkpoint 1")


def test_a_hub_that_was_set_back_is_refused(witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    payloads = [hub.sign(10, since=None if number == 0 else 10) for number in range(5)]
    for payload in payloads:
        assert witnesses.take(payload)
    back = Hub(hub.key)
    back.last, back.number = None, 2
    refused(witnesses, back.sign(10), "checkpoint 3 is another one than the one that is held")
    monkeypatch.setattr("tests.unit.collector.test_witness.START", START + timedelta(days=1))
    back.number = 0
    witnesses._held = witnesses._held[3:]
    refused(witnesses, back.sign(10), "checkpoint 1 was signed after 5, which is held")


def test_after_a_restore_it_begins_anew_and_keeps_what_was(
    witnesses: Witnesses, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    old = [hub.sign(3), hub.sign(10, since=3)]
    for payload in old:
        assert witnesses.take(payload, "7-1")
    monkeypatch.setattr("tests.unit.collector.test_witness.START", START + timedelta(days=1))
    back = Hub(hub.key, salt=b"came again")
    # Its number is known, and as long as nobody says that the database is another one, that is a lie.
    again = back.sign(4)
    with pytest.raises(RefusedError, match="checkpoint 1 is another one"):
        witnesses.take(again, "7-1")
    assert not witnesses.holds_only_one
    assert witnesses.take(again, "7-2")
    assert witnesses.holds_only_one
    assert numbers(path) == [1, 2, 1]
    assert witnesses.status() == {"witness": {"refused": 1, "number": 1, "size": 4}}
    # A broker may still have the newest of before.
    for one in (witnesses, Witnesses(path, SITE)):
        assert not one.take(old[1], "7-2")
    assert witnesses.take(back.sign(12, since=4), "7-2")
    with pytest.raises(RefusedError, match="knows 5 batches"):
        witnesses.take(back.sign(5), "7-2")
    # The service may be restarted before the first witness of the new database comes.
    third = Hub(hub.key, salt=b"once more")
    monkeypatch.setattr("tests.unit.collector.test_witness.START", START + timedelta(days=2))
    restarted = Witnesses(path, SITE)
    assert restarted.take(third.sign(2), "7-3")
    assert numbers(path) == [1, 2, 1, 2, 1]


def test_another_key_does_not_begin_anew(witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    assert witnesses.take(Hub().sign(3), "7-1")
    monkeypatch.setattr("tests.unit.collector.test_witness.START", START + timedelta(days=1))
    with pytest.raises(RefusedError, match="signed with another key"):
        witnesses.take(Hub().sign(4), "7-2")


def test_a_checkpoint_that_does_not_follow_is_refused(witnesses: Witnesses) -> None:
    hub = Hub()
    witnesses.take(hub.sign(3))
    hub.last = None
    refused(witnesses, hub.sign(4, since=3), "checkpoint 2 does not follow 1")


def test_another_key_is_refused(witnesses: Witnesses) -> None:
    hub = Hub()
    witnesses.take(hub.sign(3))
    thief = Hub()
    thief.last, thief.number = hub.last, 1
    refused(witnesses, thief.sign(4, since=3), "signed with another key")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"size": 4}, "was not signed over this tree"),
        ({"root": "00" * 32}, "was not signed over this tree"),
        ({"index": 2}, "was not signed over this tree"),
        ({"path": []}, "was not signed over this tree"),
        ({"path": "x"}, "a path has the wrong form"),
        ({"path": ["zz"]}, "a path has the wrong form"),
        ({"site": "plant-b"}, "of site 'plant-b'"),
        ({"signature": base64.b64encode(bytes(64)).decode()}, "is not signed by the key"),
        ({"key": base64.b64encode(bytes(31)).decode()}, "is not signed by the key"),
        ({"key": "?"}, "is no witness"),
        ({"size": "3"}, "has the wrong form"),
        ({"size": True}, "has the wrong form"),
        ({"checkpoint": "energy/v1/checkpoint\n"}, "has the wrong form"),
        ({"checkpoint": None}, "is no witness"),
    ],
)
def test_what_is_false_is_refused(
    witnesses: Witnesses, path: Path, change: dict[str, object], why: str
) -> None:
    refused(witnesses, json.dumps(json.loads(Hub().sign(3)) | change).encode(), why)
    assert not path.exists()


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"[" * 50_000, b"{}", b'"' + b"x" * 70_000 + b'"'])
def test_what_is_no_witness_is_refused(witnesses: Witnesses, payload: bytes) -> None:
    refused(witnesses, payload, "witness")


def test_a_line_that_was_cut_is_taken_away(witnesses: Witnesses, path: Path) -> None:
    hub = Hub()
    witnesses.take(hub.sign(3))
    first = path.read_bytes()
    witnesses.take(hub.sign(4, since=3))
    for cut in (1, 50, len(path.read_bytes()) - len(first) - 1):
        path.write_bytes(path.read_bytes()[: len(first) + cut])
        assert Witnesses(path, SITE).status()["witness"]["number"] == 1
        assert path.read_bytes() == first
    path.write_bytes(b"damaged\n" + first)
    assert Witnesses(path, SITE).status()["witness"]["number"] == 1


def test_the_file_is_bounded(witnesses: Witnesses, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "MAX_FILE", 5000)
    hub = Hub()
    for _ in range(40):
        assert witnesses.take(hub.sign(3))
        assert path.stat().st_size <= 5000
    kept = numbers(path)
    assert kept == list(range(kept[0], 41))
    assert kept[0] > 30
    assert not path.with_name("witness.jsonl.new").exists()


def test_a_full_disk_leaves_no_half_line(
    witnesses: Witnesses, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    witnesses.take(hub.sign(3))
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:20]))
    with pytest.raises(OSError, match="No space left"):
        witnesses.take(hub.sign(3))
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert witnesses.take(hub.sign(3))
    assert numbers(path) == [1, 3]


@given(st.integers(2, 120), st.data())
def test_proofs_are_those_of_the_hub(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size - 1))
    hub = Hub(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    before, now = merkle.root(hub.leaves(old)), merkle.root(hub.leaves(size))
    path = list(hub.proof(old, size))
    assert witness.is_consistent(old, before, size, now, path)
    for spoilt in (path[:-1], [*path, bytes(32)], [bytes(32), *path[1:]]):
        assert witness.is_consistent(old, before, size, now, spoilt) == merkle.is_consistent(
            old, before, size, now, spoilt
        )
    assert not witness.is_consistent(old, bytes(32), size, now, path)


# ---- In the service


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    found = Line(tmp_path)
    yield found
    found.hub.close()
    found.broker.stop()


def test_what_the_hub_has_signed_is_kept_and_what_does_not_fit_is_told(line: Line) -> None:
    signer = Hub()
    line.hub.witness(signer.sign(3))
    persistence = Service("persistence", line.folder, line.config())
    with running(persistence):
        kept = line.folder / "witness.jsonl"
        wait_for(kept.exists, "it is kept")
        line.hub.witness(signer.sign(2))
        wait_for(
            lambda: "witness: refused: checkpoint 2 knows 2 batches" in persistence.journal, "it is told"
        )
        assert len(kept.read_text().splitlines()) == 1
        persistence.send(signal.SIGTERM)
        persistence.wait()
    status = json.loads(line.hub.statuses.get(timeout=30))
    while status["state"] == "online":
        status = json.loads(line.hub.statuses.get(timeout=30))
    assert status["witness"] == {"refused": 1, "number": 1, "size": 3}


def test_the_first_one_is_named_at_once_so_that_the_next_one_can_prove_itself(line: Line) -> None:
    signer = Hub()
    persistence = Service("persistence", line.folder, line.config())
    with running(persistence):
        assert "witness" not in json.loads(line.hub.statuses.get(timeout=30))
        line.hub.witness(signer.sign(3))
        assert json.loads(line.hub.statuses.get(timeout=30))["witness"]["size"] == 3
        line.hub.witness(signer.sign(5, since=3))
        kept = line.folder / "witness.jsonl"
        wait_for(lambda: len(kept.read_text().splitlines()) == 2, "the second one is kept")
        persistence.send(signal.SIGTERM)
        persistence.wait()
    # That one is proven from any that is held: nothing more had to be told.
    assert json.loads(line.hub.statuses.get(timeout=30))["state"] == "offline"

# SPDX-License-Identifier: Apache-2.0
"""The ledgers, written and read: no entry is lost, not even after a torn line."""

from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils import _ledger as module
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _ledger
from wattfleet import certificates
from wattfleet.errors import WattfleetError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VECTORS = json.loads(
    (Path(__file__).parents[3] / "docs/reference/certificate-ledger-vectors.json").read_text()
)


def by_collection(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    return module.read(path, ["serial"])


def by_controller(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    torn: list[str] = []
    return certificates._entries(path, torn), torn


@pytest.mark.parametrize("read", [by_collection, by_controller])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: one["name"])
def test_every_reader_keeps_to_the_vectors(tmp_path: Path, read: Any, vector: dict[str, Any]) -> None:
    path = tmp_path / "plant-a.jsonl"
    path.write_bytes(bytes.fromhex(vector["hex"]) if "hex" in vector else vector["text"].encode())
    if "wrong_line" in vector:
        told = re.escape(f"{path}, line {vector['wrong_line']}: ")
        with pytest.raises((ValueError, WattfleetError), match=told):
            read(path)
        return
    found, torn = read(path)
    assert [one["serial"] for one in found] == vector["entries"]
    assert len(torn) == vector["torn"]
    assert all(f"{path}: the last line is torn" in one and "\n" not in one for one in torn)


def test_a_ledger_cut_anywhere_keeps_what_was_whole_and_goes_on(tmp_path: Path) -> None:
    """Each place where the power may have gone, and then the next entry: nothing whole is lost, nothing is joined."""
    path = tmp_path / "plant-a.jsonl"
    written = [{"serial": str(number), "name": "wörk"} for number in range(3)]
    module.append(path, written)
    whole = path.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = written[: sum(end <= cut for end in ends)]
        assert module.read(path)[0] == kept, cut
        is_torn = cut not in {0, *ends, *(end + 1 for end in ends)}
        assert bool(module.append(path, [{"serial": "new"}])) == is_torn, cut
        assert module.read(path) == ([*kept, {"serial": "new"}], []), cut


def test_an_entry_that_lacks_what_is_needed_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "plant-a.jsonl"
    module.append(path, [{"serial": "1"}, {"name": "plant-a"}])
    with pytest.raises(module.NoEntryError, match="line 2: without serial; put the line right first"):
        module.read(path, ["serial"])


def test_entries_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "plant-a.jsonl"
    assert module.append(path, [{"serial": "1"}]) == ""
    assert module.append(path, [{"serial": "2"}]) == ""
    assert path.read_text() == '{"serial": "1"}\n{"serial": "2"}\n'


def test_a_torn_line_gives_way_to_the_next_entry_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "plant-a.jsonl"
    path.write_text('{"serial": "1"}\n{"seri')
    assert module.append(path, [{"serial": "2"}]) == '{"seri'
    assert path.read_text() == '{"serial": "1"}\n{"serial": "2"}\n'


def write_many(path: Path, writer: int) -> None:
    for number in range(50):
        module.append(path, [{"writer": writer, "number": number}])


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "revoked.jsonl"
    writers = [multiprocessing.Process(target=write_many, args=(path, number)) for number in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((one["writer"], one["number"]) for one in found) == [
        (w, n) for w in range(4) for n in range(50)
    ]


def certificate(serial: str, days: int = 100, **changes: Any) -> dict[str, Any]:
    return {
        "issued": "2026-01-01T00:00:00Z",
        "name": "plant-a",
        "host": "plant-a",
        "usage": "client",
        "serial": serial,
        "issuer": "aa",
        "not_before": "20260101000000Z",
        "not_after": f"{NOW + timedelta(days=days):%Y%m%d%H%M%SZ}",
        "sha256": "00",
        "reasons": [],
        **changes,
    }


def installation(serial: str, authorities: list[str] | None = None) -> dict[str, Any]:
    return {
        "installed": "2026-02-01T00:00:00Z",
        "name": "plant-a",
        "host": "plant-a",
        "usage": "client",
        "serial": serial,
        "authorities": authorities or ["r1"],
    }


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    (tmp_path / "issued").mkdir()
    (tmp_path / "installed").mkdir()
    return tmp_path


def fill(
    ca: Path, issued: list[dict[str, Any]], installed: Sequence[dict[str, Any]] = (), revoked: str = ""
) -> None:
    for one in issued:
        module.append(ca / "issued" / f"{one['name']}.jsonl", [one])
    for one in installed:
        module.append(ca / "installed" / f"{one['name']}.jsonl", [one])
    if revoked:
        module.append(ca / "revoked.jsonl", [{"serial": revoked}])


def test_the_certificate_in_use_is_the_one_that_was_installed(ca: Path) -> None:
    fill(
        ca,
        [certificate("1"), certificate("2"), certificate("3")],
        [installation("1"), installation("2", ["r1", "r2"])],
    )
    (found,), torn = _ledger.in_use(ca, now=NOW.timestamp())
    assert torn == []
    assert (found["serial"], found["days_left"], found["authorities"]) == ("2", 100.0, ["r1", "r2"])
    assert found["serials"] == ["1", "2", "3"]


def test_without_an_installation_the_newest_counts(ca: Path) -> None:
    fill(ca, [certificate("1"), certificate("2")])
    (found,), _ = _ledger.in_use(ca, now=NOW.timestamp())
    assert (found["serial"], found["installed"]) == ("2", "")


def test_expired_and_revoked_ones_need_no_revocation(ca: Path) -> None:
    fill(ca, [certificate("1", -1), certificate("2"), certificate("3")], [installation("2")], revoked="2")
    (found,), _ = _ledger.in_use(ca, now=NOW.timestamp())
    assert (found["revoked"], found["serials"]) == (True, ["3"])


def test_a_server_and_a_client_of_one_name_are_two(ca: Path) -> None:
    fill(ca, [certificate("1"), certificate("2", usage="server")])
    found, _ = _ledger.in_use(ca, now=NOW.timestamp())
    assert [(one["usage"], one["serial"]) for one in found] == [("client", "1"), ("server", "2")]


def test_only_the_names_that_are_asked_for(ca: Path) -> None:
    fill(ca, [certificate("1"), certificate("2", name="plant-b")])
    assert [one["name"] for one in _ledger.in_use(ca, ["plant-b"], NOW.timestamp())[0]] == ["plant-b"]
    assert _ledger.in_use(ca, ["plant-c"], NOW.timestamp()) == ([], [])


def test_what_release_0_2_0_has_entered_is_read(ca: Path) -> None:
    """It entered no issuer, and nothing of what is installed."""
    old = certificate("1")
    del old["issuer"]
    (ca / "installed").rmdir()
    fill(ca, [old])
    (found,), torn = _ledger.in_use(ca, now=NOW.timestamp())
    assert torn == []
    assert (found["serial"], found["issuer"], found["installed"]) == ("1", "", "")

# SPDX-License-Identifier: Apache-2.0
"""The ledgers, written and read: no entry is lost, not even after a torn line."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import ledger_entry as module
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _ledger

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_entries_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "plant-a.jsonl"
    assert module.append(path, {"serial": "1"}) == ""
    assert module.append(path, {"serial": "2"}) == ""
    assert path.read_text() == '{"serial": "1"}\n{"serial": "2"}\n'


def test_after_a_torn_line_the_next_entry_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "plant-a.jsonl"
    path.write_text('{"serial": "1"}\n{"seri')
    assert module.append(path, {"serial": "2"}) == '{"seri'
    found, torn = _ledger.entries(path)
    assert found == [{"serial": "1"}, {"serial": "2"}]
    assert torn == [f'{path}, line 2: {{"seri']


def write_many(path: Path, writer: int) -> None:
    for number in range(50):
        module.append(path, {"writer": writer, "number": number})


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
        module.append(ca / "issued" / f"{one['name']}.jsonl", one)
    for one in installed:
        module.append(ca / "installed" / f"{one['name']}.jsonl", one)
    if revoked:
        module.append(ca / "revoked.jsonl", {"serial": revoked})


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

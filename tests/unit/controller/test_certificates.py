# SPDX-License-Identifier: Apache-2.0
"""`wattfleet certificates` on ledgers as the identity role writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from wattfleet import certificates as module
from wattfleet.cli import main
from wattfleet.errors import WattfleetError

from tests.unit.hub.authority import Authority

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def stamp(days: float) -> str:
    return f"{NOW + timedelta(days=days):%Y%m%d%H%M%SZ}"


class Ledgers:
    """The folder of an authority, filled line by line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("issued", "installed"):
            (folder / name).mkdir()

    def issue(
        self, serial: str, name: str = "plant-a", start: float = -10, end: float = 355, **more: Any
    ) -> None:
        entry = {
            "issued": "2026-05-22T00:00:00Z",
            "name": name,
            "host": name,
            "usage": "client",
            "serial": serial,
            "issuer": "aa",
            "not_before": stamp(start),
            "not_after": stamp(end),
            **more,
        }
        self._append(f"issued/{name}.jsonl", entry)

    def install(self, serial: str, name: str = "plant-a") -> None:
        self._append(f"installed/{name}.jsonl", {"usage": "client", "serial": serial})

    def revoke(self, serial: str) -> None:
        self._append("revoked.jsonl", {"serial": serial})

    def _append(self, path: str, entry: dict[str, Any]) -> None:
        with (self.folder / path).open("a") as stream:
            stream.write(json.dumps(entry) + "\n")

    def states(self, renew_at: float = 0.5) -> dict[str, str]:
        return {one.serial: one.state for one in module.read(self.folder, NOW, renew_at).certificates}


@pytest.fixture
def ledgers(tmp_path: Path) -> Ledgers:
    return Ledgers(tmp_path)


@pytest.mark.parametrize(
    ("start", "end", "state"),
    [
        (-182, 183, "valid"),
        (-183, 182, "renew due"),
        (-366, -1, "expired"),
        (-365, 0, "expired"),
    ],
)
def test_the_state_follows_the_age(ledgers: Ledgers, start: float, end: float, state: str) -> None:
    ledgers.issue("1", start=start, end=end)
    ledgers.install("1")
    assert ledgers.states() == {"1": state}


def test_a_later_one_replaces_once_it_is_installed(ledgers: Ledgers) -> None:
    ledgers.issue("1")
    ledgers.install("1")
    ledgers.issue("2")
    assert ledgers.states() == {"1": "valid", "2": "not installed"}
    ledgers.install("2")
    assert ledgers.states() == {"1": "replaced", "2": "valid"}


def test_revoked_is_told_before_all_else(ledgers: Ledgers) -> None:
    ledgers.issue("1")
    ledgers.issue("2", start=-400, end=-35)
    ledgers.install("2")
    ledgers.revoke("1")
    ledgers.revoke("2")
    assert ledgers.states() == {"1": "revoked", "2": "revoked"}


def test_a_server_does_not_replace_a_client_of_its_name(ledgers: Ledgers) -> None:
    ledgers.issue("1")
    ledgers.install("1")
    ledgers.issue("2", usage="server")
    assert ledgers.states()["1"] == "valid"


def test_a_torn_last_line_is_told_and_hides_nothing(
    ledgers: Ledgers, capsys: pytest.CaptureFixture[str]
) -> None:
    ledgers.issue("1")
    with (ledgers.folder / "issued/plant-a.jsonl").open("a") as stream:
        stream.write('{"name": "plant-a", "ser')
    assert main(["certificates", "--ca", str(ledgers.folder)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "plant-a.jsonl: the last line is torn and left out" in line
    assert set(ledgers.states()) == {"1"}


def test_a_line_that_no_power_cut_explains_is_one_line(
    ledgers: Ledgers, capsys: pytest.CaptureFixture[str]
) -> None:
    with (ledgers.folder / "issued/plant-a.jsonl").open("a") as stream:
        stream.write('{"name": "plant-a", "ser\n')
    assert main(["certificates", "--ca", str(ledgers.folder)]) == 1
    assert "plant-a.jsonl, line 1: " in capsys.readouterr().err


def test_an_entry_without_a_serial_is_one_line(ledgers: Ledgers) -> None:
    ledgers.issue("1")
    with (ledgers.folder / "issued/plant-a.jsonl").open("a") as stream:
        stream.write('{"name": "plant-a", "usage": "client"}\n')
    with pytest.raises(WattfleetError, match="an entry is not complete: "):
        ledgers.states()


def test_json_has_all_and_the_table_what_matters(
    ledgers: Ledgers, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    alive = {
        "not_before": f"{now - timedelta(days=10):%Y%m%d%H%M%SZ}",
        "not_after": f"{now + timedelta(days=355):%Y%m%d%H%M%SZ}",
    }
    ledgers.issue("aaa1", **alive)
    ledgers.issue("aaa2", **alive)
    ledgers.install("aaa2")
    ledgers.issue("bbb1", name="plant-b", start=-4000, end=-3000)
    authority = Authority()
    (ledgers.folder / "root.crt").write_text(authority.root.pem())
    (ledgers.folder / "next").mkdir()
    (ledgers.folder / "next/intermediate.crt").write_text(authority.intermediate.pem())

    assert main(["certificates", "--ca", str(ledgers.folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {one["serial"]: one["state"] for one in document["certificates"]} == {
        "aaa1": "replaced",
        "aaa2": "valid",
        "bbb1": "expired",
    }
    assert [(one["usage"], one["state"]) for one in document["authorities"]] == [
        ("root", "valid"),
        ("intermediate", "to come"),
    ]

    assert main(["certificates", "--ca", str(ledgers.folder)]) == 0
    table = capsys.readouterr().out
    # The last of a name is shown whatever its state: a dark site has to be seen.
    assert "aaa2" in table
    assert "bbb1" in table
    assert "aaa1" not in table
    assert "and 1 that were replaced or have expired: --all" in table
    assert main(["certificates", "--ca", str(ledgers.folder), "plant-a", "--all"]) == 0
    table = capsys.readouterr().out
    assert "aaa1" in table
    assert "bbb1" not in table


def test_what_is_not_there_is_one_line(
    ledgers: Ledgers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certificates", "--ca", str(tmp_path / "none")]) == 1
    assert "no authority is here; make it with playbooks/ca.yml" in capsys.readouterr().err
    assert main(["certificates", "--ca", str(ledgers.folder), "plant-x"]) == 1
    assert "nothing was ever issued to plant-x" in capsys.readouterr().err
    assert main(["certificates", "--ca", str(ledgers.folder), "--renew-at", "2"]) == 1
    assert "--renew-at: found 2.0" in capsys.readouterr().err

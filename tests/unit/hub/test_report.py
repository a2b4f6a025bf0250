# SPDX-License-Identifier: Apache-2.0
"""What the command answers about a database with two sites in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli
from energy_hub.commands import tools
from energy_hub.pipeline import examine
from energy_hub.store import Signed, Store
from energy_hub.trust import TrustedKey

from .authority import Authority
from .conftest import Database
from .writer import Gateway

START = 1_767_225_600_000


@pytest.fixture
def filled(database: Database) -> Database:
    store = Store(database.conninfo("energy_ingest"))
    gateways = [Gateway(site, Ed25519PrivateKey.generate()) for site in ("plant-a", "plant-b")]
    authority = Authority()
    for one in gateways:
        certificate = authority.client(one.site).pem()
        store.trust(
            one.site, TrustedKey(one.public, b"s", certificate, b"f", datetime(2030, 1, 1, tzinfo=UTC))
        )
    first = gateways[0].batch(
        {
            "main/active_power": [(START, 100.0, 0), (START + 10_000, 250.5, 0)],
            "main/energy_import": [(START, 5.0, 0), (START + 10_000, None, 129)],
            "pv/active_power": [(START, -70.0, 0)],
            "main/voltage_l1": [(START + 20_000, 230.0, 0)],
        }
    )
    gateways[0].batch({"main/active_power": [(START + 30_000, 1.0, 0)]})
    third = gateways[0].batch({"main/active_power": [(START + 5_000, 1.0, 0)]})
    for payload in (first, third):
        signed = examine(store, "plant-a", payload, 1_000_000)
        assert isinstance(signed, Signed)
        store.commit([signed])
    store.close()
    return database


def run(database: Database, capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    assert cli.main([command, "--database", database.conninfo("energy_read"), *arguments]) == tools.OK
    return capsys.readouterr().out


def test_status_as_json(filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    sites = json.loads(run(filled, capsys, "status", "--json"))["sites"]
    assert list(sites) == ["plant-a", "plant-b"]
    one = sites["plant-a"]
    assert {
        name: one[name] for name in ("readings", "batches", "missing_batches", "chain", "newest_reading")
    } == {
        "readings": 7,
        "batches": 2,
        "missing_batches": 1,
        "chain": "pending",
        "newest_reading": "2026-01-01T00:00:20.000Z",
    }
    assert one["meters"] == {
        "main": {
            "active_power": {"time": "2026-01-01T00:00:10.000Z", "value": 250.5, "quality": 0, "unit": "W"},
            "energy_import": {"time": "2026-01-01T00:00:10.000Z", "value": None, "quality": 129, "unit": "W"},
        },
        "pv": {
            "active_power": {"time": "2026-01-01T00:00:00.000Z", "value": -70.0, "quality": 0, "unit": "W"}
        },
    }
    assert one["certificate_expires"] == "2030-01-01T00:00:00.000Z"
    assert (sites["plant-b"]["readings"], sites["plant-b"]["newest_reading"]) == (0, None)


def test_status_as_table(filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(filled, capsys, "status").splitlines()
    assert " ".join(lines[0].split()) == "site state last seen newest reading readings batches missing chain"
    assert lines[1].split()[-4:] == ["7", "2", "1", "pending"]
    assert lines[2].split()[-4:] == ["0", "0", "0", "ok"]


def test_committed(filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(filled, capsys, "committed", "--minutes", "5", "--json")) == {
        "minutes": 5.0,
        "sites": {"plant-a": {"readings": 7, "batches": 2}, "plant-b": {"readings": 0, "batches": 0}},
    }
    assert "plant-b  0         0" in run(filled, capsys, "committed")


def test_identities(filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("export-identities", "--site", "plant-a", "--since", "2026-01-01T00:00:05Z")
    assert run(filled, capsys, *arguments).splitlines() == [
        "point,time,value,quality",
        "main/active_power,2026-01-01T00:00:05.000Z,1.0,0",
        "main/active_power,2026-01-01T00:00:10.000Z,250.5,0",
        "main/energy_import,2026-01-01T00:00:10.000Z,,129",
        "main/voltage_l1,2026-01-01T00:00:20.000Z,230.0,0",
    ]
    lines = run(
        filled, capsys, *arguments, "--until", "2026-01-01T00:00:06Z", "--format", "jsonl"
    ).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"point": "main/active_power", "time": "2026-01-01T00:00:05.000Z", "value": 1.0, "quality": 0}
    ]
    of_points = ("--point", "main/voltage_l1", "--point", "main/energy_import")
    lines = run(filled, capsys, *arguments, *of_points).splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["main/energy_import", "main/voltage_l1"]

# SPDX-License-Identifier: Apache-2.0
"""Months are made ahead, and dropped when they are old, counted and signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli, partitions, rollup
from energy_hub.audit.context import Scope
from energy_hub.audit.findings import Report
from energy_hub.audit.verify import verify
from energy_hub.evidence import step
from energy_hub.migrate import MONTHS_AHEAD
from energy_hub.pipeline import examine
from energy_hub.store import Signed, Store

from .conftest import Shards
from .delivery import Fleet
from .writer import Reading

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
NOW = datetime(2026, 5, 17, tzinfo=UTC)


def month(number: int, value: float = 1.0) -> dict[str, list[Reading]]:
    """Ten minutes of the middle of a month of 2026, and one reading of its last minute."""
    start = datetime(2026, number, 15, tzinfo=UTC)
    last = datetime(2026, number + 1, 1, tzinfo=UTC) - timedelta(minutes=1)
    times = [*(start + timedelta(minutes=minute) for minute in range(10)), last]
    return {
        "main/active_power": [(int(time.timestamp() * 1000), value + n, 0) for n, time in enumerate(times)]
    }


@pytest.fixture
def old(fleet: Fleet) -> Fleet:
    for number in (1, 2, 3):
        for site in fleet.gateways:
            fleet.deliver(site, month(number))
    return fleet


def count(fleet: Fleet) -> None:
    with fleet.database.connect("energy_rollup") as connection:
        connection.execute("SET timezone = 'UTC'")
        while rollup.step(connection):
            pass


def sign(fleet: Fleet) -> None:
    with fleet.database.connect("energy_ingest") as connection:
        assert step.run(connection, KEY)


def retire(fleet: Fleet, months: int, *, dry_run: bool = False) -> list[str]:
    with fleet.database.connect("energy_migrate") as connection:
        return list(
            partitions.retire(
                connection, step.latest_sites(connection), partitions.first_kept(NOW, months), dry_run=dry_run
            )
        )


def audit(fleet: Fleet) -> Report:
    with fleet.database.connect("energy_read") as connection:
        return verify(connection, Scope(keys=frozenset([PUBLIC])))


def test_months_ahead_are_made_once(fleet: Fleet) -> None:
    with fleet.database.connect("energy_migrate") as connection:
        later = partitions.months(connection)[-1]
        assert len(list(partitions.make(connection, later))) == MONTHS_AHEAD
        assert not list(partitions.make(connection, later))


def test_whole_months_are_kept_beside_this_one() -> None:
    assert partitions.first_kept(NOW, 1) == datetime(2026, 4, 1, tzinfo=UTC)
    assert partitions.first_kept(NOW, 12) == datetime(2025, 5, 1, tzinfo=UTC)
    assert partitions.first_kept(datetime(2026, 1, 31, tzinfo=UTC), 1) == datetime(2025, 12, 1, tzinfo=UTC)


def test_a_month_goes_when_it_is_counted_and_signed(old: Fleet) -> None:
    assert all("are in no tree that was signed" in line for line in retire(old, 2))
    sign(old)
    assert retire(old, 3) == [
        "kept 2026-01: 2 batches with readings of it are not in the rollups yet: energy-rollup counts them"
    ]
    count(old)
    assert retire(old, 3, dry_run=True) == ["would drop 2026-01: 22 readings of 2 sites"]
    assert old.database.one("SELECT count(*) FROM reading") == 66
    assert retire(old, 2) == [
        "dropped 2026-01: 22 readings of 2 sites",
        "dropped 2026-02: 22 readings of 2 sites",
    ]
    assert old.database.one("SELECT count(*) FROM reading") == 22
    assert not retire(old, 2)


def test_an_audit_tells_what_was_retired_from_what_was_removed(old: Fleet) -> None:
    sign(old)
    count(old)
    retire(old, 3)
    report = audit(old)
    assert not report.findings
    assert {(one.site, one.kind, one.count) for one in report.notes.values()} == {
        ("plant-a", "retired", 11),
        ("plant-b", "retired", 11),
    }
    with old.database.connect() as connection:
        connection.execute("DELETE FROM reading WHERE time < '2026-03-01Z' AND point = 1")
    assert {(one.site, one.kind, one.count) for one in audit(old).findings.values()} == {
        ("plant-a", "reading-removed", 11)
    }


def test_a_month_that_somebody_calls_retired_is_found_out(old: Fleet) -> None:
    """More is missing than was dropped."""
    sign(old)
    with old.database.connect() as connection:
        connection.execute("INSERT INTO retired (site, month, readings) VALUES (1, '2026-02-01Z', 3)")
        connection.execute(
            "DELETE FROM reading WHERE time >= '2026-02-01Z' AND time < '2026-03-01Z' AND point = 1"
        )
    found = [(one.detail, one.first, one.last) for one in audit(old).findings.values()]
    text = "retention dropped 3 readings of this month, and 11 are missing"
    assert found == [(text, datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))]


def test_what_comes_late_of_a_retired_month_is_kept_and_spoils_no_rollup(old: Fleet) -> None:
    sign(old)
    count(old)
    query = "SELECT start, readings, sum FROM rollup_day WHERE point = 1 ORDER BY start"
    before = old.database.rows(query)
    retire(old, 3)
    # A batch that was made anew, and one for a worker that still remembers the partition.
    again: list[Reading] = [
        (time + 30_000, value, quality) for time, value, quality in month(1)["main/active_power"]
    ]
    old.deliver("plant-a", {"main/active_power": again})
    count(old)
    assert old.database.rows(query) == before
    assert old.database.one("SELECT count(*) FROM reading_default") == 11
    assert old.database.one("SELECT to_regclass('reading_2026_01')") is None
    sign(old)
    assert not audit(old).findings


def test_a_month_that_somebody_writes_to_is_left_for_the_next_day(
    old: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(partitions, "PATIENCE", 1)
    sign(old)
    count(old)
    arguments = ["partitions", "--database", old.database.conninfo("energy_migrate"), "--raw-months", "1"]
    with old.database.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE reading_2026_01 IN ROW EXCLUSIVE MODE")
        assert cli.main(arguments) == 1
    assert "lock timeout" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    assert "dropped 2026-01: 22 readings of 2 sites" in capsys.readouterr().out


# ---- What comes while a month is looked at


def looked_at(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """Something happens between the look at the first month and its end."""
    look, todo = partitions._look, [meanwhile]

    def and_meanwhile(*values: Any) -> partitions.Month:
        month = look(*values)
        if todo:
            todo.pop()()
        return month

    monkeypatch.setattr(partitions, "_look", and_meanwhile)


def later(number: int, seconds: int = 30) -> dict[str, Sequence[Reading]]:
    """Readings of the same minutes of a month that were not there before."""
    return {
        point: [(time + 1000 * seconds, value, quality) for time, value, quality in readings]
        for point, readings in month(number).items()
    }


def test_a_late_batch_is_not_held_up_while_its_month_is_looked_at(
    old: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(old)
    count(old)

    def late() -> None:
        month = "relation IN ('reading'::regclass, 'reading_2026_01'::regclass)"
        assert old.database.one(f"SELECT array_agg(mode) FROM pg_locks WHERE {month}") is None
        old.deliver("plant-a", later(1))
        # Counted, so that nothing but the month itself tells of it.
        count(old)

    looked_at(monkeypatch, late)
    assert retire(old, 2) == [
        "kept 2026-01: 11 readings of it came while it was looked at",
        "dropped 2026-02: 22 readings of 2 sites",
    ]
    assert retire(old, 2) == [
        "kept 2026-01: 1 batches, of plant-a for instance, are in no tree that was signed: see energy-audit"
    ]
    sign(old)
    assert retire(old, 2) == ["dropped 2026-01: 33 readings of 2 sites"]
    assert not audit(old).findings


def test_a_batch_that_was_begun_before_the_look_is_waited_for(
    old: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is lower than that of a batch that is there."""
    sign(old)
    count(old)
    store = Store(old.database.conninfo("energy_ingest"))
    begun = old.seal("plant-a", later(1))
    signed = examine(store, "plant-a", begun, 1_000_000)
    assert isinstance(signed, Signed)
    commit = store.connection.transaction()
    commit.__enter__()
    store.commit([signed])
    old.deliver("plant-b", month(4))
    count(old)
    newest = old.database.one("SELECT max(id) FROM batch")
    waits = []

    def sleep(_: float) -> None:
        waits.append(old.database.one("SELECT max(id) FROM batch"))
        commit.__exit__(None, None, None)
        count(old)

    monkeypatch.setattr(partitions.time, "sleep", sleep)
    lines = retire(old, 3)
    assert lines == [
        "kept 2026-01: 1 batches, of plant-a for instance, are in no tree that was signed: see energy-audit"
    ]
    assert waits == [newest]
    store.close()


def test_a_month_stays_while_somebody_writes_for_long(old: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "PATIENCE", 0)
    sign(old)
    count(old)
    with old.database.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE batch IN ROW EXCLUSIVE MODE")
        assert retire(old, 3) == ["kept 2026-01: a batch is being written for more than 0 s"]


def test_a_month_stays_when_a_site_comes_while_it_is_looked_at(
    old: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batches were taken for a copy, which nobody asks for in a tree."""
    with old.database.connect() as connection:
        connection.execute("UPDATE site SET here = false WHERE name = 'plant-b'")
        sign(old)
        count(old)
        looked_at(
            monkeypatch, lambda: connection.execute("UPDATE site SET here = true WHERE name = 'plant-b'")
        )
        assert retire(old, 3) == ["kept 2026-01: plant-b was moved here while it was looked at"]


def test_what_was_dropped_before_a_move_is_added_to(old: Fleet) -> None:
    """Table retired comes along with a site that is moved; the month of its new database may be there still."""
    sign(old)
    count(old)
    with old.database.connect() as connection:
        connection.execute("INSERT INTO retired (site, month, readings) VALUES (1, '2026-01-01Z', 5)")
    assert retire(old, 3) == ["dropped 2026-01: 22 readings of 2 sites"]
    rows = "SELECT site, readings FROM retired ORDER BY site"
    assert old.database.rows(rows) == [(1, 16), (2, 11)]


def test_a_database_that_is_away_keeps_no_month_in_another(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "ingest.yaml"
    settings = shards.config()
    places = {"away": "host=/nonexistent dbname=energy"} | dict(settings["databases"])
    config.write_text(yaml.safe_dump({"databases": places, "directory": "north"}))
    with shards.databases["south"].connect("energy_migrate") as connection:
        connection.execute("SELECT ensure_month('2026-01-15Z')")
    assert cli.main(["partitions", "--config", str(config), "--raw-months", "1"]) == 1
    found = capsys.readouterr()
    assert "ERR CONNECTION_REFUSED database away: " in found.err
    assert found.out == "south: dropped 2026-01: 0 readings of 0 sites\n"

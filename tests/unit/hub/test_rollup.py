# SPDX-License-Identifier: Apache-2.0
"""The rollups against a recount of all readings in Python, after readings that came late, twice, and at odd times."""

from __future__ import annotations

import math
import random
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from energy_hub import description, rollup
from energy_hub.description import DescriptionError
from energy_hub.store import Store

from .conftest import Database
from .test_store import commit, known
from .writer import Gateway, Reading

SITE = "plant-a"
COLUMNS = "readings, good, uncertain, sum, minimum, maximum, first_time, first_value, last_time, last_value"
TABLES = ("minute", "quarter", "hour", "day")
MINUTE, HOUR = 60_000, 3_600_000


@pytest.fixture
def gateway(store: Store) -> Gateway:
    return known(store, SITE)


@pytest.fixture
def counting(database: Database) -> Iterator[psycopg.Connection]:
    with database.connect("energy_rollup") as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def catch_up(connection: psycopg.Connection, most: int = rollup.STEP) -> int:
    total = 0
    while done := rollup.step(connection, most):
        total += done
    return total


def kept(database: Database, table: str) -> dict[tuple[Any, Any], tuple[Any, ...]]:
    # A constant of this module: nothing from outside gets into the statement.
    query = f"SELECT p.name, r.start, {COLUMNS} FROM rollup_{table} r JOIN point p ON p.id = r.point"
    with database.connect("energy_read") as connection:
        connection.execute("SET timezone = 'UTC'")
        return {(row[0], row[1]): row[2:] for row in connection.execute(query)}


def versions(database: Database, table: str) -> dict[tuple[Any, Any], Any]:
    """Which transaction wrote each row last."""
    query = f"SELECT point, start, xmin::text FROM rollup_{table}"
    return {(row[0], row[1]): row[2] for row in database.rows(query)}


def recount(database: Database, table: str, zone: str = "UTC") -> dict[tuple[Any, Any], tuple[Any, ...]]:
    """All readings once more, in Python, by the same levels: minutes first, then what they make."""
    minutes: dict[tuple[str, datetime], list[tuple[Any, ...]]] = defaultdict(list)
    with database.connect("energy_read") as connection:
        connection.execute("SET timezone = 'UTC'")
        for point, at, value, quality in connection.execute(
            "SELECT point, time, value, quality FROM measurement ORDER BY point, time"
        ):
            minutes[point, at.replace(second=0, microsecond=0)].append((at, value, quality))
    found = {key: _of_readings(rows) for key, rows in minutes.items()}
    for level in {
        "minute": [],
        "quarter": ["quarter"],
        "hour": ["quarter", "hour"],
        "day": ["quarter", "day"],
    }[table]:
        groups: dict[tuple[str, datetime], list[tuple[Any, ...]]] = defaultdict(list)
        for point, start in sorted(found):
            groups[point, _start(start, level, zone)].append(found[point, start])
        found = {key: _of_spans(rows) for key, rows in groups.items()}
    return found


def _start(moment: datetime, level: str, zone: str) -> datetime:
    if level == "quarter":
        return moment.replace(minute=moment.minute // 15 * 15)
    if level == "hour":
        return moment.replace(minute=0)
    local = moment.astimezone(ZoneInfo(zone))
    return local.replace(hour=0, minute=0).astimezone(UTC)


def _of_readings(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    present = [(at, value) for at, value, _ in rows if value is not None]
    values = [value for _, value in present]
    total = None
    for value in values:
        total = value if total is None else total + value
    if any(abs(value) >= rollup.LARGEST for value in values):
        total = None
    good = sum(quality < 64 for _, _, quality in rows)
    edges = (*present[0], *present[-1]) if present else (None,) * 4
    return (
        len(rows), good, len(present) - good, total, min(values, default=None), max(values, default=None), *edges,
    )  # fmt: skip


def _of_spans(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    valued = [row for row in rows if row[6] is not None]
    total = None
    for row in valued:
        total = row[3] if total is None or row[3] is None else total + row[3]
    if any(row[3] is None for row in valued):
        total = None
    return (
        sum(row[0] for row in rows), sum(row[1] for row in rows), sum(row[2] for row in rows), total,
        min((row[4] for row in valued), default=None), max((row[5] for row in valued), default=None),
        valued[0][6] if valued else None, valued[0][7] if valued else None,
        valued[-1][8] if valued else None, valued[-1][9] if valued else None,
    )  # fmt: skip


def assert_right(database: Database, zone: str = "UTC") -> None:
    for table in TABLES:
        assert kept(database, table) == recount(database, table, zone), table


def series(start: int, count: int, step: int = 10_000, seed: int = 1) -> list[Reading]:
    draw = random.Random(seed)
    found: list[Reading] = []
    for number in range(count):
        kind = draw.random()
        at = start + number * step
        found.append(
            (at, None, 129) if kind < 0.1 else (at, draw.uniform(-1e4, 1e4), 66 if kind < 0.2 else 0)
        )
    return found


def test_every_level_is_what_a_recount_gives(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    start = ms("2026-03-28T22:40:00+00:00")
    payloads = [
        gateway.batch(
            {
                "m/power": series(start + n * 600_000, 60, seed=n),
                "m/energy": series(start + n * 600_000, 7, seed=-n),
            }
        )
        for n in range(12)
    ]
    commit(store, SITE, *payloads)
    assert catch_up(counting, most=5) == 12
    assert_right(database)
    assert len(kept(database, "day")) == 4


def test_late_readings_change_the_spans_they_lie_in_and_nothing_else(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    start = ms("2026-01-10T00:00:00+00:00")
    first, late, live = (
        gateway.batch({"m/power": series(start, 360)}),
        gateway.batch({"m/power": series(start + 25 * MINUTE + 5_000, 3, step=1_000)}),
        gateway.batch({"m/power": series(start + 5 * HOUR, 6)}),
    )
    commit(store, SITE, first, live)
    catch_up(counting)
    before = {table: versions(database, table) for table in TABLES}
    commit(store, SITE, late)
    assert catch_up(counting) == 1
    for table in TABLES:
        again = {
            key for key, version in versions(database, table).items() if version != before[table].get(key)
        }
        assert len(again) == 1, table
    assert_right(database)


def test_what_came_twice_or_as_a_conflict_counts_once(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    start = ms("2026-01-10T00:00:00+00:00")
    one = gateway.batch({"m/power": series(start, 60)})
    other = gateway.batch({"m/power": [(start, 77.0, 0), (start + 5_000, 5.0, 0)]})
    commit(store, SITE, one)
    catch_up(counting)
    commit(store, SITE, one, other)
    catch_up(counting)
    assert_right(database)


def test_a_day_is_the_sites_own(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    # The night in which the clocks of Paris go forward: the 29th has 23 hours.
    start = ms("2026-03-28T20:00:00+00:00")
    commit(store, SITE, gateway.batch({"m/power": series(start, 60 * 30, step=MINUTE)}))
    catch_up(counting)
    assert_right(database)
    with database.connect("energy_ingest") as connection:
        description.keep(connection, {SITE: {"timezone": "Europe/Paris"}}, datetime.now(UTC))
    assert rollup.moved_zones(counting) == [SITE]
    assert rollup.moved_zones(counting) == []
    assert_right(database, "Europe/Paris")
    days = {start: row[0] for (_, start), row in kept(database, "day").items()}
    assert days[datetime(2026, 3, 28, 23, tzinfo=UTC)] == 23 * 60
    commit(store, SITE, gateway.batch({"m/power": series(start + 30 * HOUR, 60 * 30, step=MINUTE)}))
    catch_up(counting)
    assert_right(database, "Europe/Paris")


def test_clocks_that_were_wrong_do_not_make_it_read_decades(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    batch = gateway.batch({"m/power": [*series(1_000, 5), *series(ms("2026-01-10T00:00:00+00:00"), 5)]})
    commit(store, SITE, batch)
    found = database.rows("SELECT first, last FROM touched ORDER BY first")
    assert [last - first for first, last in found] == [timedelta(seconds=40)] * 2  # type: ignore[operator]  # rows are object
    catch_up(counting)
    assert_right(database)


def test_values_beyond_any_sum_leave_the_sum_out(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    start = ms("2026-01-10T00:00:00+00:00")
    huge = [(start + n * 1_000, value, 0) for n, value in enumerate((1.5e308, 1.7e308, -1.0))]
    commit(store, SITE, gateway.batch({"m/power": [*huge, (start + MINUTE, 2.0, 0)]}))
    catch_up(counting)
    assert_right(database)
    assert [row[3] for row in kept(database, "day").values()] == [None]
    assert all(math.isfinite(row[5]) for row in kept(database, "day").values())


def test_a_step_takes_many_small_batches_and_few_large_ones(
    database: Database,
    store: Store,
    gateway: Gateway,
    counting: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = ms("2026-01-10T00:00:00+00:00")
    for number, count in enumerate((50, 1, 1, 1, 50)):
        commit(store, SITE, gateway.batch({"m/power": series(start + number * 10 * MINUTE, count)}))
    monkeypatch.setattr(rollup, "READINGS", 20)
    # The first one whatever its size; then those that begin within the bound.
    assert [rollup.step(counting) for _ in range(3)] == [1, 4, 0]
    assert_right(database)


def test_only_the_points_that_a_batch_has_are_looked_up(
    database: Database,
    store: Store,
    gateway: Gateway,
    counting: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = ms("2026-01-10T00:00:00+00:00")
    commit(store, SITE, gateway.batch({f"m/{number}": series(start, 6, seed=number) for number in range(50)}))
    catch_up(counting)
    scattered = {
        "m/7": [(start + HOUR * n, None, 129) for n in range(500)],
        "m/8": [(start + HOUR, 1.0, 0), (start + HOUR + 5, 2.0, 0)],
    }
    commit(store, SITE, gateway.batch(scattered))
    notes = database.rows("SELECT points, readings FROM touched ORDER BY first")
    numbers = dict(database.rows("SELECT name, id FROM point"))
    assert len(notes) == 500
    assert notes[0] == ([numbers["m/7"]], 1)
    assert notes[1] == ([numbers["m/7"], numbers["m/8"]], 3)
    assert database.rows("SELECT DISTINCT site FROM touched") == database.rows("SELECT id FROM site")
    looked_up: list[Any] = []
    listed = rollup._listed

    def note(connection: psycopg.Connection, spans: str, values: Mapping[str, object]) -> dict[str, object]:
        looked_up.append(values["points"])
        return listed(connection, spans, values)

    monkeypatch.setattr(rollup, "_listed", note)
    rollup.step(counting)
    # What is taken is what is looked up: a range of `reading` for each point of a note.
    taken = "SELECT sum(cardinality(points::int[])), count(*) FROM unnest(%s::text[]) AS points"
    assert counting.execute(taken, looked_up[:1]).fetchone() == (501, 500)
    assert_right(database)


def test_a_note_without_points_means_all_of_the_site(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    """As it was written before notes had any; and those of the site's points alone are read where it has some."""
    start = ms("2026-01-10T00:00:00+00:00")
    points = {name: series(start, 60) for name in ("m/a", "m/b")}
    commit(store, SITE, gateway.batch(points))
    with database.connect() as connection:
        connection.execute("UPDATE touched SET points = (SELECT array_agg(id) FROM point WHERE name = 'm/a')")
    catch_up(counting)
    assert {point for point, _ in kept(database, "minute")} == {"m/a"}
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO touched (batch, first, last) SELECT batch, min(time), max(time) FROM reading GROUP BY batch"
        )
    assert catch_up(counting) == 1
    assert_right(database)


def test_a_batch_that_is_too_much_is_worked_off_in_parts(
    database: Database,
    store: Store,
    gateway: Gateway,
    counting: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = ms("2026-01-10T00:00:00+00:00")
    commit(store, SITE, gateway.batch({"m/power": [(start + HOUR * n, 1.0 * n, 0) for n in range(100)]}))
    monkeypatch.setattr(rollup, "READINGS", 20)
    left = []
    stop = threading.Event()
    said: list[str] = []

    def notify(what: str) -> None:
        said.append(what)
        left.append(database.one("SELECT count(*) FROM touched"))
        if left[-1] == 0:
            stop.set()

    monkeypatch.setattr(rollup, "notify", notify)
    list(rollup._rounds(counting, 0.0, stop))
    assert left[:5] == [80, 60, 40, 20, 0]
    assert set(said) == {"WATCHDOG=1"}
    assert_right(database)


def test_every_site_has_its_turn(
    database: Database,
    store: Store,
    gateway: Gateway,
    counting: psycopg.Connection,
) -> None:
    start = ms("2026-01-10T00:00:00+00:00")
    commit(store, SITE, gateway.batch({"m/power": [(start + HOUR * n, 1.0 * n, 0) for n in range(1000)]}))
    other = known(store, "plant-b")
    commit(store, "plant-b", other.batch({"b/power": series(start, 6)}))
    assert rollup.step(counting, most=30) == 2
    assert {point for point, _ in kept(database, "minute")} == {"m/power", "b/power"}
    assert database.rows(
        "SELECT s.name, count(*) FROM touched t JOIN site s ON s.id = t.site GROUP BY 1"
    ) == [(SITE, 980)]
    catch_up(counting)
    assert_right(database)


def test_a_step_that_is_cut_happens_again(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    commit(store, SITE, gateway.batch({"m/power": series(ms("2026-01-10T00:00:00+00:00"), 60)}))
    with counting.transaction():
        assert rollup.step(counting) == 1
        raise psycopg.Rollback
    assert kept(database, "minute") == {}
    assert catch_up(counting) == 1
    assert_right(database)


def test_what_was_stored_before_the_rollups_came_is_counted(
    database: Database, store: Store, gateway: Gateway, counting: psycopg.Connection
) -> None:
    commit(store, SITE, gateway.batch({"m/power": series(ms("2026-01-10T00:00:00+00:00"), 60)}))
    with database.connect() as connection:
        connection.execute("TRUNCATE touched")
        connection.execute(
            "INSERT INTO touched (batch, first, last) SELECT batch, min(time), max(time) FROM reading GROUP BY batch"
        )
    catch_up(counting)
    assert_right(database)


def test_nobody_else_may_write_them(database: Database) -> None:
    for role in ("energy_ingest", "energy_read"):
        with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM rollup_day")
    with database.connect("energy_rollup") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE reading SET value = 1")


# ---- What a site's file says


def test_a_description_is_kept_with_its_date(database: Database) -> None:
    march, april = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    # A meter's date is in the file that tells it, and changes nothing in the one before.
    old = {"meters": [{"name": "main", "ct_ratio": "200:5"}]}
    new = {"meters": [{"name": "main", "ct_ratio": "250:5", "since": "2026-03-20T10:00:00Z"}]}
    with database.connect("energy_ingest") as connection:
        assert description.keep(connection, {SITE: old}, march) == [SITE]
        assert description.keep(connection, {SITE: old}, april) == []
        assert description.keep(connection, {SITE: new}, april) == [SITE]
        with pytest.raises(DescriptionError, match="plant-a: what is kept holds from 2026-04-01"):
            description.keep(connection, {SITE: old}, march)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE site_description SET content = '{}'")
    assert database.rows("SELECT since, content FROM site_description ORDER BY since") == [
        (march, old),
        (april, new),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[", "not JSON"),
        ("[]", "expected an object"),
        ('{"plant-a": 3}', "plant-a: expected the site's file"),
        ('{"plant-a": {"timezone": 1}}', "plant-a: expected the site's file"),
        (
            '{"plant-a": {"meters": [{"name": "main", "since": "2026-03-03T09:40:00"}]}}',
            "plant-a: since of the meter 'main' is '2026-03-03T09:40:00', expected a time with its offset",
        ),
    ],
)
def test_what_is_no_description_is_told(text: str, line: str) -> None:
    with pytest.raises(DescriptionError, match=line):
        description.read(text)


def test_a_zone_that_nobody_knows_is_refused_and_nothing_is_kept(database: Database) -> None:
    both = {"plant-a": {}, "plant-b": {"timezone": "Mars/Olympus"}}
    with (
        database.connect("energy_ingest") as connection,
        pytest.raises(DescriptionError, match="plant-b: timezone 'Mars/Olympus'"),
    ):
        description.keep(connection, both, datetime.now(UTC))
    assert database.rows("SELECT 1 FROM site_description") == []

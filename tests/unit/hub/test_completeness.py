# SPDX-License-Identifier: Apache-2.0
"""What was to be expected of a site over a span, held against what was put in."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from energy_hub import cli, description, rollup
from energy_hub.store import Store

from .conftest import Database
from .test_store import commit, known
from .writer import Reading

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
Ask = Callable[[float, float], dict[str, Any]]
METERS = [{"name": "press", "interval": 60}, {"name": "oven", "report": 300, "raw": ["current_l1"]}]


def every(seconds: int, since: float, until: float, *, without: float | None = None) -> list[Reading]:
    """Readings from hour to hour; a null where the hour `without` is."""
    return [
        (
            int((BEGIN + timedelta(seconds=second)).timestamp() * 1000),
            *((None, 129) if without is not None and second // 3600 == without else (5.0, 0)),
        )
        for second in range(int(3600 * since), int(3600 * until), seconds)
    ]


@pytest.fixture
def site(database: Database) -> Callable[..., None]:
    def fill(points: dict[str, list[Reading]], *files: tuple[float, list[dict[str, Any]]]) -> None:
        """`files`: from which hour on the site's file has which meters."""
        store = Store(database.conninfo("energy_ingest"))
        commit(store, "plant-a", known(store, "plant-a").batch(points))
        store.close()
        with database.connect() as connection:
            connection.execute("UPDATE site SET first_seen = %s", (BEGIN,))
        with database.connect("energy_ingest") as connection:
            for hour, meters in files:
                content = {"interval": 10, "meters": meters}
                description.keep(connection, {"plant-a": content}, BEGIN + timedelta(hours=hour))
        with database.connect("energy_rollup") as connection:
            while rollup.step(connection):
                pass

    return fill


@pytest.fixture
def ask(database: Database, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(since: float, until: float) -> dict[str, Any]:
        command = ["completeness", "--database", database.conninfo("energy_read"), "--json"]
        for name, hour in (("--since", since), ("--until", until)):
            command += [name, (BEGIN + timedelta(hours=hour)).isoformat()]
        assert cli.main(command) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["sites"]
        return found

    return ask


def figures(points: int, expected: int, received: int, missing: int, null: int) -> dict[str, int]:
    return {
        "points": points,
        "expected": expected,
        "received": received,
        "missing": missing,
        "null": null,
    }


def test_every_point_counts_by_its_own_interval(site: Callable[..., None], ask: Ask) -> None:
    """A point that is silent shows beside one that is not; what has no interval is not expected."""
    site(
        {
            "press/active_power": every(60, 0, 4, without=1),
            "press/energy_import": every(60, 0, 2),
            "press/voltage_event_l1": every(7200, 0, 4),
            "oven/active_power_mean": every(300, 0, 4),
            "oven/active_power": every(10, 0, 1),
            "oven/energy_import": every(300, 0, 4),
            "oven/current_l1": every(10, 0, 4),
            "oven/current_l1_mean": every(300, 0, 3),
            "cellar/temperature": every(60, 0, 4),
        },
        (0, METERS),
    )
    found = ask(1, 4)["plant-a"]
    # The first hour in which a point was heard of is no whole one, so nothing is expected of it before 1.
    press = figures(2, 360, 240, 120, 60)
    oven = figures(4, 36 + 36 + 1080 + 36, 36 + 36 + 1080 + 24, 12, 0)
    assert found.pop("meters") == {"press": press, "oven": oven}
    assert found == {name: press[name] + oven[name] for name in press}


def test_each_file_holds_for_its_own_time_and_half_hours_for_none(
    site: Callable[..., None], ask: Ask
) -> None:
    site(
        {
            "press/active_power": [*every(60, 0, 3.5), *every(600, 3.5, 8)],
            "press/frequency": every(60, 0, 3.5),
        },
        (0, [{"name": "press", "interval": 60}]),
        (3.5, [{"name": "press", "interval": 600, "points": ["active_power"]}]),
    )
    # From 1 to 3 by the first file, from 4 to 7 by the second; what both hours at the ends have is left out.
    assert ask(0.5, 7.5)["plant-a"]["meters"] == {"press": figures(2, 258, 258, 0, 0)}
    assert ask(3.2, 3.9) == {}


def test_what_was_not_added_up_or_not_heard_of_yet_is_not_missing(
    site: Callable[..., None], ask: Ask, database: Database
) -> None:
    site({"press/active_power": every(60, 2.5, 6), "press/frequency": every(60, 4.2, 6)}, (0, METERS[:1]))
    found = ask(0, 6)["plant-a"]["meters"]["press"]
    assert found == figures(2, 180 + 60, 180 + 60, 0, 0)
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO touched (site, batch, first, last) SELECT site, id, %s, %s FROM batch",
            (BEGIN, BEGIN),
        )
        connection.execute("UPDATE batch SET received = %s", (BEGIN + timedelta(hours=5.5),))
    assert ask(0, 6)["plant-a"]["meters"]["press"] == figures(2, 120, 120, 0, 0)


def test_people_get_a_table(
    site: Callable[..., None], database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    site({"press/active_power": every(60, 0, 3)}, (0, METERS[:1]))
    command = ["completeness", "--database", database.conninfo("energy_read"), "--site", "plant-a"]
    command += ["--since", BEGIN.isoformat(), "--until", (BEGIN + timedelta(hours=4)).isoformat()]
    assert cli.main(command) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["plant-a", meter, "1", "180", "120", "60", "0", "66.67", "%"] for meter in ("all", "press")
    ]

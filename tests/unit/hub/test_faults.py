# SPDX-License-Identifier: Apache-2.0
"""service.log has the documents' words: of databases that are away, of meters without values, of lines with noise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from energy_hub import cli, faults, logs, rollup
from energy_hub.commands import tools
from energy_hub.logs import Throttle
from energy_hub.store import Store

from .conftest import Database, Shards
from .test_store import commit, known
from .writer import Gateway, Reading

AWAY = "host=/nonexistent dbname=energy"
SITE = "plant-a"
START, MINUTE, HOUR = 1_768_003_200_000, 60_000, 3_600_000  # 2026-01-10T00:00Z, ms


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "checkpoint.key"
    assert cli.main(["checkpoint-key", "--key", str(path)]) == tools.OK
    return str(path)


@pytest.fixture
def gateway(store: Store) -> Gateway:
    return known(store, SITE)


@pytest.fixture
def told(database: Database, log: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Counts what waits, and gives the lines of errors that service.log has got by that, without their times."""
    monkeypatch.setattr(faults, "_told", Throttle(faults.PERIOD))
    logs.set_up(log, for_journal=False)
    with database.connect("energy_rollup") as connection:

        def count() -> list[str]:
            read = len(log.read_text().splitlines())
            while rollup.step(connection):
                pass
            lines = log.read_text().splitlines()[read:]
            return [line.partition("Z ERR ")[2] for line in lines if "Z ERR " in line]

        yield count


# ---- Databases that are away


def test_rollups_say_of_a_database_that_is_away_what_ingest_says(log: Path) -> None:
    class Once(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == rollup.RETRY
            self.set()
            return True

    logs.set_up(log, for_journal=False)
    rollup.follow(AWAY, 10.0, Once())
    assert "ERR CONNECTION_REFUSED database: " in log.read_text()
    assert log.read_text().endswith("; retrying, nothing is lost\n")


@pytest.mark.parametrize("command", ["rollup", "checkpoint"])
def test_a_command_that_ends_without_its_database_says_so_in_its_log(
    command: str, key: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--once"] if command == "rollup" else ["--key", key]
    assert cli.main([command, "--database", AWAY, "--log", str(log), *options]) == tools.FAILED
    text = "ERR CONNECTION_REFUSED database: "
    assert text in log.read_text()
    assert capsys.readouterr().err.startswith(f"energy-hub: {text}")


def test_a_checkpoint_goes_on_without_one_of_several_and_says_so(
    shards: Shards, key: str, log: Path, tmp_path: Path
) -> None:
    config = tmp_path / "ingest.yaml"
    settings = shards.config()
    places = settings["databases"]
    assert isinstance(places, dict)
    config.write_text(
        yaml.safe_dump({"databases": places | {"south": AWAY}, "directory": settings["directory"]})
    )
    arguments = ["checkpoint", "--config", str(config), "--key", key, "--log", str(log)]
    assert cli.main(arguments) == tools.FAILED
    assert "ERR CONNECTION_REFUSED database: south: " in log.read_text()
    assert "checkpoint 1: " in log.read_text()


# ---- Meters and buses


def nulls(start: int, quality: int, count: int = 6) -> list[Reading]:
    return [(start + 10_000 * number, None, quality) for number in range(count)]


def counter(start: int, *values: float) -> list[Reading]:
    return [(start + MINUTE * number, value, 0) for number, value in enumerate(values)]


def test_a_meter_without_values_is_one_line(
    store: Store, gateway: Gateway, told: Callable[[], list[str]]
) -> None:
    points = {f"main/p{number}": nulls(START, 129) for number in range(5)}
    commit(store, SITE, gateway.batch(points | {"pv/p": counter(START, 1.5)}))
    assert told() == [
        (
            "ERR REGISTER_READ_FAILURE: site plant-a meter main: no value at 2026-01-10T00:00:50Z (bad_no_answer);"
            " check the meter's power, its unit id and the wiring, or the way of its radio"
        )
    ]
    # As long as it lasts; another meter has a line of its own.
    commit(
        store,
        SITE,
        gateway.batch({"main/p0": nulls(START + MINUTE, 129), "pv/p": nulls(START + MINUTE, 130)}),
    )
    assert [line.split(";")[0] for line in told()] == [
        "ERR REGISTER_READ_FAILURE: site plant-a meter pv: no value at 2026-01-10T00:01:50Z (bad_device_failure)"
    ]


def test_a_sensor_that_is_not_there_hides_no_meter(
    store: Store, gateway: Gateway, told: Callable[[], list[str]]
) -> None:
    commit(store, SITE, gateway.batch({"main/a": nulls(START, 133), "main/b": counter(START, 1.5)}))
    assert told() == []
    later = START + HOUR
    commit(store, SITE, gateway.batch({"main/a": nulls(later, 133), "main/b": nulls(later, 130)}))
    assert len(told()) == 1


def test_what_a_gateway_says_of_itself_is_no_register(
    store: Store, gateway: Gateway, told: Callable[[], list[str]]
) -> None:
    commit(store, SITE, gateway.batch({"hwmon/acpitz-temp1": nulls(START, 129), "main/p": counter(START, 1)}))
    assert told() == []


def test_noise_on_a_line_is_told_by_how_much_it_grew(
    store: Store, gateway: Gateway, told: Callable[[], list[str]]
) -> None:
    def deliver(start: int, *values: float) -> list[str]:
        points = {"buses/hall-crc_errors": counter(start, *values), "main/energy": counter(start, 7.0)}
        commit(store, SITE, gateway.batch(points))
        return told()

    assert deliver(START, 0, 0, 0) == []
    # The first of these minutes is held against what was counted before.
    assert deliver(START + 3 * MINUTE, 2, 2, 5) == [
        (
            "ERR CRC Error: site plant-a bus hall: 5 more by 2026-01-10T00:05:00Z;"
            " check shielding, termination and earthing of its line"
        )
    ]
    assert deliver(START + 6 * MINUTE, 6) == []  # within the hour


def test_errors_of_before_are_no_news(store: Store, gateway: Gateway, told: Callable[[], list[str]]) -> None:
    """A counter that stands still, one that is new here, and one that began again."""
    lines = []
    for number, values in enumerate(((5, 5), (5,), (5, 5))):
        points = {"buses/hall-crc_errors": counter(START + 2 * number * MINUTE, *values)}
        commit(store, SITE, gateway.batch(points))
        lines += told()
    assert lines == []
    commit(store, SITE, gateway.batch({"buses/hall-crc_errors": counter(START + 6 * MINUTE, 2)}))
    assert [line.partition(": 2 more")[1] for line in told()] == [": 2 more"]

# SPDX-License-Identifier: Apache-2.0
"""How sites fared, asked of a real database as the role that only reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from energy_collector.config import SOURCES
from energy_hub import cli
from energy_hub.commands import tools
from energy_hub.health import OWN_SOURCES, Delivered, by_bus, complete_until, watermark

from .conftest import Database
from .delivery import Fleet
from .writer import Reading

START = 1_767_225_600_000
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
GOOD, UNCERTAIN, TIMEOUT, CRC = 0, 65, 129, 131


def polls(first: int, count: int, quality: int = GOOD, seconds: int = 10) -> list[Reading]:
    value = None if quality >= 128 else 1.0
    return [(START + (first + number) * seconds * 1000, value, quality) for number in range(count)]


def ask(database: Database, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    command = ["health", "--database", database.conninfo("energy_read"), "--json"]
    if "--since" not in arguments:
        arguments = ("--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T00:15:00Z", *arguments)
    assert cli.main([*command, *arguments]) == tools.OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_hub_knows_all_that_gateways_tell_of_themselves() -> None:
    assert set(OWN_SOURCES) == set(SOURCES)


def after(seconds: float) -> str:
    return (SINCE + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_figures_by_meter(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.deliver(
        "plant-a",
        {
            "main/active_power": polls(0, 90),
            "main/voltage_l1": polls(0, 80) + polls(80, 10, TIMEOUT),
            "pv/active_power": polls(0, 30, CRC) + polls(30, 60, UNCERTAIN),
            "host/load": polls(0, 15, seconds=60),
        },
    )
    # Neither the span before nor the one after, nor another site's.
    fleet.deliver("plant-a", {"main/active_power": polls(-5, 5), "pv/active_power": polls(90, 5)})
    fleet.deliver("plant-b", {"main/active_power": polls(0, 3)})
    found = ask(fleet.database, capsys, "--site", "plant-a", "--site", "nobody")
    assert found["unknown"] == ["nobody"]
    assert list(found["sites"]) == ["plant-a"]
    site = found["sites"]["plant-a"]
    main, pv = site["meters"]["main"], site["meters"]["pv"]
    assert set(site["meters"]) == {"main", "pv"}
    wanted = ("points", "polls", "answered", "readings", "nulls", "uncertain", "quality")
    assert [main[name] for name in wanted] == [2, 90, 90, 180, 10, 0, {"0": 170, "129": 10}]
    assert [pv[name] for name in wanted] == [1, 90, 60, 90, 30, 60, {"65": 60, "131": 30}]
    assert site["sources"]["host"]["polls"] == 15
    assert (site["batches"], site["chain"]) == (1, "ok")
    assert ask(fleet.database, capsys)["sites"]["plant-b"]["meters"]["main"]["polls"] == 3


def test_meters_that_report_by_radio_stand_apart(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """They report when they like to: a gate that counts on them would take a quiet day for a fault."""
    fleet.deliver("plant-a", {"main/active_power": polls(0, 90), "plug/active_power": polls(0, 2)})
    content = {"meters": [{"name": "main", "bus": "hall"}, {"name": "plug", "radio": "air"}]}
    with fleet.database.connect("energy_ingest") as connection:
        for since, meters in ((SINCE, content), (SINCE + timedelta(hours=1), {})):
            connection.execute(
                "INSERT INTO site_description (site, since, digest, content) VALUES ('plant-a', %s, sha256(%s), %s)",
                (since, since.isoformat().encode(), json.dumps(meters)),
            )
    site = ask(fleet.database, capsys)["sites"]["plant-a"]
    assert (list(site["meters"]), list(site["sources"])) == (["main"], ["plug"])


def test_a_span_of_its_own(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    for site in ("plant-a", "plant-b"):
        fleet.deliver(site, {"main/active_power": polls(0, 90)})
    own = f"plant-a@{after(0)}/{after(100)}"
    sites = ask(fleet.database, capsys, "--site", own, "--site", "plant-b")["sites"]
    assert [sites[name]["meters"]["main"]["polls"] for name in ("plant-a", "plant-b")] == [10, 90]
    assert (sites["plant-a"]["since"], sites["plant-a"]["until"]) == (after(0), after(100))


def test_a_site_that_stops_measuring(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The gateway itself goes on: what it says of itself proves that nothing of the meters is under way."""
    fleet.deliver("plant-a", {"main/active_power": polls(0, 20), "host/load": polls(0, 3, seconds=60)})
    fleet.deliver("plant-a", {"host/load": polls(3, 12, seconds=60)})
    site = ask(fleet.database, capsys)["sites"]["plant-a"]
    assert site["meters"]["main"]["polls"] == 20
    assert site["complete_until"] == after(14 * 60)


def test_a_site_that_measures_nothing_at_all_tells_so_with_its_status(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.deliver("plant-a", {"main/active_power": polls(0, 20)})
    stream = fleet.gateways["plant-a"].stream.hex()
    status = {"time": after(600), "stream": stream, "first": 2, "sequence": 1, "buffer": {"readings": 0}}
    fleet.store.set_status("plant-a", "online", {**status, "version": "0.4.0"}, seen=True)
    site = ask(fleet.database, capsys)["sites"]["plant-a"]
    assert (site["complete_until"], site["newest_reading"]) == (after(600), after(190))
    assert (site["state"], site["status"]["version"]) == ("online", "0.4.0")
    # With readings that wait, nothing is known beyond what is here.
    fleet.store.set_status("plant-a", "online", {**status, "buffer": {"readings": 7}}, seen=True)
    assert ask(fleet.database, capsys)["sites"]["plant-a"]["complete_until"] == after(190)


def test_a_site_that_delivers_late(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """New batches overtake a backlog: what is between is not missing, it is not here yet."""
    first, second, third = (
        fleet.seal("plant-a", {"main/active_power": polls(begin, 30)}) for begin in (0, 30, 60)
    )
    fleet.commit("plant-a", first, third)
    site = ask(fleet.database, capsys)["sites"]["plant-a"]
    assert site["complete_until"] == after(290)
    assert (site["newest_reading"], site["meters"]["main"]["polls"]) == (after(890), 60)
    assert site["chain"] == "pending"
    fleet.commit("plant-a", second)
    site = ask(fleet.database, capsys)["sites"]["plant-a"]
    assert (site["complete_until"], site["meters"]["main"]["polls"], site["chain"]) == (after(890), 90, "ok")


def test_delays(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.deliver("plant-a", {"main/active_power": polls(0, 50)})
    fleet.deliver("plant-a", {"main/active_power": polls(50, 50, seconds=10)})
    with fleet.database.connect() as owner:
        owner.execute("UPDATE batch SET received = %s WHERE sequence = 1", (SINCE + timedelta(seconds=492),))
        owner.execute("UPDATE batch SET received = %s WHERE sequence = 2", (SINCE + timedelta(seconds=993),))
    found = ask(fleet.database, capsys, "--since", after(0), "--until", after(1000))["sites"]["plant-a"]
    assert found["delay"] == {"least": 2.0, "p50": 243.0, "p99": 492.0}
    assert found["meters"]["main"]["least_delay"] == 2.0


def test_errors_of_the_buses(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    def counted(first: int, values: Sequence[float]) -> list[Reading]:
        return [(START + (first + at) * 60_000, value, GOOD) for at, value in enumerate(values)]

    fleet.deliver(
        "plant-a",
        {
            # The value from before the span is where counting begins; then the service starts anew.
            "buses/hall-1-requests": counted(-1, [1000, 1100, 1200, 40, 140]),
            "buses/hall-1-crc_errors": counted(-1, [5, 5, 9, 0, 2]),
            "buses/roof-requests": counted(0, [70, 80]),
        },
    )
    assert ask(fleet.database, capsys)["sites"]["plant-a"]["buses"] == {
        "hall-1": {"requests": 340, "crc_errors": 6},
        "roof": {"requests": 10},
    }


def test_a_site_without_readings(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    site = ask(fleet.database, capsys)["sites"]["plant-b"]
    assert (site["meters"], site["buses"], site["batches"], site["complete_until"]) == ({}, {}, 0, None)
    assert site["delay"] == {"least": None, "p50": None, "p99": None}


def test_a_table_and_wrong_spans(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.deliver("plant-a", {"main/active_power": polls(0, 5)})
    command = ["health", "--database", fleet.database.conninfo("energy_read")]
    span = ["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T01:00:00Z"]
    assert cli.main([*command, *span, "--site", "plant-a"]) == tools.OK
    assert capsys.readouterr().out.splitlines()[1].split() == ["plant-a", "main", "5", "5", "5", "0", "0"]
    assert cli.main([*command, *span, "--site", "nobody"]) == tools.FAILED
    assert "nobody: the hub has never heard of it" in capsys.readouterr().err
    assert cli.main([*command, *span, "--site", "plant-a@yesterday"]) == tools.USAGE
    assert "expected a site, or a site and its span" in capsys.readouterr().err
    assert cli.main([*command, "--since", span[3], "--until", span[1]]) == tools.USAGE
    assert "expected one that ends later" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("committed", "first", "expected"),
    [
        ([(1, 5)], None, 5),
        ([(1, 5), (7, 9)], None, 5),
        ([(1, 5), (7, 9)], 7, 9),  # 6 was dropped at the buffer's bounds
        ([(1, 5), (7, 9), (11, 12)], 7, 9),
        ([(3, 5)], None, 0),  # 1 and 2 may be on their way
        ([(3, 5)], 6, 5),
    ],
)
def test_watermark(committed: list[tuple[int, int]], first: int | None, expected: int) -> None:
    assert watermark(committed, first) == expected


def test_a_status_that_cannot_be_read_proves_nothing() -> None:
    delivered = Delivered(b"\1" * 8, 5, 5)
    status = {"stream": "01" * 8, "sequence": 5, "buffer": {"readings": 0}, "time": "soon"}
    assert complete_until(delivered, status, None, None) is None
    assert complete_until(None, status, None, SINCE) is None
    assert complete_until(delivered, {**status, "time": after(9)}, None, None) == SINCE + timedelta(seconds=9)
    for change in ({"sequence": 6}, {"stream": "02" * 8}, {"buffer": None}, {"buffer": {"readings": 1}}):
        assert complete_until(delivered, {**status, "time": after(9), **change}, None, None) is None


def test_growth_of_counters() -> None:
    assert by_bus([]) == {}
    assert by_bus([("a-b-requests", 5.0), ("a-b-requests", 8.0), ("a-b-requests", 2.0)]) == {
        "a-b": {"requests": 5}
    }


def test_a_gap_after_the_span_does_not_concern_it(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    points = [{"main/active_power": polls(begin, 30)} for begin in (0, 30, 60, 90)]
    batches = [fleet.seal("plant-a", one) for one in points]
    fleet.commit("plant-a", batches[0], batches[1], batches[3])
    found = ask(fleet.database, capsys, "--since", after(0), "--until", after(300))["sites"]["plant-a"]
    assert found["complete_until"] == after(590)
    found = ask(fleet.database, capsys, "--since", after(0), "--until", after(800))["sites"]["plant-a"]
    assert found["complete_until"] == after(590)

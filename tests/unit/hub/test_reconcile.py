# SPDX-License-Identifier: Apache-2.0
"""Whether the balance of a site finds what is wrong with which meter. Each case is one fault in a healthy site."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from energy_hub import cli, description, rollup
from energy_hub.causes.fit import Meter
from energy_hub.reconcile import Verdict, reconcile
from energy_hub.store import Store

from .conftest import Database
from .test_store import commit, known

START = datetime(2026, 3, 1, tzinfo=UTC)
QUARTERS = [START + timedelta(minutes=15 * number) for number in range(4 * 96)]

Power = dict[datetime, float]


def shape(base: float, swing: float, seed: int, night: float = 1.0) -> Power:
    """A load in W: a day's curve with noise of its own."""
    noise = random.Random(seed)
    return {
        at: (base + swing * max(0.0, math.sin((at.hour - 6) / 12 * math.pi)) * night)
        * noise.uniform(0.8, 1.2)
        for at in QUARTERS
    }


def healthy() -> dict[str, Meter]:
    press = shape(4_000, 30_000, 1)
    hvac = shape(8_000, 6_000, 2)
    roof = {at: -power for at, power in shape(0, 15_000, 3).items()}
    noise = random.Random(9)
    main = {at: (press[at] + hvac[at] + roof[at]) * noise.uniform(0.997, 1.003) for at in QUARTERS}
    return {
        "main": Meter("main", "main", main, "400:5"),
        "press": Meter("press", "consumption", press, "200:5", phases={
            f"l{n}": {at: power / 3 for at, power in press.items()} for n in (1, 2, 3)
        }),
        "hvac": Meter("hvac", "consumption", hvac, "100:5"),
        "roof": Meter("roof", "generation", roof),
    }  # fmt: skip


def times(power: Mapping[datetime, float], factor: float) -> Power:
    return {at: factor * one for at, one in power.items()}


def scaled(meter: Meter, factor: float) -> Meter:
    phases, reactive = (
        None if by is None else {name: times(one, factor) for name, one in by.items()}
        for by in (meter.phases, meter.reactive)
    )
    return dataclasses.replace(meter, power=times(meter.power, factor), phases=phases, reactive=reactive)


def verdict(change: Callable[[dict[str, Meter]], None]) -> Verdict:
    meters = healthy()
    change(meters)
    return reconcile(list(meters.values()))


def test_a_healthy_site_agrees() -> None:
    found = reconcile(list(healthy().values()))
    assert (found.state, found.quarters, found.causes) == ("agrees", 384, ())
    assert found.share is not None
    assert found.share < 0.005
    assert found.supply == pytest.approx(found.parts + found.residual)


def wrong_ratio(meters: dict[str, Meter]) -> None:
    meters["press"] = scaled(meters["press"], 200 / 250)


def wrong_secondary(meters: dict[str, Meter]) -> None:
    meters["press"] = scaled(meters["press"], 1 / 5)


def wrong_both(meters: dict[str, Meter]) -> None:
    """From 100:1 no other figure alone leads to 600:5."""
    meters["hvac"] = dataclasses.replace(scaled(meters["hvac"], 100 / 120), ct_ratio="100:1")


def secondary_the_other_way(meters: dict[str, Meter]) -> None:
    meters["press"] = dataclasses.replace(scaled(meters["press"], 5), ct_ratio="200:1")


def odd_scale(meters: dict[str, Meter]) -> None:
    meters["hvac"] = scaled(meters["hvac"], 1 / 10)


def scale_of_a_thousand(meters: dict[str, Meter]) -> None:
    meters["hvac"] = scaled(meters["hvac"], 1000)


def third_without_phases(meters: dict[str, Meter]) -> None:
    meters["hvac"] = scaled(meters["hvac"], 1 / 3)


def third_of_every_phase(meters: dict[str, Meter]) -> None:
    meters["press"] = scaled(meters["press"], 1 / 3)


def counted_twice(meters: dict[str, Meter]) -> None:
    meters["drive"] = dataclasses.replace(meters["press"], name="drive")
    meters["press"] = dataclasses.replace(meters["press"], power=shape(9_000, 9_000, 12))
    main = meters["main"].power
    meters["main"] = dataclasses.replace(
        meters["main"],
        power={at: p + meters["press"].power[at] - meters["drive"].power[at] for at, p in main.items()},
    )


def wrong_way(meters: dict[str, Meter]) -> None:
    meters["roof"] = scaled(meters["roof"], -1)


def turned_phase(meters: dict[str, Meter]) -> None:
    press = meters["press"]
    assert press.phases is not None
    phases = dict(press.phases) | {"l2": times(press.phases["l2"], -1)}
    meters["press"] = dataclasses.replace(press, power=times(press.power, 1 / 3), phases=phases)


def lost_phase(meters: dict[str, Meter]) -> None:
    press = meters["press"]
    assert press.phases is not None
    phases = dict(press.phases) | {"l3": dict.fromkeys(QUARTERS, 0.0)}
    meters["press"] = dataclasses.replace(press, power=times(press.power, 2 / 3), phases=phases)


def unmetered_constant(meters: dict[str, Meter]) -> None:
    main = meters["main"]
    meters["main"] = dataclasses.replace(main, power={at: power + 5_000 for at, power in main.power.items()})


def unmetered_varying(meters: dict[str, Meter]) -> None:
    heater = random.Random(5)
    main = meters["main"]
    meters["main"] = dataclasses.replace(
        main, power={at: power + heater.choice((0, 0, 18_000)) for at, power in main.power.items()}
    )


def unmetered_source(meters: dict[str, Meter]) -> None:
    del meters["roof"]


def wrong_supply(meters: dict[str, Meter]) -> None:
    meters["main"] = scaled(meters["main"], 400 / 500)


def ratio_and_load(meters: dict[str, Meter]) -> None:
    wrong_ratio(meters)
    unmetered_constant(meters)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_ratio, ["press shows 80 % of what it should: likely its CT ratio is 250:5 and not 200:5"]),
        (
            wrong_secondary,
            ["press shows 20 % of what it should: likely its CT ratio is 200:1 or 1000:5 and not 200:5"],
        ),
        (
            secondary_the_other_way,
            ["press shows 500 % of what it should: likely its CT ratio is 200:5 or 40:1 and not 200:1"],
        ),
        (wrong_both, ["hvac shows 83 % of what it should: likely its CT ratio is 600:5 and not 100:1"]),
        (
            odd_scale,
            [
                (
                    "hvac shows 10 % of what it should: likely its CT ratio is 1000:5 and not 100:5,"
                    " or its scale is 10 times too small"
                )
            ],
        ),
        (
            scale_of_a_thousand,
            ["hvac shows 100", " % of what it should: likely its scale is 1000 times too large"],
        ),
        (
            third_without_phases,
            [
                (
                    "hvac shows 33 % of what it should: likely one phase's current transformer is turned round,"
                    " or its CT ratio is 300:5 and not 100:5"
                )
            ],
        ),
        (
            third_of_every_phase,
            ["press shows 33 % of what it should: likely its CT ratio is 600:5 and not 200:5"],
        ),
        (
            counted_twice,
            ["drive counts what another meter counts, too, or what is not behind the supply's meter"],
        ),
        (
            wrong_way,
            ["roof counts the wrong way: likely its current transformers are turned round, or its sign is"],
        ),
        (turned_phase, ["press shows 33 %", "transformer of l2 is turned round"]),
        (lost_phase, ["press shows 67 %", "likely l3 is not measured"]),
        (unmetered_constant, ["a load constant, of 5.00 kW in the mean, has no meter"]),
        (unmetered_varying, ["a load without a meter that varies, 5.7"]),
        (unmetered_source, ["a source without a meter that varies"]),
        (wrong_supply, ["main shows 80 % of what it should: likely its CT ratio is 500:5 and not 400:5"]),
        (ratio_and_load, ["press shows", "250:5", "besides, a load constant, of 5."]),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_the_cause_is_named(change: Callable[[dict[str, Meter]], None], said: list[str]) -> None:
    found = verdict(change)
    assert found.state == "differs"
    # Nobody is sent to a meter while something else may be the cause.
    assert found.meter == (said[0].split()[0] if len(said) < 3 and not said[0].startswith("a ") else None)
    text = "; ".join(found.causes)
    for words in said:
        assert words in text
    assert "or else" not in text


def test_two_meters_alone_cannot_tell_which_of_them_is_wrong() -> None:
    power = shape(4_000, 30_000, 1)
    found = reconcile([Meter("main", "main", power), scaled(Meter("hall", "consumption", power), 0.5)])
    assert len(found.causes) == 2
    assert {cause.removeprefix("or else: ").split()[0] for cause in found.causes} == {"main", "hall"}


def test_quarters_that_a_meter_missed_do_not_count() -> None:
    meters = healthy()
    hole = set(QUARTERS[10:60])
    hvac = meters["hvac"]
    meters["hvac"] = dataclasses.replace(
        hvac, power={at: p for at, p in hvac.power.items() if at not in hole}
    )
    found = reconcile(list(meters.values()))
    assert (found.state, found.quarters) == ("agrees", 384 - 50)


def test_too_little_is_no_verdict() -> None:
    meters = healthy()
    short = dataclasses.replace(meters["hvac"], power=dict.fromkeys(QUARTERS[:10], 1.0))
    found = reconcile([meters["main"], short])
    assert (found.state, found.causes) == (
        "unknown", ("all meters have measured in 10 quarters of an hour, and 24 are needed: hvac has 10",),
    )  # fmt: skip
    assert reconcile([meters["hvac"]]).causes == ("the site has no meter of the supply (role main)",)
    assert reconcile([meters["main"]]).causes == ("the site has no meter beside the supply's",)


def test_meters_that_show_nothing_are_no_fault_of_the_supplys() -> None:
    power = shape(4_000, 30_000, 1)
    dead = Meter("hall", "consumption", dict.fromkeys(QUARTERS, 0.0))
    found = reconcile([Meter("main", "main", power), dead])
    assert [one.split()[0] for one in found.causes] == ["a", "or"]
    assert "hall shows next to nothing" in found.causes[1]


# ---- From the database


@pytest.mark.parametrize("suffix", ["", "_mean"], ids=["samples", "statistics"])
def test_the_command_answers_from_what_the_hub_has(
    database: Database, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    store = Store(database.conninfo("energy_ingest"))
    gateway = known(store, "plant-a")
    meters = healthy()
    turned_phase(meters)
    powers = {name: meter.power for name, meter in meters.items()}
    powers |= {f"press_{name}": power for name, power in (meters["press"].phases or {}).items()}
    points = {
        f"{name.partition('_')[0]}/active_power{name[5:] if '_' in name else ''}{suffix}": [
            (int(at.timestamp() * 1000), power, 0) for at, power in one.items()
        ]
        for name, one in powers.items()
    }
    if suffix:
        # From before statistics were asked for.
        points["main/active_power"] = [(int(at.timestamp() * 1000), 1.0, 0) for at in QUARTERS]
    commit(store, "plant-a", gateway.batch(points))
    store.close()
    more = {"report": 900} if suffix else {}
    site = {
        "meters": [{"name": m.name, "role": m.role, "ct_ratio": m.ct_ratio, **more} for m in meters.values()]
    }
    with database.connect("energy_ingest") as connection:
        description.keep(connection, {"plant-a": site}, START + timedelta(days=1))
    with database.connect("energy_rollup") as connection:
        while rollup.step(connection):
            pass
    command = ["reconcile", "--database", database.conninfo("energy_read"), "--since", START.isoformat()]
    command += ["--until", (START + timedelta(days=4)).isoformat()]
    assert cli.main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["sites"]["plant-a"]
    # What the file has said holds for three of the four days.
    assert (found["state"], found["quarters"]) == ("differs", 3 * 96)
    (cause,) = found["causes"]
    assert cause.startswith(
        "press shows 33 % of what it should: likely the current transformer of l2 is turned"
    )
    assert found["meter"] == "press"
    assert cli.main(command) == 1
    assert "plant-a" in capsys.readouterr().out
    assert cli.main([*command, "--limit", "0.9"]) == 0

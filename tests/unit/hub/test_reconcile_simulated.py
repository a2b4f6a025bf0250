# SPDX-License-Identifier: Apache-2.0
"""Whether the balance of a simulated site finds what is wrong: from the registers of the lab's meters, read as a
collector reads them, through the store and the rollups, to the command's verdict and to that of the glance."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from energy_collector import profiles
from energy_collector.config import MeterConfig
from energy_collector.meters.registers import Unpacker
from energy_collector.meters.values import Conversion
from energy_hub import cli, description, rollup
from energy_hub.causes import wiring
from energy_hub.fleet.document import document
from energy_hub.store import Store
from wattfleet_lab.meters import models
from wattfleet_lab.meters.description import Unit, parse
from wattfleet_lab.meters.site import PHASES, Site, Values

from .conftest import Database
from .test_store import commit, known
from .test_wiring import ONE_TURNED, PAIR, RIGHT, Wires
from .writer import Reading

DAY = datetime(2026, 7, 11, tzinfo=UTC)
STEP = timedelta(minutes=5)
# The role of each meter, its model, and the ratio of its current transformers, which it does not know itself.
DEVICES = {
    "main": ("main", "eastron-sdm630", "1000:5"),
    "hall": ("consumption", "carlo-gavazzi-em24", "400:5"),
    "press": ("consumption", "eastron-sdm630", "250:5"),
    "roof": ("generation", "eastron-sdm630", "400:5"),
}


def plant() -> Site:
    units = [
        {"unit": number, "model": model, "name": name, "role": role, "options": {"ct_ratio": ratio}}
        for number, (name, (role, model, ratio)) in enumerate(DEVICES.items(), 1)
    ]
    line = {"address": "127.0.0.1", "port": 0, "framing": "tcp", "units": units}
    site = {
        "site": "plant-a",
        "seed": 7,
        "timezone": "Europe/Paris",
        "mean_power": 60_000,
        "listeners": [line],
    }
    found = parse({"epoch": "2026-07-01T00:00:00Z", "sites": [site]})
    return Site(found.sites[0], found.epoch)


def wired(values: Values, wires: Wires) -> Values:
    """The same load, as elements see it that have other currents than their own."""
    found = dict(values)
    load = [complex(values[f"active_power_{one}"], values[f"reactive_power_{one}"]) for one in PHASES]
    shown = wires.shown(load)
    for phase, power in zip(PHASES, shown, strict=True):
        found |= {f"active_power_{phase}": power.real, f"reactive_power_{phase}": power.imag}
    return found | {"active_power": sum(shown).real, "reactive_power": sum(shown).imag}


def collector_of(unit: Unit, ratio: str) -> Callable[[Values], dict[str, float]]:
    """Takes what is measured into the device's registers, and out of them by its profile and the file's CT ratio."""
    device = models.make(unit)
    profile = profiles.load(unit.model)
    points = [one for one in profile.points if one.name.startswith(("active_power", "reactive_power"))]
    primary, secondary = map(float, ratio.split(":"))
    config = MeterConfig(
        unit.name, "line", unit.unit, unit.model, 300.0, unit.role, ct_ratio=primary / secondary
    )
    convert = Conversion(points, config, profile)

    def collected(values: Values) -> dict[str, float]:
        image = device.image(values)
        numbers: list[float] = []
        for one in points:
            registers = image.read(one.address, one.size)
            answer = bytes([one.function, len(registers)]) + registers
            numbers += Unpacker([one.field], one.address)(answer)
        found, doubts = convert(numbers)
        assert not doubts
        return {one.name: value for one, value in zip(points, found, strict=True)}

    return collected


@pytest.mark.parametrize(
    ("ratios", "wires", "cause"),
    [
        ({}, RIGHT, None),
        (
            {"press": "200:5"},
            RIGHT,
            "press shows 80 % of what it should: likely its CT ratio is 250:5 and not 200:5",
        ),
        (
            {"press": "250:1"},
            RIGHT,
            "press shows 500 % of what it should: likely its CT ratio is 250:5 or 50:1 and not 250:1",
        ),
        ({}, PAIR, wiring.exchanged("l3")),
        (
            {},
            ONE_TURNED,
            "press shows 33 % of what it should: likely the current transformer of l2 is turned round",
        ),
    ],
    ids=["right", "ratio", "secondary", "pair", "turned"],
)
def test_the_cause_is_found(
    database: Database,
    capsys: pytest.CaptureFixture[str],
    ratios: dict[str, str],
    wires: Wires,
    cause: str | None,
) -> None:
    site = plant()
    told = {name: ratios.get(name, ratio) for name, (_, _, ratio) in DEVICES.items()}
    collectors = {name: collector_of(unit, told[name]) for name, unit in site.units.items()}
    points: dict[str, list[Reading]] = {}
    for number in range(timedelta(days=1) // STEP):
        at = (DAY + number * STEP).timestamp()
        for name, collect in collectors.items():
            values = site.values(name, at)
            for point, value in collect(wired(values, wires) if name == "press" else values).items():
                points.setdefault(f"{name}/{point}", []).append((int(1000 * at), value, 0))
    store = Store(database.conninfo("energy_ingest"))
    commit(store, "plant-a", known(store, "plant-a").batch(points))
    store.close()
    meters = [
        {"name": name, "role": role, "profile": model, "ct_ratio": told[name]}
        for name, (role, model, _) in DEVICES.items()
    ]
    with database.connect("energy_ingest") as connection:
        file = {"timezone": "UTC", "interval": 300, "meters": meters}
        description.keep(connection, {"plant-a": file}, DAY - timedelta(days=1))
    with database.connect("energy_rollup") as connection:
        while rollup.step(connection):
            pass
    span = ["--since", DAY.isoformat(), "--until", (DAY + timedelta(days=1)).isoformat()]
    cli.main(["reconcile", "--database", database.conninfo("energy_read"), *span, "--json"])
    found = json.loads(capsys.readouterr().out)["sites"]["plant-a"]
    with database.connect("energy_read") as connection:
        connection.execute("SET timezone = 'UTC'")
        glance = document(connection, None, DAY + timedelta(days=1, hours=12))["sites"]["plant-a"][
            "agreement"
        ]
    assert found["quarters"] == 96
    for verdict in (found, glance):
        if cause is None:
            assert (verdict["state"], verdict["causes"]) == ("agrees", [])
        else:
            assert (verdict["state"], verdict["meter"]) == ("differs", "press")
            (said,) = verdict["causes"]
            assert said.endswith(cause)

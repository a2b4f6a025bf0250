# SPDX-License-Identifier: Apache-2.0
"""The physics: energy is the integral of power, nothing is lost between meters, the sun shines by day."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from wattfleet_lab.meters import truth
from wattfleet_lab.meters.description import parse
from wattfleet_lab.meters.profile import measured
from wattfleet_lab.meters.site import Site

from .conftest import fleet, listener, plant, unit

DAY = datetime(2026, 7, 11, tzinfo=UTC).timestamp()  # a Saturday with sun: the net changes its sign
SUBS = ("hall", "press", "oven")


@pytest.fixture(scope="module")
def site() -> Site:
    description = parse(fleet(plant(mean_power=40_000)))
    return Site(description.sites[0], description.epoch)


def test_energy_is_the_integral_of_power(site: Site) -> None:
    step = (
        0.5  # power is linear between multiples of 30 s: the trapezoid rule is exact but where a sign changes
    )
    start, count = DAY + 6 * 3600 + 17.5, 8 * 3600
    for meter in ("main", "hall", "roof", "battery"):
        powers = [site.power(meter, start + index * step) for index in range(count + 1)]
        taken = sum(max(a, 0) + max(b, 0) for a, b in pairwise(powers)) * step / 7200
        given = sum(max(-a, 0) + max(-b, 0) for a, b in pairwise(powers)) * step / 7200
        before, after = site.energy(meter, start), site.energy(meter, start + count * step)
        assert after.taken - before.taken == pytest.approx(taken, abs=0.05)
        assert after.given - before.given == pytest.approx(given, abs=0.05)


def test_the_net_changes_its_sign_in_the_day_used_above(site: Site) -> None:
    powers = [site.power("main", DAY + 60 * minute) for minute in range(1440)]
    assert min(powers) < 0 < max(powers)


def test_nothing_is_lost_between_meters(site: Site) -> None:
    for minute in range(0, 1440, 7):
        at = DAY + 60 * minute + 0.3
        parts = sum(site.power(name, at) for name in (*SUBS, "roof", "battery"))
        assert site.power("main", at) == pytest.approx(parts, abs=1e-6)
        main, subs = site.values("main", at), [site.values(name, at) for name in (*SUBS, "roof", "battery")]
        for phase in ("l1", "l2", "l3"):
            for quantity in ("active_power", "reactive_power"):
                expected = sum(values[f"{quantity}_{phase}"] for values in subs)
                assert main[f"{quantity}_{phase}"] == pytest.approx(expected, abs=1e-6)


def test_energies_balance_over_months(site: Site) -> None:
    def counted(at: float) -> tuple[float, float]:
        main = site.energy("main", at)
        parts = [site.energy(name, at) for name in (*SUBS, "roof", "battery")]
        return main.taken - main.given, sum(part.taken - part.given for part in parts)

    first, last = counted(DAY - 30 * 86400), counted(DAY + 40 * 86400 + 4321.7)
    assert last[0] - first[0] == pytest.approx(last[1] - first[1], abs=0.01)


def test_counters_never_step_back(site: Site) -> None:
    for meter in ("main", "hall", "roof", "battery"):
        energies = [site.energy(meter, DAY + 13.7 * index) for index in range(3 * 6307)]
        assert all(a.taken <= b.taken + 1e-6 and a.given <= b.given + 1e-6 for a, b in pairwise(energies))


def test_phases_agree_with_totals(site: Site) -> None:
    for meter in ("main", "hall", "roof", "battery"):
        values = site.values(meter, DAY + 11 * 3600)
        products = sum(
            values[f"voltage_{phase}"] * values[f"current_{phase}"] * values[f"power_factor_{phase}"]
            for phase in ("l1", "l2", "l3")
        )
        assert products == pytest.approx(values["active_power"], rel=1e-9, abs=1e-6)
        assert values["apparent_power"] == pytest.approx(
            math.hypot(values["active_power"], values["reactive_power"])
        )
        assert 49.9 < values["frequency"] < 50.1
        assert 380 < values["voltage_l1_l2"] < 420
        currents = {round(values[f"current_{phase}"], 3) for phase in ("l1", "l2", "l3")}
        assert len(currents) == 3 or values["active_power"] == 0


def test_sun_shines_by_day_only(site: Site) -> None:
    # Paris is one hour ahead of UTC in standard time.
    assert site.power("roof", DAY + 23 * 3600) == 0
    assert site.power("roof", DAY + 11 * 3600) < -10_000
    december = datetime(2026, 12, 21, 6, 30, tzinfo=UTC).timestamp()
    assert site.power("roof", december) == 0


def test_battery_charges_from_the_sun_and_gives_back_in_the_evening(site: Site) -> None:
    charges = [site.state_of_charge("battery", DAY + 300 * index) for index in range(288)]
    assert min(charges) == pytest.approx(10)
    assert 30 < max(charges) <= 95 + 1e-6
    assert site.power("battery", DAY + 19 * 3600) < 0 < site.power("battery", DAY + 10 * 3600)


def test_the_same_everywhere() -> None:
    program = (
        "import json,sys; from wattfleet_lab.meters import truth;"
        "print(repr(truth.exact(json.load(sys.stdin), 'plant-a', 'main', 1783000000.3)['energy_import']))"
    )
    text = json.dumps(fleet(plant()))
    other = subprocess.run(
        [sys.executable, "-c", program], input=text, capture_output=True, text=True, check=True
    )
    assert (
        float(other.stdout) == truth.exact(fleet(plant()), "plant-a", "main", 1783000000.3)["energy_import"]
    )


def test_seeds_differ() -> None:
    description = fleet(plant(), plant("plant-b", seed=8))
    both = truth.totals(description, DAY)
    assert both["plant-a"]["main"]["active_power"] != both["plant-b"]["main"]["active_power"]


def test_sites_without_sub_meters_or_without_main() -> None:
    only_main = {**plant(), "listeners": [listener("tcp", unit(1, "eastron-sdm630", "main", "main"))]}
    assert truth.totals(fleet(only_main), DAY)["plant-a"]["main"]["active_power"] > 0
    feeders = [unit(number, "eastron-sdm630", f"feeder-{number}", "main") for number in (1, 2)]
    two = {**plant(), "listeners": [listener("tcp", *feeders)]}
    first, second = truth.totals(fleet(two), DAY)["plant-a"].values()
    assert first["active_power"] == second["active_power"]


def test_load_follows_local_time() -> None:
    times = {}
    for zone in ("Europe/Paris", "Asia/Tokyo"):
        description = parse(fleet({**plant(), "timezone": zone}))
        there = Site(description.sites[0], description.epoch)
        loads = [sum(there.load(DAY + 3600 * hour + 86400 * day) for day in range(5)) for hour in range(24)]
        times[zone] = loads.index(min(loads))
    assert (times["Europe/Paris"] - times["Asia/Tokyo"]) % 24 in range(4, 11)  # seven hours apart in summer


def test_before_the_epoch_nothing_is_known() -> None:
    with pytest.raises(ValueError, match="before the epoch"):
        truth.totals(fleet(plant()), datetime(2026, 5, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="no time zone"):
        truth.totals(fleet(plant()), datetime(2026, 7, 1))  # noqa: DTZ001  (a time without a zone is the fault)


def test_profile_is_the_measured_year() -> None:
    values = measured()
    assert len(values) == 8760
    assert sum(values) / 8760 == pytest.approx(1)
    night = sum(values[hour] for hour in range(8760) if hour % 24 in (2, 3, 4))
    evening = sum(values[hour] for hour in range(8760) if hour % 24 in (18, 19, 20))
    assert evening > 2 * night

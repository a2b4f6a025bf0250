# SPDX-License-Identifier: Apache-2.0
"""Whether a meter is found whose currents do not belong to its voltages. What such a meter shows is made of phasors."""

from __future__ import annotations

import cmath
import dataclasses
import math
import random
from collections.abc import Sequence
from datetime import datetime

import pytest
from energy_hub.causes import wiring
from energy_hub.causes.fit import Meter
from energy_hub.causes.wiring import MOVED, PHASES
from energy_hub.reconcile import reconcile

from .test_reconcile import QUARTERS, START, Power, healthy, scaled, shape

Load = tuple[dict[datetime, complex], ...]
"""By phase: active power in W, and reactive in var, inductive positive."""

BALANCED, UNEVEN = (1 / 3, 1 / 3, 1 / 3), (0.43, 0.34, 0.23)
# Power factors between which a load goes to and fro, from one quarter of an hour to the next.
ONE, NINE, TO_AND_FRO = (1.0, 1.0), (0.9, 0.9), (0.72, 0.97)


@dataclasses.dataclass(frozen=True)
class Wires:
    """Which phase's voltage and which phase's current each element of a meter has, and which way round that is."""

    voltages: tuple[int, int, int] = (0, 1, 2)
    currents: tuple[int, int, int] = (0, 1, 2)
    ways: tuple[int, int, int] = (1, 1, 1)

    def shown(self, load: Sequence[complex], turning: int = 1) -> list[complex]:
        """What the elements show of a load; a network turns one way or the other."""
        voltages = [230 * cmath.exp(-turning * 2j * math.pi * k / 3) for k in range(3)]
        # S = V I*
        currents = [(power / voltage).conjugate() for power, voltage in zip(load, voltages, strict=True)]
        return [
            voltages[v] * (way * currents[c]).conjugate()
            for v, c, way in zip(self.voltages, self.currents, self.ways, strict=True)
        ]


RIGHT = Wires()
PAIR = Wires(currents=(1, 0, 2))
VOLTAGES_OF_A_PAIR = Wires(voltages=(0, 2, 1))
ON, BACK = Wires(currents=(1, 2, 0)), Wires(currents=(2, 0, 1))
ONE_TURNED, TWO_TURNED = Wires(ways=(1, -1, 1)), Wires(ways=(-1, 1, -1))
ALL_TURNED = Wires(ways=(-1, -1, -1))
ELSEWHERE = Wires(voltages=(0, 0, 2))


def load(
    factors: tuple[float, float] = TO_AND_FRO,
    shares: Sequence[float] = BALANCED,
    power: Power | None = None,
    seed: int = 21,
) -> Load:
    """A three-phase load; its phases keep their parts of it to a few percent."""
    noise = random.Random(seed)
    power = power or shape(3_000, 25_000, seed)
    phases: Load = ({}, {}, {})
    for at, whole in power.items():
        angle = math.acos(noise.uniform(*factors))
        for phase, share in zip(phases, shares, strict=True):
            phase[at] = whole * share * noise.uniform(0.98, 1.02) * complex(1, math.tan(angle))
    return phases


def meter(
    true: Load,
    wires: Wires = RIGHT,
    *,
    name: str = "hall",
    role: str = "consumption",
    ct_ratio: str | None = "200:5",
    turning: int = 1,
    phases: bool = True,
    reactive: str = "phases",
) -> Meter:
    """A meter with that load behind it. `reactive`: what it tells of it, of each phase, the total or none."""
    shown = {at: wires.shown([phase[at] for phase in true], turning) for at in QUARTERS}
    by_phase = {name: {at: shown[at][k] for at in QUARTERS} for k, name in enumerate(PHASES)}
    told = {name: {at: one.imag for at, one in power.items()} for name, power in by_phase.items()}
    total = {"": {at: sum(shown[at]).imag for at in QUARTERS}}
    return Meter(
        name,
        role,
        {at: sum(shown[at]).real for at in QUARTERS},
        ct_ratio,
        {name: {at: one.real for at, one in power.items()} for name, power in by_phase.items()}
        if phases
        else None,
        {"phases": told, "total": total, "none": {}}[reactive],
    )


def with_hall(hall: Meter, true: Load, more: Power | None = None) -> list[Meter]:
    """The healthy site with a further meter, and with loads that only the supply sees."""
    meters = healthy()
    more = more or {}
    main = {
        at: power + sum(phase[at] for phase in true).real + more.get(at, 0.0)
        for at, power in meters["main"].power.items()
    }
    return [
        dataclasses.replace(meters["main"], power=main),
        *(one for name, one in meters.items() if name != "main"),
        hall,
    ]


def by_means(meters: Sequence[Meter]) -> list[Meter]:
    """What the glance at the fleet asks for: of phases and of reactive power, the mean of the day."""
    return [
        dataclasses.replace(
            one,
            phases={name: {START: sum(p.values()) / len(p)} for name, p in (one.phases or {}).items()},
            reactive={name: {START: sum(p.values()) / len(p)} for name, p in (one.reactive or {}).items()},
        )
        for one in meters
    ]


def parts_of(wires: Wires, factor: float) -> list[float]:
    """What the elements show of a balanced load, as parts of the whole."""
    one = complex(1, math.tan(math.acos(factor))) / 3
    return [power.real for power in wires.shown([one, one, one])]


def test_what_meters_show_of_a_balanced_load() -> None:
    """The figures that wiring.py and the how-to tell."""
    third = pytest.approx(1 / 3)
    for factor in (1.0, 0.9, 0.7):
        assert parts_of(RIGHT, factor) == [third, third, third]
        # Whatever the power factor is, one exchange hides all.
        assert sum(parts_of(PAIR, factor)) == pytest.approx(0)
        assert sum(parts_of(ONE_TURNED, factor)) == pytest.approx(1 / 3)
        assert sum(parts_of(TWO_TURNED, factor)) == pytest.approx(-1 / 3)
    assert parts_of(PAIR, 1.0) == pytest.approx([-1 / 6, -1 / 6, 1 / 3])
    assert parts_of(PAIR, 0.9) == pytest.approx([-0.306, -0.027, 1 / 3], abs=0.001)
    assert [sum(parts_of(ON, factor)) for factor in (1.0, 0.9)] == pytest.approx([-0.5, -0.919], abs=0.001)
    assert [sum(parts_of(BACK, factor)) for factor in (1.0, 0.9)] == pytest.approx([-0.5, -0.081], abs=0.001)
    # The power factor at which moved on looks like turned round.
    assert sum(parts_of(ON, math.cos(math.pi / 6))) == pytest.approx(-1)


MISWIRED = {
    "pair": (PAIR, wiring.exchanged("l3")),
    "voltages": (VOLTAGES_OF_A_PAIR, wiring.exchanged("l1")),
    "on": (ON, MOVED),
    "back": (BACK, MOVED),
    "turned": (ONE_TURNED, "the current transformer of l2 is turned round"),
    "two": (TWO_TURNED, "the current transformers of l1 and l3 are turned round"),
    "elsewhere": (ELSEWHERE, "the current of l2 is measured with another phase's voltage"),
}


@pytest.mark.parametrize(("shares", "turning"), [(BALANCED, 1), (UNEVEN, -1)], ids=["balanced", "uneven"])
@pytest.mark.parametrize("factors", [ONE, NINE, TO_AND_FRO], ids=str)
@pytest.mark.parametrize("wrong", MISWIRED)
def test_a_wrong_wiring_is_named(
    wrong: str, factors: tuple[float, float], shares: Sequence[float], turning: int
) -> None:
    wires, cause = MISWIRED[wrong]
    true = load(factors, shares)
    hall = meter(true, wires, turning=turning)
    found = reconcile(with_hall(hall, true))
    assert found.state == "differs"
    assert found.causes[0].startswith("hall shows ")
    assert found.causes[0].endswith(f" of what it should: likely {cause}")
    assert found.meter == "hall"
    # At one power factor alone, another wiring of the same meter may show the same to a few percent.
    assert len(found.causes) == 1 or (factors == NINE and all("hall shows" in one for one in found.causes))
    # By the means of the phases alone it is the same one, but beside others where the total does not follow the load.
    found = reconcile(by_means(with_hall(hall, true)))
    assert any(one.endswith(f"likely {cause}") for one in found.causes)
    assert found.meter in ("hall", None)


@pytest.mark.parametrize("wrong", MISWIRED)
def test_and_with_a_load_without_a_meter_beside_it(wrong: str) -> None:
    wires, cause = MISWIRED[wrong]
    true = load()
    found = reconcile(with_hall(meter(true, wires), true, dict.fromkeys(QUARTERS, 12_000.0)))
    assert found.causes[0].endswith(f"likely {cause}")
    assert found.causes[1].startswith("besides, a load constant, of ")
    assert all(one.startswith("or else: hall shows ") for one in found.causes[2:])
    assert found.meter is None


@pytest.mark.parametrize("wrong", MISWIRED)
def test_a_supply_that_is_wired_wrongly(wrong: str) -> None:
    wires, cause = MISWIRED[wrong]
    press, rest = shape(9_000, 30_000, 5), shape(6_000, 9_000, 6)
    true = load(power={at: press[at] + rest[at] for at in QUARTERS}, shares=UNEVEN)
    main = meter(true, wires, name="main", role="main")
    found = reconcile([main, Meter("press", "consumption", press), Meter("rest", "consumption", rest)])
    assert (len(found.causes), found.meter) == (1, "main")
    assert found.causes[0].endswith(f"likely {cause}")


@pytest.mark.parametrize("factors", [ONE, NINE, TO_AND_FRO], ids=str)
@pytest.mark.parametrize("shares", [BALANCED, UNEVEN], ids=["balanced", "uneven"])
def test_an_exchanged_pair_is_seen_without_reactive_power(
    factors: tuple[float, float], shares: Sequence[float]
) -> None:
    true = load(factors, shares)
    for reactive in ("none", "total"):
        found = reconcile(with_hall(meter(true, PAIR, reactive=reactive), true))
        assert found.causes[0].endswith(f"likely {wiring.exchanged('l3')}")
        assert (len(found.causes), found.meter) == (1, "hall")
        # And told, beside a load, where only the means of its phases are known.
        found = reconcile(by_means(with_hall(meter(true, PAIR, reactive=reactive), true)))
        assert any(one.endswith(f"likely {wiring.exchanged('l3')}") for one in found.causes)


def test_the_total_of_the_reactive_power_tells_that_all_are_moved_on() -> None:
    true = load()
    for wires in (ON, BACK):
        for phases in (True, False):
            found = reconcile(with_hall(meter(true, wires, reactive="total", phases=phases), true))
            assert found.causes[0].endswith(f"likely {MOVED}")
            assert (len(found.causes), found.meter) == (1, "hall")


def test_what_cannot_be_told_apart_is_named_with_its_alternatives() -> None:
    """A meter that tells no reactive power, or neither that nor its phases."""
    at_one, varying = load(ONE), load((0.8, 1.0))
    for phases in (True, False):
        # Moved on at power factor 1 it shows -1/2, which a wrong ratio and a turned meter may do as well.
        found = reconcile(with_hall(meter(at_one, ON, phases=phases, reactive="none"), at_one))
        assert found.causes == (
            (
                f"hall shows -50 % of what it should: likely {MOVED},"
                " or all current transformers are turned round and its CT ratio is 400:5 and not 200:5"
            ),
        )
        # Where the power factor varies, no factor explains it. That it gives power is all that is seen.
        found = reconcile(with_hall(meter(varying, BACK, phases=phases, reactive="none"), varying))
        assert found.causes[0].startswith("a load without a meter that varies")
        assert found.causes[1:] == (
            (
                f"or else: hall gives power, and its role is consumption: likely {MOVED},"
                " or its current transformers are turned round, or there is a source behind it"
            ),
        )
        assert found.meter is None
    # An exchanged pair is as good as dead without its phases.
    found = reconcile(with_hall(meter(varying, PAIR, phases=False, reactive="none"), varying))
    assert found.causes[0].startswith("a load without a meter that varies")
    assert found.causes[1] == (
        "or else: hall shows next to nothing: two of its current transformers may be exchanged, or all open"
    )
    assert found.meter is None
    # Turned round, two of three.
    found = reconcile(with_hall(meter(varying, TWO_TURNED, phases=False, reactive="none"), varying))
    assert found.causes == (
        (
            "hall shows -33 % of what it should: likely the current transformers of two phases are turned round,"
            f" or {MOVED}, or all current transformers are turned round and its CT ratio is 600:5 and not 200:5"
        ),
    )


def test_all_turned_round_and_all_moved_on_show_the_same_at_one_power_factor() -> None:
    same = math.cos(math.pi / 6)
    for wires in (ALL_TURNED, ON):
        true = load((same, same))
        found = reconcile(with_hall(meter(true, wires), true))
        assert sorted(one.removeprefix("or else: ") for one in found.causes) == [
            "hall counts the wrong way: likely its current transformers are turned round, or its sign is",
            f"hall shows -100 % of what it should: likely {MOVED}",
        ]
        assert found.meter == "hall"
        (cause,) = reconcile(with_hall(meter(true, wires, reactive="none"), true)).causes
        assert cause.startswith("hall counts the wrong way")
        assert cause.endswith(f", or {MOVED}")
    # Where it varies, there is no doubt.
    true = load()
    (cause,) = reconcile(with_hall(meter(true, ALL_TURNED), true)).causes
    assert cause.startswith("hall counts the wrong way")


def test_a_steady_load_behind_an_exchanged_pair() -> None:
    """Nothing varies, so that a load without a meter looks the same."""
    noise = random.Random(4)
    true = load(NINE, power={at: noise.uniform(9_900, 10_100) for at in QUARTERS})
    found = reconcile(with_hall(meter(true, PAIR), true))
    assert found.causes[0].endswith(f"likely {wiring.exchanged('l3')}")
    assert found.causes[1].startswith("or else: a load constant, of ")
    assert (len(found.causes), found.meter) == (2, None)


# ---- And what is no wrong wiring


def sunny(peak: float) -> Load:
    """A hall's load with panels on one phase that give more than that phase takes."""
    true = load(shares=UNEVEN)
    sun = shape(0, peak, 33)
    return (true[0], {at: one - sun[at] for at, one in true[1].items()}, true[2])


REACTIVE = ("phases", "total", "none")


@pytest.mark.parametrize("reactive", REACTIVE)
@pytest.mark.parametrize("peak", [12_000, 20_000, 45_000])
def test_panels_on_one_phase_are_no_wrong_wiring(peak: float, reactive: str) -> None:
    true = sunny(peak)
    hall = meter(true, reactive=reactive)
    heater = random.Random(5)
    varying = {at: float(heater.choice((0, 0, 18_000))) for at in QUARTERS}
    healthy_site = with_hall(hall, true)
    with_load = with_hall(hall, true, varying)
    with_constant = with_hall(hall, true, dict.fromkeys(QUARTERS, 5_000.0))
    for known in (list, by_means):
        assert reconcile(known(healthy_site)).state == "agrees"
        causes = "; ".join(reconcile(known(with_constant)).causes)
        assert causes.startswith("a load constant, of 5.0")
        assert "hall" not in causes
        first, *more = reconcile(known(with_load)).causes
        assert first.startswith("a load without a meter that varies")
        # The means of one day alone may fit by chance.
        assert not more or known is by_means
        # Another meter's fault.
        press = [scaled(one, 0.8) if one.name == "press" else one for one in healthy_site]
        (cause,) = reconcile(known(press)).causes
        assert cause.endswith("likely its CT ratio is 250:5 and not 200:5")


@pytest.mark.parametrize("reactive", REACTIVE)
@pytest.mark.parametrize("peak", [12_000, 20_000, 45_000])
def test_panels_on_one_phase_and_a_wrong_ratio(peak: float, reactive: str) -> None:
    true = sunny(peak)
    site = with_hall(scaled(meter(true, reactive=reactive), 200 / 300), true)
    for known in (list, by_means):
        (cause,) = reconcile(known(site)).causes
        assert cause == "hall shows 67 % of what it should: likely its CT ratio is 300:5 and not 200:5"


@pytest.mark.parametrize("factor", [0.2, 0.5, 0.8, 2.0])
@pytest.mark.parametrize("reactive", REACTIVE)
def test_a_wrong_ratio_is_no_wrong_wiring_whatever_the_power_factor_is(factor: float, reactive: str) -> None:
    """0.2 at a power factor of 0.78 is also what a meter shows whose currents are moved on."""
    for factors in (ONE, NINE, TO_AND_FRO, (0.78, 0.78), (0.65, 0.65)):
        true = load(factors, UNEVEN)
        site = with_hall(scaled(meter(true, reactive=reactive), factor), true)
        for known in (list, by_means):
            found = reconcile(known(site))
            assert len(found.causes) == 1
            assert ": likely its CT ratio is " in found.causes[0]
            assert found.meter == "hall"


@pytest.mark.parametrize("reactive", REACTIVE)
def test_a_meter_below_another_is_no_wrong_wiring(reactive: str) -> None:
    """What is counted twice is explained by a meter that should show nothing."""
    true = load()
    site = with_hall(meter(true, reactive=reactive), tuple(dict.fromkeys(QUARTERS, 0j) for _ in PHASES))
    (cause,) = reconcile(site).causes
    assert cause == "hall counts what another meter counts, too, or what is not behind the supply's meter"


@pytest.mark.parametrize("reactive", REACTIVE)
def test_a_phase_without_load_and_a_wrong_ratio(reactive: str) -> None:
    true = load(shares=(0.6, 0.4, 0.0))
    (cause,) = reconcile(with_hall(scaled(meter(true, reactive=reactive), 0.8), true)).causes
    assert cause == "hall shows 80 % of what it should: likely its CT ratio is 250:5 and not 200:5"

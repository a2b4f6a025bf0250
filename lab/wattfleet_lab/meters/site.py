# SPDX-License-Identifier: Apache-2.0
"""The physics of one site: what every meter shows at any instant, a pure function of description and time.

Power is piecewise linear: knots every 900 s, and a ripple on a grid of 30 s between them. Energy is its
exact integral: prefix sums over days and cells, a closed form inside a segment. The main meter's import and
export are split exactly at the instants where the site's net power changes its sign. Nothing ticks: a value
is computed when it is asked for.

Units: W, var, V.A, V, A, Hz, W.h, var.h, %, Cel; powers and energies signed from the site's view.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import atan2, cos, degrees, hypot, sin, sqrt, tau

from wattfleet_lab.meters import description
from wattfleet_lab.meters.chance import CELL, SEGMENT, SEGMENTS, Ripple, ripple, uniform
from wattfleet_lab.meters.sources import (
    CELLS,
    EFFICIENCY,
    EMPTY,
    RIPPLE,
    Battery,
    Clock,
    Knots,
    Load,
    Solar,
    Source,
)

Values = dict[str, float]
PHASES = ("l1", "l2", "l3")
_NET = "net"
_GROSS = "gross"  # the sum of all magnitudes
_HIDDEN = "unmetered"  # the load of a site that meters none of its consumers
_KEPT_DAYS = 6


@dataclass(frozen=True)
class Energies:
    """W.h (or var.h) taken from and given to the grid side of a meter, both counted up."""

    taken: float
    given: float


@dataclass(frozen=True)
class Day:
    """One day: knots by source and for the net, with W.h taken and given from midnight to each knot."""

    knots: dict[str, Knots]
    taken: dict[str, list[float]]
    given: dict[str, list[float]]


class Site:
    """All of a site's meters. Two objects of one description agree to the last bit, in any process."""

    def __init__(self, site: description.Site, epoch: float) -> None:
        self.description = site
        self.clock = Clock.of(site.timezone, epoch)
        self.first_day = self.clock.day(epoch)
        self.units = {unit.name: unit for unit in site.units()}
        self.mean_power = site.mean_power or 40_000 + 80_000 * uniform(site.seed, "mean power")
        self._mains = [unit for unit in self.units.values() if unit.role == "main"]
        self.sources: dict[str, Source] = {source.name: source for source in self._make_sources()}
        self._days: OrderedDict[int, Day] = OrderedDict()
        self._mixed: OrderedDict[tuple[int, int], tuple[list[float], list[float], list[float]]] = (
            OrderedDict()
        )
        # Totals at the start of each day since the epoch, by source: [taken], [given].
        self._totals: dict[str, tuple[list[float], list[float]]] = {
            name: ([0.0], [0.0]) for name in (*self.sources, _NET)
        }
        seed = site.seed
        weights = [1 + 0.04 * (2 * uniform(seed, "weight", phase) - 1) for phase in PHASES]
        self.weights = [weight / sum(weights) for weight in weights]
        shifts = [1 + 0.08 * (2 * uniform(seed, "shift", phase) - 1) for phase in PHASES]
        mean = sum(weight * shift for weight, shift in zip(self.weights, shifts, strict=True))
        self.shifts = [shift / mean for shift in shifts]
        self._waves = {
            label: [tau * uniform(seed, label, index) for index in range(3)] for label in ("f", *PHASES)
        }

    def _make_sources(self) -> list[Source]:
        seed = self.description.seed
        options = {name: unit.options for name, unit in self.units.items()}
        loads = [name for name, unit in self.units.items() if unit.role == "consumption"] or [_HIDDEN]
        shares = {
            name: float(options.get(name, {}).get("share", 0.5 + uniform(seed, name, "share")))
            for name in loads
        }
        sources: list[Source] = [
            Load(
                name,
                seed,
                self.mean_power * shares[name] / sum(shares.values()),
                0.25 + 0.35 * uniform(seed, name, "tangent"),
            )
            for name in loads
        ]
        sources += [
            Solar(
                name,
                seed,
                float(
                    options[name].get(
                        "peak_power", self.mean_power * (0.8 + 0.8 * uniform(seed, name, "peak"))
                    )
                ),
                self.description.latitude,
            )
            for name, unit in self.units.items()
            if unit.role == "generation"
        ]
        stores = [name for name, unit in self.units.items() if unit.role == "storage"]
        capacities = {name: float(options[name].get("capacity", 2 * self.mean_power)) for name in stores}
        sources += [
            Battery(
                name,
                capacities[name],
                float(options[name].get("power", capacities[name] / 2)),
                capacities[name] / sum(capacities.values()),
            )
            for name in stores
        ]
        return sources

    # Power and energy

    def power(self, meter: str, at: float) -> float:
        """Active power of a meter in W at a UTC instant (unix s)."""
        unit = self.units[meter]
        if unit.role == "main":
            return sum(self._source_power(source, at) for source in self.sources.values()) / len(self._mains)
        return self._source_power(self.sources[meter], at)

    def energy(self, meter: str, at: float) -> Energies:
        """Counter readings of a meter in W.h, starting from a value of its own at the description's epoch."""
        unit = self.units[meter]
        start = Energies(
            self._start(meter, "taken") if unit.role != "generation" else 0.0,
            self._start(meter, "given") if unit.role in ("generation", "storage", "main") else 0.0,
        )
        if unit.role == "main":
            counted = self._net_energy(at)
            parts = len(self._mains)
            counted = Energies(counted.taken / parts, counted.given / parts)
        else:
            counted = self._source_energy(self.sources[meter], at)
        return Energies(start.taken + counted.taken, start.given + counted.given)

    def _start(self, meter: str, what: str) -> float:
        return round(self.mean_power * (200 + 800 * uniform(self.description.seed, meter, what)))

    def reactive(self, meter: str, at: float) -> tuple[float, float]:
        """Reactive power (var, inductive positive) and reactive energy taken (var.h); none of these sources
        gives any.
        """
        unit = self.units[meter]
        sources = [self.sources[meter]] if unit.role != "main" else list(self.sources.values())
        parts = 1 if unit.role != "main" else len(self._mains)
        power = 0.0
        energy = self._start(meter, "reactive") if unit.role in ("main", "consumption") else 0.0
        for source in sources:
            if source.tangent:
                power += source.tangent * self._source_power(source, at) / parts
                energy += source.tangent * self._source_energy(source, at).taken / parts
        return power, energy

    def state_of_charge(self, meter: str, at: float) -> float:
        """Percent of the nominal capacity."""
        battery = self.sources[meter]
        if not isinstance(battery, Battery):
            raise TypeError(f"{meter} is not a battery")
        number, day, cell, offset = self._locate(at)
        counted = self._within(day, number, battery, cell, offset)
        stored = counted.taken * EFFICIENCY - counted.given / EFFICIENCY
        return 100 * (EMPTY + stored / battery.capacity)

    def load(self, at: float) -> float:
        """All loads together in W."""
        return sum(
            self._source_power(source, at) for source in self.sources.values() if isinstance(source, Load)
        )

    def _locate(self, at: float) -> tuple[int, Day, int, float]:
        number = self.clock.day(at)
        if number < self.first_day:
            raise ValueError(f"{at}: before the epoch of the description, nothing is known then")
        seconds = at - self.clock.start(number)
        cell = min(int(seconds // CELL), CELLS - 1)
        return number, self.day(number), cell, seconds - cell * CELL

    def _source_power(self, source: Source, at: float) -> float:
        number, day, cell, offset = self._locate(at)
        knots = day.knots[source.name]
        left, right = knots[cell], knots[cell + 1]
        power = left + (right - left) * offset / CELL
        amplitude = _amplitude(source, left, right)
        if amplitude:
            power += amplitude * self._ripple(source, number, cell).value(offset)
        return power

    def _source_energy(self, source: Source, at: float) -> Energies:
        number, day, cell, offset = self._locate(at)
        within = self._within(day, number, source, cell, offset)
        taken, given = self._until(source.name, number)
        return Energies(taken + within.taken, given + within.given)

    def _within(self, day: Day, number: int, source: Source, cell: int, offset: float) -> Energies:
        """Energy from midnight on. A source never changes its sign inside a cell, so one sum serves."""
        part = self._cell_energy(day, number, source, cell, offset)
        taken, given = day.taken[source.name][cell], day.given[source.name][cell]
        return Energies(taken + part, given) if part > 0 else Energies(taken, given - part)

    def _cell_energy(self, day: Day, number: int, source: Source, cell: int, offset: float) -> float:
        knots = day.knots[source.name]
        left, right = knots[cell], knots[cell + 1]
        joules = left * offset + (right - left) * offset * offset / (2 * CELL)
        amplitude = _amplitude(source, left, right)
        if amplitude:
            joules += amplitude * self._ripple(source, number, cell).integral(offset)
        return joules / 3600

    def _net_energy(self, at: float) -> Energies:
        number, day, cell, offset = self._locate(at)
        before_taken, before_given = self._until(_NET, number)
        taken = before_taken + day.taken[_NET][cell]
        given = before_given + day.given[_NET][cell]
        if self._is_mixed(day.knots, cell):
            part = self._mixed_energy(day.knots, number, cell, offset)
            return Energies(taken + part.taken, given + part.given)
        energy = sum(self._cell_energy(day, number, source, cell, offset) for source in self.sources.values())
        return Energies(taken + energy, given) if energy > 0 else Energies(taken, given - energy)

    def _ripple(self, source: Source, number: int, cell: int) -> Ripple:
        return ripple(self.description.seed, source.name, self.clock.start(number) // CELL + cell)

    # The net of all sources, whose sign may change anywhere

    def _is_mixed(self, knots: Mapping[str, Knots], cell: int) -> bool:
        """Whether the net may change its sign inside a cell: when its ends differ, or the ripples could
        reach zero.
        """
        left, right = knots[_NET][cell], knots[_NET][cell + 1]
        if left * right <= 0:
            return True
        reach = RIPPLE * min(knots[_GROSS][cell], knots[_GROSS][cell + 1])
        return min(abs(left), abs(right)) <= reach

    def _fine(
        self, knots: Mapping[str, Knots], number: int, cell: int
    ) -> tuple[list[float], list[float], list[float]]:
        """The net at the fine knots of a mixed cell, and W.h taken and given up to each."""
        key = (number, cell)
        if key in self._mixed:
            self._mixed.move_to_end(key)
            return self._mixed[key]
        left, right = knots[_NET][cell], knots[_NET][cell + 1]
        net = [left + (right - left) * index / SEGMENTS for index in range(SEGMENTS + 1)]
        for source in self.sources.values():
            amplitude = _amplitude(source, knots[source.name][cell], knots[source.name][cell + 1])
            if amplitude:
                wave = self._ripple(source, number, cell).knots
                net = [value + amplitude * part for value, part in zip(net, wave, strict=True)]
        pieces = [_split(a, b, SEGMENT) for a, b in pairwise(net)]
        taken = list(accumulate((piece.taken for piece in pieces), initial=0.0))
        given = list(accumulate((piece.given for piece in pieces), initial=0.0))
        self._mixed[key] = net, taken, given
        if len(self._mixed) > 64:
            self._mixed.popitem(last=False)
        return net, taken, given

    def _mixed_energy(self, knots: Mapping[str, Knots], number: int, cell: int, offset: float) -> Energies:
        net, taken, given = self._fine(knots, number, cell)
        index = min(int(offset // SEGMENT), SEGMENTS - 1)
        part = offset - index * SEGMENT
        end = net[index] + (net[index + 1] - net[index]) * part / SEGMENT
        rest = _split(net[index], end, part)
        return Energies(taken[index] + rest.taken, given[index] + rest.given)

    # Days

    def day(self, number: int) -> Day:
        """One day's knots and sums, kept for a while."""
        found = self._days.get(number)
        if found is None:
            found = self._days[number] = self._make_day(number)
            if len(self._days) > _KEPT_DAYS:
                self._days.popitem(last=False)
        else:
            self._days.move_to_end(number)
        return found

    def _make_day(self, number: int) -> Day:
        knots: dict[str, Knots] = {}
        load = solar = [0.0] * (CELLS + 1)
        for source in self.sources.values():
            if isinstance(source, Battery):
                knots[source.name] = source.knots(load, solar)
                continue
            if isinstance(source, Load):
                knots[source.name] = source.knots(self.clock, number)
                load = _added(load, knots[source.name])
            else:
                knots[source.name] = source.knots(number)
                solar = _added(solar, knots[source.name])
        knots[_NET] = [sum(values) for values in zip(*knots.values(), strict=True)]
        if self._mains:  # nobody else asks where the net changes its sign
            sizes = [[abs(value) for value in values] for name, values in knots.items() if name != _NET]
            knots[_GROSS] = [sum(values) for values in zip(*sizes, strict=True)]
        taken: dict[str, list[float]] = {}
        given: dict[str, list[float]] = {}
        for name in self._totals:
            values = knots[name]
            cells = [(left + right) * (CELL / 7200) for left, right in pairwise(values)]
            plus = [energy if energy > 0 else 0.0 for energy in cells]
            minus = [-energy if energy < 0 else 0.0 for energy in cells]
            if name == _NET:
                for cell in range(CELLS) if self._mains else ():
                    if self._is_mixed(knots, cell):
                        whole = self._mixed_energy(knots, number, cell, CELL)
                        plus[cell], minus[cell] = whole.taken, whole.given
            taken[name] = list(accumulate(plus, initial=0.0))
            given[name] = list(accumulate(minus, initial=0.0))
        return Day(knots, taken, given)

    def _until(self, name: str, number: int) -> tuple[float, float]:
        """W.h of a source from the epoch's day to the start of a day."""
        self.sum_up(number)
        taken, given = self._totals[name]
        return taken[number - self.first_day], given[number - self.first_day]

    def sum_up(self, number: int) -> None:
        """Have the totals up to the start of a day; about 0.5 ms for each day that is not there yet."""
        index = number - self.first_day
        while len(self._totals[_NET][0]) <= index:
            day = self.day(self.first_day + len(self._totals[_NET][0]) - 1)
            for source, (taken, given) in self._totals.items():
                taken.append(taken[-1] + day.taken[source][-1])
                given.append(given[-1] + day.given[source][-1])

    # What a meter shows

    def frequency(self, at: float) -> float:
        a, b, c = self._waves["f"]
        return (
            50
            + 0.02 * sin(tau * at / 1380 + a)
            + 0.012 * sin(tau * at / 190 + b)
            + 0.004 * sin(tau * at / 17 + c)
        )

    def voltage(self, phase: str, at: float) -> float:
        """A phase's voltage over its nominal voltage."""
        a, b, c = self._waves[phase]
        return (
            1
            + 0.006 * sin(tau * at / 5400 + a)
            + 0.004 * sin(tau * at / 610 + b)
            + 0.001 * sin(tau * at / 23 + c)
        )

    def values(self, meter: str, at: float) -> Values:
        """Every quantity of a meter by its point name, on the primary side, exact.

        Raises KeyError for a meter that does not exist and ValueError for a time before the epoch.
        """
        unit = self.units[meter]
        if unit.role == "process":
            return {channel.name: self._process(channel, at) for channel in unit.channels}
        values = self._electrical(unit, at)
        source = self.sources.get(meter)
        if isinstance(source, Solar):
            values |= self._inverter(source, values, at)
        if isinstance(source, Battery):
            values |= self._battery(source, values, at)
        return values

    def _electrical(self, unit: description.Unit, at: float) -> Values:
        power = self.power(unit.name, at)
        reactive, reactive_energy = self.reactive(unit.name, at)
        energy = self.energy(unit.name, at)
        # With a voltage transformer the bus bar is at the transformer's nominal voltage of 100 / sqrt(3) V
        # per phase.
        usual = 230.0 if unit.pt == 1 else 100 * unit.pt / sqrt(3)
        nominal = float(unit.options.get("nominal_voltage", usual))
        values: Values = {
            "active_power": power,
            "reactive_power": reactive,
            "apparent_power": hypot(power, reactive),
            "power_factor": _power_factor(power, reactive),
            "phase_angle": degrees(atan2(reactive, power)) if power else 0.0,
            "frequency": self.frequency(at),
            "energy_import": energy.taken,
            "energy_export": energy.given,
            "reactive_energy_import": reactive_energy,
            "reactive_energy_export": 0.0,
        }
        real = imaginary = 0.0
        for index, phase in enumerate(PHASES):
            weight = self.weights[index]
            active = power * weight
            inductive = reactive * weight * self.shifts[index]
            voltage = nominal * self.voltage(phase, at)
            apparent = hypot(active, inductive)
            angle = atan2(inductive, active) if apparent else 0.0
            current = apparent / voltage
            values[f"voltage_{phase}"] = voltage
            values[f"current_{phase}"] = current
            values[f"active_power_{phase}"] = active
            values[f"reactive_power_{phase}"] = inductive
            values[f"apparent_power_{phase}"] = apparent
            values[f"power_factor_{phase}"] = _power_factor(active, inductive)
            values[f"phase_angle_{phase}"] = degrees(angle)
            values[f"energy_import_{phase}"] = energy.taken * weight
            values[f"energy_export_{phase}"] = energy.given * weight
            values[f"reactive_energy_import_{phase}"] = reactive_energy * weight * self.shifts[index]
            real += current * cos(-index * tau / 3 - angle)
            imaginary += current * sin(-index * tau / 3 - angle)
        values["current_n"] = hypot(real, imaginary)
        for first, second in (("l1", "l2"), ("l2", "l3"), ("l3", "l1")):
            a, b = values[f"voltage_{first}"], values[f"voltage_{second}"]
            values[f"voltage_{first}_{second}"] = sqrt(a * a + b * b + a * b)  # 120 degrees apart
        return values

    def _inverter(self, plant: Solar, values: Values, at: float) -> Values:
        given = -values["active_power"]
        direct = given / 0.975
        voltage = 640 + 15 * sin(tau * at / 900) - 30 * given / plant.peak if given else 0.0
        return {
            "dc_power": direct,
            "dc_voltage": voltage,
            "dc_current": direct / voltage if voltage else 0.0,
            "temperature": 22 + 25 * given / plant.peak + 3 * sin(tau * at / 3600),
        }

    def _battery(self, battery: Battery, values: Values, at: float) -> Values:
        charge = self.state_of_charge(battery.name, at)
        voltage = 680 + 1.2 * charge
        return {
            "state_of_charge": charge,
            "state_of_health": 98.5,
            "dc_voltage": voltage,
            "dc_current": values["active_power"] / voltage,
        }

    def _process(self, channel: description.Channel, at: float) -> float:
        """A process value inside its channel's range: flows follow the load, temperatures the day, others
        stand nearly still.
        """
        phase = tau * uniform(self.description.seed, channel.name, "phase")
        fraction = _process_kind(channel.unit)(self, at, phase)
        return channel.low + (channel.high - channel.low) * min(max(fraction, 0.02), 0.98)


def _flow(site: Site, at: float, phase: float) -> float:
    return 0.1 + 0.4 * site.load(at) / site.mean_power + 0.01 * sin(tau * at / 41 + phase)


def _temperature(_site: Site, at: float, phase: float) -> float:
    return 0.5 + 0.12 * sin(tau * at / 86400 + phase) + 0.03 * sin(tau * at / 1900 + phase)


def _pressure(_site: Site, at: float, phase: float) -> float:
    return 0.6 + 0.04 * sin(tau * at / 300 + phase) + 0.01 * sin(tau * at / 11 + phase)


def _process_kind(unit: str) -> Callable[[Site, float, float], float]:
    if "/" in unit:
        return _flow
    return _temperature if unit in ("Cel", "K", "[degF]") else _pressure


def _amplitude(source: Source, left: float, right: float) -> float:
    """The ripple's amplitude: zero where an end is zero, so that nothing ripples at night."""
    return source.ripple * min(abs(left), abs(right)) if source.ripple else 0.0


def _added(first: Knots, second: Knots) -> Knots:
    return [a + b for a, b in zip(first, second, strict=True)]


def _power_factor(active: float, reactive: float) -> float:
    """Signed like the active power; 1 when nothing flows."""
    apparent = hypot(active, reactive)
    return active / apparent if apparent else 1.0


def _split(left: float, right: float, seconds: float) -> Energies:
    """W.h above and below zero of a straight line from left to right (W)."""
    if left >= 0 and right >= 0:
        return Energies((left + right) * seconds / 7200, 0.0)
    if left <= 0 and right <= 0:
        return Energies(0.0, -(left + right) * seconds / 7200)
    above, below = max(left, right), -min(left, right)
    scale = seconds / (7200 * (above + below))
    return Energies(above * above * scale, below * below * scale)

# SPDX-License-Identifier: Apache-2.0
"""What draws and gives power at a site: loads, photovoltaic plants, batteries.

Each source says its power at the 97 knots (every 900 s) of a day, signed from the site's view: loads and
charging positive, generation and discharging negative. Between knots power is linear, plus a ripple (see
chance.py) of `ripple` times the smaller end. A day is a day of the site's standard time, so it never has 23
or 25 hours.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import cos, pi, sin, tau
from zoneinfo import ZoneInfo

from wattfleet_lab.meters import profile
from wattfleet_lab.meters.chance import CELL, uniform, uniforms

DAY = 86400
CELLS = DAY // CELL

Knots = list[float]


@dataclass(frozen=True)
class Clock:
    """A site's clock: `offset` is its standard time's distance from UTC in seconds, `zone` its civil time."""

    zone: ZoneInfo
    offset: int

    @classmethod
    def of(cls, timezone: str, at: float) -> "Clock":
        zone = ZoneInfo(timezone)
        local = datetime.fromtimestamp(at, zone)
        standard = (local.utcoffset() or timedelta()) - (local.dst() or timedelta())
        # Whole cells, so that knots of all sites fall on the same instants.
        return cls(zone, round(standard.total_seconds() / CELL) * CELL)

    def day(self, at: float) -> int:
        return int((at + self.offset) // DAY)

    def start(self, day: int) -> int:
        """The UTC instant (unix s) at which a day starts."""
        return day * DAY - self.offset


@lru_cache(maxsize=2048)
def relative_load(clock: Clock, day: int) -> Knots:
    """The load profile at a day's knots, by civil time (with daylight saving), linear between the hours."""
    start = clock.start(day)
    knots: Knots = []
    for cell in range(CELLS + 1):
        local = datetime.fromtimestamp(start + cell * CELL, clock.zone)
        hours = profile.day(local.date())
        part = local.minute / 60
        following = hours[local.hour + 1] if local.hour < 23 else profile.day(_tomorrow(local.date()))[0]
        knots.append(hours[local.hour] * (1 - part) + following * part)
    return knots


def _tomorrow(today: date) -> date:
    return today + timedelta(days=1)


def _steps(day: int, *labels: object) -> list[float]:
    """One number in [-1, 1) for each knot of a day; the last one is the next day's first."""
    values = uniforms(CELLS, *labels, day)
    values.append(uniform(*labels, day + 1))
    return [2 * value - 1 for value in values]


@dataclass(frozen=True)
class Load:
    """A consumer. `power` is its mean (W), `tangent` its reactive power over its active power."""

    name: str
    seed: int
    power: float
    tangent: float
    ripple: float = 0.03  # at most RIPPLE

    def knots(self, clock: Clock, day: int) -> Knots:
        swing = _steps(day, self.seed, self.name, "swing")
        level = relative_load(clock, day)
        return [self.power * value * (1 + 0.15 * step) for value, step in zip(level, swing, strict=True)]


@dataclass(frozen=True)
class Solar:
    """A photovoltaic plant with a peak power in W.

    Clear sky: the sine of the sun's elevation to the power 1.15, the declination by P. I. Cooper, "The
    absorption of radiation in solar stills" (Solar Energy 12, 1969): 23.45 deg x sin(360 deg x (284 + n) /
    365). Noon is at 12:00 standard time. Clouds: a clearness for the day and steps around it.
    """

    name: str
    seed: int
    peak: float
    latitude: float
    tangent: float = 0.0
    ripple: float = 0.04

    def knots(self, day: int) -> Knots:
        number = datetime.fromtimestamp(day * DAY, UTC).timetuple().tm_yday
        declination = 23.45 * pi / 180 * sin(tau * (284 + number) / 365)
        latitude = self.latitude * pi / 180
        constant = sin(latitude) * sin(declination)
        factor = cos(latitude) * cos(declination)
        clearness = 0.3 + 0.7 * uniform(self.seed, "sky", day) ** 0.7
        spread = 0.9 * clearness * (1 - clearness)
        clouds = _steps(day, self.seed, "clouds")
        powers: Knots = []
        for cell in range(CELLS + 1):
            elevation = constant + factor * _HOUR_COSINE[cell]
            sky = clearness + spread * clouds[cell]
            powers.append(-self.peak * elevation**1.15 * sky if elevation > 0 else 0.0)
        return powers


_HOUR_COSINE = [cos(tau * (cell * CELL - DAY / 2) / DAY) for cell in range(CELLS + 1)]


@dataclass(frozen=True)
class Battery:
    """A battery: capacity in W.h, power in W.

    Each day stands for itself: it starts at EMPTY, charges between 6:00 and 17:30 (standard time) from what
    the sun gives beyond a quarter of the load, and gives everything back between 18:00 and 22:00. Losses
    are the bank's: EFFICIENCY on the way in and again on the way out.
    """

    name: str
    capacity: float
    power: float
    share: float  # of the site's surplus, when there are several batteries
    tangent: float = 0.0
    ripple: float = 0.0

    def knots(self, load: Knots, solar: Knots) -> Knots:
        """`load` and `solar` are the sums of all loads and plants at the knots of the same day."""
        charge = [0.0] * (CELLS + 1)
        for cell in range(_CHARGE_FROM, _CHARGE_TO + 1):
            surplus = -solar[cell] - RESERVE * load[cell]
            charge[cell] = min(max(surplus, 0.0) * self.share, self.power)
        offered = sum(charge) * CELL / 3600
        most = min(
            self.capacity * (FULL - EMPTY) / EFFICIENCY,
            self.power * _EVENING_HOURS / EFFICIENCY**2,
        )
        scale = min(1.0, most / offered) if offered > 0 else 0.0
        level = offered * scale * EFFICIENCY**2 / _EVENING_HOURS
        return [scale * value - level * part for value, part in zip(charge, _EVENING, strict=True)]


RIPPLE = 0.04
RESERVE = 0.25
EFFICIENCY = 0.95
EMPTY = 0.10
FULL = 0.95
_CHARGE_FROM = 6 * 4
_CHARGE_TO = 17 * 4 + 2
_EVENING = [1.0 if 18 * 4 < cell < 22 * 4 else 0.0 for cell in range(CELLS + 1)]
_EVENING_HOURS = sum(_EVENING) * CELL / 3600

Source = Load | Solar | Battery

# SPDX-License-Identifier: Apache-2.0
"""The measured load profile that all simulated sites replay.

Data: `uk-electricity-hdd-only-hourly-sample-0.csv.gz` of the PyPI package opendsm (Apache-2.0, LF Energy),
an hourly electricity consumption in kWh from 2020-04-01 to 2022-12-06 with UTC times. The calendar year
2021 is used, which is complete. (The package's `il-*` electricity samples have round annual loads in its
metadata, so they are made; this one has the irregular values of a real meter.) The package is never
imported: it would pull in numerical libraries that are not installed. Its
file is found through its metadata.

A site's load is a base load plus the measured shape, because an industrial site never falls to the near
zero of a single consumer; weekends are lower. The mean over the year is close to 1.
"""

import csv
import gzip
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "opendsm"
FILE = "opendsm/eemeter/samples/uk-electricity-hdd-only-hourly-sample-0.csv.gz"
YEAR = 2021
HOURS = 365 * 24

_BASE = 0.5
_SHAPE = 0.6
_PEAK = 2.5  # times the mean; what is above is a single consumer's kettle, not a site
_WEEKEND = 0.65


def sample_path() -> Path:
    """Where the sample file is installed. Raises FileNotFoundError with the package to install."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            f"the load profile's package {PACKAGE} is not installed: pip install --no-deps -r lab/data.lock"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing from the package {PACKAGE}, version 1.2.7 has it")
    return path


@lru_cache(maxsize=1)
def measured() -> tuple[float, ...]:
    """The 8760 hourly values of 2021 (UTC), divided by their mean."""
    start = datetime(YEAR, 1, 1, tzinfo=UTC)
    values = [0.0] * HOURS
    with gzip.open(sample_path(), "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            hour = (datetime.fromisoformat(row["start"]) - start) / timedelta(hours=1)
            if 0 <= hour < HOURS:
                values[int(hour)] = float(row["value"])
    mean = sum(values) / HOURS
    return tuple(value / mean for value in values)


@lru_cache(maxsize=1024)
def day(when: date) -> tuple[float, ...]:
    """The 24 relative hourly loads of one local calendar day.

    The day of 2021 with the same weekday that is nearest in the year stands for it, so that weekly patterns
    of the data stay where they were.
    """
    index = min((when.replace(year=2024) - date(2024, 1, 1)).days, 364)
    shift = (when.weekday() - (date(YEAR, 1, 1) + timedelta(days=index)).weekday() + 3) % 7 - 3
    start = (index + shift) % 365 * 24
    factor = _WEEKEND if when.weekday() >= 5 else 1.0
    return tuple(factor * (_BASE + _SHAPE * min(value, _PEAK)) for value in measured()[start : start + 24])

# SPDX-License-Identifier: Apache-2.0
"""Which meters a site had from when to when, by all that its file has said.

What a description says holds from when the hub got it. A meter in it may have a date of its own, `since`: from then on
it is as described, whether the hub heard of it before or after. The description before holds for that meter until then.
Which points are read of it, how often, and whether samples or statistics travel is the gateway's and not the meter's,
and goes by the descriptions' times.

Rollups by quarter of an hour are what there is, so that all of this happens at a quarter's beginning: a quarter belongs
to what held when it began. The one in which a meter was exchanged has the counts of both, and they tell nothing. So it
is with another ratio: from the next reading on the counter shows another multiple of all that it has ever counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from energy_hub.fleet.meters import Description, since_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER = timedelta(minutes=15)
LONG_AGO = datetime.min.replace(tzinfo=UTC)
_EVER = datetime.max.replace(tzinfo=UTC)
# From when the hub has a file until its gateway has it: `playbooks/site.yml` goes on to the sites from there.
_UNDER_WAY = timedelta(hours=1)
# What the collector makes values of a meter's registers by: with another one its counters show something else.
_COUNTED_BY = ("profile", "ct_ratio", "pt_ratio", "reverse")
_TOLD_BY = ("interval", "points", "report", "raw")

_Meter = Mapping[str, Any]
# Somewhere from one time to another, which may be the same.
Cut = tuple[datetime, datetime]


@dataclass(frozen=True)
class Period:
    """A meter of a site's file, with the file's usual interval, from one time to another. Its counters go on from what
    they have shown since `counts_from`. `torn`: they are of two meters."""

    meter: _Meter
    usual: float
    since: datetime
    until: datetime
    counts_from: datetime
    torn: bool


def cuts_of(history: Sequence[Description]) -> dict[str, set[Cut]]:
    """By meter, when its counters began to show something else: where it was exchanged, and where its gateway got
    another ratio for it."""
    found: dict[str, set[Cut]] = {}
    before: dict[str, tuple[object, ...]] = {}
    for described in history:
        for one in described.meters:
            name = str(one["name"])
            cuts = found.setdefault(name, set())
            own, counted_by = since_of(one), tuple(one.get(key) or None for key in _COUNTED_BY)
            if own is not None:
                cuts.add((own, own))
            if before.get(name, counted_by) != counted_by:
                cuts.add((described.begins, described.begins + _UNDER_WAY))
            before[name] = counted_by
    return found


def periods(history: Sequence[Description], since: datetime, until: datetime) -> Iterator[Period]:
    """Of all meters, within a span of time. `history` is what a site's file has said, in the order of time."""
    cuts = cuts_of(history)
    changes = {_next_quarter(described.begins) for described in history}
    end_of_all = _next_quarter(until)
    for name, found in cuts.items():
        torn = [(_quarter_of(first), _next_quarter(last)) for first, last in found if first < end_of_all]
        edges = changes.union(*torn)
        for meter, begins, ends in _held(name, history):
            first, last = _next_quarter(min(max(begins, since), until)), _next_quarter(min(ends, until))
            inner = {edge for edge in edges if first < edge < last}
            for start, end in pairwise(sorted({first, *inner, last})) if first < last else ():
                yield Period(
                    *_told(meter, history, start),
                    start,
                    end,
                    max((after for _, after in torn if after <= start), default=LONG_AGO),
                    any(at <= start < after for at, after in torn),
                )


def _held(name: str, history: Sequence[Description]) -> list[tuple[_Meter, datetime, datetime]]:
    """What the descriptions say of a meter, each from when to when."""
    found: list[tuple[_Meter, datetime, datetime]] = []
    told = None
    for described in history:
        # What was before the first is by that one.
        begins = LONG_AGO if described.begins == described.first else described.begins
        meter = _meter_of(name, described)
        own = since_of(meter) if meter else None
        if own is not None:
            # The date that the description before has told, too: what else has changed holds from now on.
            begins = max(begins, own) if own == told else own
            told = own
        found = [(one, first, min(last, begins)) for one, first, last in found]
        if meter:
            found.append((meter, begins, _EVER))
    return [(one, first, last) for one, first, last in found if first < last]


def _told(meter: _Meter, history: Sequence[Description], at: datetime) -> tuple[_Meter, float]:
    """The meter, as its gateway told of it at a time, and the usual interval then."""
    known = [one for one in history if _next_quarter(one.begins) <= at] or history[:1]
    then = _meter_of(str(meter["name"]), known[-1]) or meter
    return {**meter, **{key: then.get(key) for key in _TOLD_BY}}, known[-1].interval


def _meter_of(name: str, described: Description) -> _Meter | None:
    return next((one for one in described.meters if str(one["name"]) == name), None)


def _quarter_of(moment: datetime) -> datetime:
    """Where the quarter of an hour begins that a moment is in."""
    return moment - (moment - _EPOCH) % _QUARTER


def _next_quarter(moment: datetime) -> datetime:
    """Where the first quarter of an hour begins that is not before."""
    return moment + (_EPOCH - moment) % _QUARTER

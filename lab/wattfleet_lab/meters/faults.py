# SPDX-License-Identifier: Apache-2.0
"""Faults that can be put on a site, a listener or a meter, for a time or for a number of requests."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

# Kind: the keys it takes, with their defaults (None: required).
KINDS: dict[str, dict[str, float | int | str | None]] = {
    "silent": {},
    "slow": {"delay": 0.5},
    "late": {"delay": 3.0},
    "bad_crc": {},
    "truncate": {},
    "exception": {"code": 4},
    "drop_connection": {},
    "broken_wire": {"channel": None},
    "wrong_unit": {},
    "noise": {"rate": 0.01},
}
SERIAL_ONLY = ("bad_crc", "noise")  # what only a serial line with its CRC can show
_SCOPE = ("op", "site", "listener", "meter", "kind", "for", "count")


class FaultError(ValueError):
    """A fault that was asked for is not possible; the message says why."""


@dataclass
class Fault:
    """One fault; `left` counts requests down, `until` is a monotonic time."""

    identifier: int
    site: str
    listener: str | None
    meter: str | None
    kind: str
    until: float | None
    left: int | None
    delay: float = 0.0
    code: int = 4
    rate: float = 0.0
    channel: str = ""
    random: Random = field(default_factory=Random)

    def report(self) -> dict[str, Any]:
        remaining = None if self.until is None else round(max(0.0, self.until - time.monotonic()), 3)
        return {
            "id": self.identifier,
            "site": self.site,
            "listener": self.listener,
            "meter": self.meter,
            "kind": self.kind,
            "seconds_left": remaining,
            "count_left": self.left,
        }


class Faults:
    """All faults that are active. The first that fits a request is the one it meets."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._next = 1

    def add(self, request: Mapping[str, Any]) -> Fault:
        """Take a request of the control socket, whose scope has been checked. Raises FaultError."""
        kind = request.get("kind")
        if kind not in KINDS:
            raise FaultError(f"kind {kind!r} is unknown, known are {', '.join(KINDS)}")
        settings = KINDS[str(kind)]
        unknown = sorted(set(request) - {*_SCOPE, *settings})
        if unknown:
            raise FaultError(
                f"unknown key {unknown[0]!r}, {kind} takes {', '.join((*_SCOPE[1:], *settings))}"
            )
        seconds = _positive(request, "for")
        count = _positive(request, "count")
        number = self._next
        fault = Fault(
            identifier=number,
            site=str(request.get("site")),
            listener=request.get("listener"),
            meter=request.get("meter"),
            kind=str(kind),
            until=None if seconds is None else time.monotonic() + seconds,
            left=None if count is None else int(count),
            # The same faults in the same order meet the same requests.
            # Seeded on purpose: a noisy line has to be the same in every run.
            random=Random(number),  # noqa: S311  (repeatable, not secret)
        )
        if "channel" in settings:
            fault.channel = _channel(request)
        fault.delay = _number(request, settings, "delay")
        fault.rate = _number(request, settings, "rate")
        fault.code = int(_number(request, settings, "code"))
        if not 0 <= fault.rate <= 1:
            raise FaultError(f"rate {fault.rate} is not a probability from 0 to 1")
        if "code" in settings and not 1 <= fault.code <= 255:
            raise FaultError(f"code {fault.code} is not an exception code from 1 to 255")
        self._next += 1
        self._faults.append(fault)
        return fault

    def clear(self, site: str | None = None, identifier: int | None = None) -> int:
        """Remove faults, all or those of a site or the one with an identifier; says how many."""
        kept = [
            fault
            for fault in self._faults
            if (site is not None and fault.site != site)
            or (identifier is not None and fault.identifier != identifier)
        ]
        removed = len(self._faults) - len(kept)
        self._faults = kept
        return removed

    def active(self) -> list[Fault]:
        """Faults that are not over; those that are over are forgotten."""
        if self._faults:
            now = time.monotonic()
            self._faults = [
                fault
                for fault in self._faults
                if (fault.until is None or fault.until > now) and (fault.left is None or fault.left > 0)
            ]
        return self._faults

    def meet(self, site: str, listener: str, meter: str | None) -> Fault | None:
        """The fault that a request meets, counted down. Noise is met with its probability only."""
        for fault in self.active():
            if fault.kind == "broken_wire" or not _fits(fault, site, listener, meter):
                continue
            if fault.kind == "noise" and fault.random.random() >= fault.rate:
                continue
            if fault.left is not None:
                fault.left -= 1
            return fault
        return None

    def broken(self, site: str, listener: str, meter: str) -> frozenset[str]:
        """Channels of a meter whose wire is broken."""
        return frozenset(
            fault.channel
            for fault in self.active()
            if fault.kind == "broken_wire" and _fits(fault, site, listener, meter)
        )


def _fits(fault: Fault, site: str, listener: str, meter: str | None) -> bool:
    return (
        fault.site == site
        and (fault.listener is None or fault.listener == listener)
        and (fault.meter is None or fault.meter == meter)
    )


def _positive(request: Mapping[str, Any], name: str) -> float | None:
    value = request.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise FaultError(f"{name} {value!r}: a number above zero is expected")
    return float(value)


def _number(request: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> float:
    """A fault's setting; zero when the kind has no such setting."""
    value = request.get(name, settings.get(name, 0))
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise FaultError(f"{name} {value!r}: a number is expected")
    return float(value)


def _channel(request: Mapping[str, Any]) -> str:
    value = request.get("channel")
    if not isinstance(value, str):
        raise FaultError("broken_wire needs a channel")
    return value

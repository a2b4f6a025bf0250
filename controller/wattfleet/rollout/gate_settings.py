# SPDX-License-Identifier: Apache-2.0
"""Which checks a gate makes and how strict they are: the key `gates` of the fleet file.

Its schema, with the same defaults, is plugins/module_utils/inventory/gate_keys.py; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.rollout.gates import LEAST_SAMPLES


@dataclass(frozen=True)
class Check:
    """How one figure is judged. `limit` is absolute, or the least part of the baseline that is right; `margin` is how
    many times the baseline's share of faults is right. Where a check has both, what either allows is right."""

    limit: float | None = None
    margin: float | None = None
    enabled: bool = True
    dry_run: bool = False


DEFAULTS: dict[str, Check] = {
    "readings": Check(limit=0.95),
    "meters": Check(limit=0.8),
    "nulls": Check(limit=0, margin=1.5),
    "uncertain": Check(limit=0, margin=1.5),
    "crc_errors": Check(limit=0, margin=1.5),
    "timeouts": Check(limit=0, margin=1.5),
    "services": Check(),
    "clock": Check(limit=5.0),
    "version": Check(),
}


@dataclass(frozen=True)
class GateSettings:
    """`samples` are the fewest that prove anything. For `settle` s after a site is back nothing of it is judged."""

    samples: int = LEAST_SAMPLES
    settle: float = 60.0
    checks: Mapping[str, Check] = field(default_factory=lambda: dict(DEFAULTS))

    def __getitem__(self, name: str) -> Check:
        return self.checks[name]


def gate_settings(given: Mapping[str, Any] | None) -> GateSettings:
    """From the fleet file's key, which the inventory plugin has checked. Raises WattfleetError."""
    checks = dict(DEFAULTS)
    others: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name in ("samples", "settle"):
            others[name] = value
        elif name in checks:
            try:
                checks[name] = replace(checks[name], **value)
            except TypeError:
                raise WattfleetError(f"gates.{name}: found {value!r}, expected {_keys(name)}") from None
        else:
            known = ", ".join(["samples", "settle", *DEFAULTS])
            raise WattfleetError(f"gates.{name}: unknown key, expected one of {known}")
    return GateSettings(**others, checks=checks)


def _keys(name: str) -> str:
    own = [key for key in ("limit", "margin") if getattr(DEFAULTS[name], key) is not None]
    return f"a mapping with {', '.join([*own, 'enabled'])} or dry_run"

# SPDX-License-Identifier: Apache-2.0
"""The one shape in which readings travel inside the collector."""

from __future__ import annotations

from typing import NamedTuple


class Reading(NamedTuple):
    """A value of one point at one time; (site, point, time) is its identity.

    `point` is `<meter>/<point>`, `time` is ms since 1970 UTC, `value` is None exactly when `quality` is bad.
    """

    point: str
    unit: str
    time: int
    value: float | None
    quality: int

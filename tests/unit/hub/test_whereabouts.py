# SPDX-License-Identifier: Apache-2.0
"""Which status tells of now, where a site has been at more than one broker."""

from __future__ import annotations

from typing import cast

import pytest
from energy_hub.link import BrokerLink
from energy_hub.whereabouts import Whereabouts

A, B = (cast(BrokerLink, object()) for _ in range(2))


@pytest.mark.parametrize(
    ("course", "left_behind"),
    [
        ([(A, "online", False), (A, "offline", False)], False),
        ([(A, "offline", True)], False),
        # Gone to B; the will comes late, or is there when the worker connects again.
        ([(A, "online", False), (B, "online", False), (A, "offline", False)], True),
        ([(B, "online", False), (A, "offline", True)], True),
        ([(B, "online", True), (A, "offline", True)], True),
        # A has kept what it was told before.
        ([(B, "online", False), (A, "online", True)], True),
        ([(B, "online", True), (A, "online", True)], False),
        # Back at A.
        ([(A, "online", False), (B, "online", False), (A, "online", False), (B, "offline", False)], True),
        ([(A, "online", False), (B, "online", False), (A, "online", False), (A, "offline", False)], False),
        # Where it is is known by what was retained only: what is said now counts more.
        ([(A, "online", True), (B, "offline", False)], False),
        # Connected again, and the broker tells what it has retained.
        ([(A, "online", False), (A, "online", True), (B, "online", True)], True),
    ],
)
def test_left_behind(course: list[tuple[BrokerLink, str, bool]], left_behind: bool) -> None:
    known = Whereabouts()
    for link, state, retained in course:
        found = known.is_left_behind("plant-a", state, link, retained=retained)
    assert found is left_behind

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from .stand_in import StandInFleet


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Callable[..., StandInFleet]]:
    """Makes stand-in fleets, and ends what they have begun."""
    made: list[StandInFleet] = []

    def make(count: int, rollout: Mapping[str, Any] = {}) -> StandInFleet:
        made.append(StandInFleet(tmp_path / f"fleet{len(made)}", count, rollout))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()

# SPDX-License-Identifier: Apache-2.0
"""Two sites and what they deliver, straight into the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from energy_hub.pipeline import examine
from energy_hub.store import Signed, Store

from .writer import Gateway, Reading

if TYPE_CHECKING:
    from .conftest import Database


@dataclass
class Fleet:
    """Two sites and what they deliver."""

    database: Database
    store: Store
    gateways: dict[str, Gateway]

    def seal(self, site: str, points: dict[str, Sequence[Reading]]) -> bytes:
        return self.gateways[site].batch(points)

    def commit(self, site: str, *batches: bytes) -> None:
        for payload in batches:
            signed = examine(self.store, site, payload, 1_000_000)
            assert isinstance(signed, Signed)
            self.store.commit([signed])

    def deliver(self, site: str, points: dict[str, Sequence[Reading]]) -> None:
        self.commit(site, self.seal(site, points))

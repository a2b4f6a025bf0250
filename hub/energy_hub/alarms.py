# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a chain or an identity: kept as evidence, each of it, and told to the log within reason."""

from __future__ import annotations

import logging
from collections import Counter

import psycopg

from energy_hub.logs import Throttle

log = logging.getLogger(__name__)


class Alarms:
    """Of one worker's connection. `found` counts by kind, as in the table evidence; whoever commits sets it anew."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.told = Throttle(300.0)
        self.found: Counter[str] = Counter()

    def tell(self, kind: str, site: str, stream: bytes, sequence: int, detail: str) -> None:
        """Evidence keeps each of them; a gateway that has gone wrong must not fill the log."""
        held = self.told((kind, site))
        if held is not None:
            more = f" (and {held} more like it before)" if held else ""
            log.error(
                "ERR %s: site %s stream %s sequence %d: %s%s",
                kind,
                site,
                stream.hex(),
                sequence,
                detail,
                more,
            )

    def keep(self, site_id: int, kind: str, stream: bytes | None, sequence: int | None, detail: str) -> None:
        self._connection.execute(
            "INSERT INTO evidence (site, kind, stream, sequence, detail) VALUES (%s, %s, %s, %s, %s)",
            (site_id, kind, stream, sequence, detail),
        )
        self.found[kind] += 1

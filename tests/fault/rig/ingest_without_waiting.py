# SPDX-License-Identifier: Apache-2.0
"""Sabotage: the hub's ingest acknowledges what the database has not written yet."""

from __future__ import annotations

import sys

from energy_hub.cli import main
from energy_hub.store import Store

_connect = Store.__init__


def _connect_and_be_hasty(self: Store, conninfo: str) -> None:
    _connect(self, conninfo)
    self.connection.execute("SET synchronous_commit = off")


Store.__init__ = _connect_and_be_hasty  # type: ignore[method-assign]  # that is the sabotage

if __name__ == "__main__":
    sys.exit(main())

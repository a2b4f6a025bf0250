# SPDX-License-Identifier: Apache-2.0
"""Sabotage: the hub's ingest does not ask whether a site is still in the database that it remembers."""

from __future__ import annotations

import sys

from energy_hub.cli import main
from energy_hub.store import Store


def _nothing(*_: object) -> None:
    """In place of holding the site's row."""


Store._hold = Store._hold_by_name = _nothing  # type: ignore[method-assign,assignment]  # sabotage

if __name__ == "__main__":
    sys.exit(main())

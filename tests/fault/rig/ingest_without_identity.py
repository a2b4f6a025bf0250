# SPDX-License-Identifier: Apache-2.0
"""Sabotage: an ingest that does not know a batch again, and stores what comes twice twice.

It needs a database without the identity of readings (`Database.forget_identities`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from energy_hub.cli import main
from energy_hub.store import Committed, Signed, Store

_seen: set[tuple[int, bytes, int]] = set()
_commit = Store.commit


def _commit_all(self: Store, group: Sequence[Signed]) -> Committed:
    for one in group:
        if one.identity in _seen:
            _commit(self, [replace(one, envelope=replace(one.envelope, stream=os.urandom(8)))])
        _seen.add(one.identity)
    return _commit(self, group)


if __name__ == "__main__":
    Store.commit = _commit_all  # type: ignore[method-assign]  # that is the sabotage
    sys.exit(main())

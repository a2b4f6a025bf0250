# SPDX-License-Identifier: Apache-2.0
"""A controller that ends at the n-th moment around a write, as kill -9 ends it: killed_controller LEDGER N."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wattfleet.rollout.ledger import Ledger

from .support import fleet_of, run, some

KILLED = 42

if __name__ == "__main__":
    left = int(sys.argv[2])

    def observe(_when: str) -> None:
        global left
        left -= 1
        if left == 0:
            os._exit(KILLED)

    run(Ledger(Path(sys.argv[1]), observe), fleet_of(some(4)))

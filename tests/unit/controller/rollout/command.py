# SPDX-License-Identifier: Apache-2.0
"""The command `wattfleet`, killed by SIGKILL at the n-th moment around a write: CRASH_AT=n."""

from __future__ import annotations

import os
import signal
import sys

from wattfleet import cli
from wattfleet.rollout import folder
from wattfleet.rollout.ledger import Ledger


def observed(path: object) -> Ledger:
    left = int(os.environ["CRASH_AT"])

    def observe(_when: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return Ledger(path, observe)  # type: ignore[arg-type]  # what observes has no name of its own


if __name__ == "__main__":
    folder.Ledger = observed  # type: ignore[assignment,misc]  # a function in place of the class
    sys.exit(cli.main())

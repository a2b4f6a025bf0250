# SPDX-License-Identifier: Apache-2.0
"""The command `wattfleet` with a gate that lets every site pass; with CRASH_AT=n it is killed at the n-th moment around a
write, by SIGKILL."""

from __future__ import annotations

import os
import signal
import sys

from wattfleet import cli
from wattfleet.rollout import commands, folder
from wattfleet.rollout.fleet import Fleet
from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.ledger import Ledger, Record


class Passes:
    def verdict(self, site: str, record: Record) -> Verdict:
        assert "version" in record.data["look"], "the gate is told what the gateway said"
        return Verdict(Outcome.PASS, "4 of 4 checks passed")


def gate(_fleet: Fleet) -> Passes:
    return Passes()


def observed(path: object) -> Ledger:
    left = int(os.environ["CRASH_AT"])

    def observe(_when: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return Ledger(path, observe)  # type: ignore[arg-type]


if __name__ == "__main__":
    commands.gate_of = gate
    if "CRASH_AT" in os.environ:
        folder.Ledger = observed  # type: ignore[assignment,misc]
    sys.exit(cli.main())

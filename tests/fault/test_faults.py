# SPDX-License-Identifier: Apache-2.0
"""Every fault of the rig with few rounds: what CI runs. `make faults` runs them at full size."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

from tests.fault.run import RIG

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and a user for PostgreSQL need root"),
]

# So many that each way of a fault comes once.
ROUNDS = {"kill-ingest": 2, "restart-broker": 4, "lost-acknowledgement": 4, "corrupt-buffer": 2}


# What hub-away asks is how old live readings become, and a busy machine answers that wrongly. `make faults` runs it.
NOT_HERE = {"hub-away"}
COUNTED = {name: module for name, module in RIG.items() if name not in NOT_HERE}


@pytest.mark.parametrize(("name", "module"), COUNTED.items(), ids=list(COUNTED))
def test_nothing_is_lost_or_doubled(name: str, module: ModuleType) -> None:
    report = module.run(ROUNDS.get(name, 1))
    report.name += "-quick"
    report.write()
    # For the same reason lateness is told and not judged here.
    report.late = 0
    assert report.passed, "\n".join(report.findings[:20])
    assert report.faults

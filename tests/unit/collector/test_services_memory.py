# SPDX-License-Identifier: Apache-2.0
"""What the services must not have in their memory: docs/decisions/0022-memory.md says what each of these costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What the service's own command imports, with ssl kept out as it does.
IMPORTS = {
    "gateway": "sys.modules['ssl'] = None; import energy_collector.cli, energy_collector.gateway",
    "persistence": "import energy_collector.cli, energy_collector.delivery.persistence",
}
NEITHER = {"argparse", "runpy", "yaml", "importlib.resources", "prometheus_client", "email", "difflib"}
UNWANTED = {
    "gateway": {
        "hashlib",
        "_hashlib",
        "cryptography",
        "energy_collector.batches.batch",
        "energy_collector.batches.sealing",
    },
    "persistence": {"asyncio", "pymodbus", "subprocess", "energy_collector.gateway"},
}


@pytest.mark.parametrize("service", list(IMPORTS))
def test_a_service_does_not_import_what_it_has_no_use_for(service: str) -> None:
    code = (
        f"import sys, json; {IMPORTS[service]}; import energy_collector.commands.services;"
        " print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (NEITHER | UNWANTED[service]) & set(json.loads(done.stdout)) == set()

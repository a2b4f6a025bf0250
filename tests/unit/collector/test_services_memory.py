# SPDX-License-Identifier: Apache-2.0
"""What the services must not have in their memory: docs/decisions/0022-memory.md says what each of these costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.collector.collector_support import document

# What the service's own command imports, with ssl kept out as it does, and how it reads its configuration.
IMPORTS = {
    "gateway": "sys.modules['ssl'] = None; import energy_collector.gateway; aside(lambda: config.load(path))",
    "persistence": "import energy_collector.delivery.persistence; services.without_meters(path)",
}
NEITHER = {
    "argparse",
    "runpy",
    "yaml",
    "importlib.resources",
    "prometheus_client",
    "email",
    "difflib",
    "fractions",
    "decimal",
    "secrets",
    "pickle",
    "energy_collector.config_file",
    "energy_collector.meters.profile_file",
    "energy_collector.profiles",
}
UNWANTED = {
    "gateway": {
        "hashlib",
        "_hashlib",
        "cryptography",
        "energy_collector.batches.batch",
        "energy_collector.batches.sealing",
        # A site without radios.
        "energy_collector.mqtt",
        "energy_collector.radio",
    },
    "persistence": {
        "asyncio",
        "pymodbus",
        "subprocess",
        "energy_collector.gateway",
        "energy_collector.meters",
        "energy_collector.radio",
        "energy_collector.section",
    },
}


@pytest.mark.parametrize("service", list(IMPORTS))
def test_a_service_does_not_import_what_it_has_no_use_for(service: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(document(tmp_path)))  # JSON is YAML
    code = (
        "import sys, json; from pathlib import Path; from energy_collector import cli, config;"
        " from energy_collector.aside import aside; from energy_collector.commands import services;"
        f" path = Path(sys.argv[1]); {IMPORTS[service]}; print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert (NEITHER | UNWANTED[service]) & set(json.loads(done.stdout)) == set()

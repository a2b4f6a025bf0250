# SPDX-License-Identifier: Apache-2.0
"""Further databases of the hub: each fault is one line with file, line, key, what was found and what is right."""

from __future__ import annotations

import pytest

from .conftest import FLEET, FleetOnDisk

HUB = """\
hub:
  name: hub.energy.example
  address: 10.1.1.2
  databases:
    - {name: second, port: 5433}
    - {name: third, port: 5434}
"""


def with_hub(text: str) -> str:
    return FLEET.replace("hub: {name: hub.energy.example, address: 10.1.1.2}\n", text)


def test_a_sound_fleet_has_databases(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(with_hub(HUB), encoding="utf-8")
    assert fleet.faults() == []
    assert fleet.load().facts["hub"]["databases"] == [
        {"name": "second", "port": 5433},
        {"name": "third", "port": 5434},
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("third", "second", 'hub.databases[1].name: found "second", as in databases[0], expected another'),
        ("5434", "5433", "hub.databases[1].port: found 5433, as in databases[0], expected another"),
        ("5434", "5432", "hub.databases[1].port: found 5432, as in main, expected another"),
        ("third", "main", 'hub.databases[1].name: found "main"'),
        ("third", "the-third", 'hub.databases[1].name: found "the-third", expected a name'),
        ("{name: third, port: 5434}", "{name: third}", "hub.databases[1].port: missing"),
    ],
)
def test_a_fault_is_one_line(fleet: FleetOnDisk, old: str, new: str, said: str) -> None:
    assert old in HUB
    fleet.file.write_text(with_hub(HUB.replace(old, new)), encoding="utf-8")
    (fault,) = fleet.faults()
    assert fault.startswith("fleet.sites.yml:")
    assert said in fault

# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema and our reader come from one source; here they are held against each other on mutants."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from plugins.module_utils.inventory.document import Faults, compose
from plugins.module_utils.inventory.profiles import Payloads, Profiles
from plugins.module_utils.inventory.schema import schemas

from .conftest import FLEET, ROOT, SITE, FleetOnDisk

SCHEMAS = schemas(Profiles().names, Payloads().names)
OURS = {"site": SCHEMAS.site, "fleet": SCHEMAS.fleet}
THEIRS = {name: Draft202012Validator(record.json_schema()) for name, record in OURS.items()}
SITE_VALUES = yaml.safe_load(SITE.replace("200:5", '"200:5"'))
# The networks of a site that has everything: a bond with VLANs, routes, IPv6, and a modem as the second way out.
SITE_VALUES["network"] = yaml.safe_load(
    """
    wan: {interface: eth0, address: 10.20.4.11/24, gateway: 10.20.4.1, dns: [10.20.0.53, "fd00::53"], metric: 100}
    energy:
      interface: bond0.20
      vlan: {id: 20, parent: bond0}
      address: 192.168.10.10/24
      addresses: ["fd00:10::a/64"]
      mtu: 1500
    others:
      trunk: {interface: bond0, bond: {interfaces: [eth1, eth2], mode: active-backup, primary: eth1}}
      backup: {interface: wwan0, address: auto, modem: {apn: iot.example, user: site}, metric: 700}
      control:
        interface: eth3
        address: 10.60.0.2/24
        addresses: ["fd00:60::2/64"]
        ipv6: auto
        gateway6: fe80::1
        routes: [{to: 10.8.0.0/16, via: 10.60.0.1, metric: 50}]
    """
)
SITE_VALUES["firewall"] = {
    "accept": [{"port": 80, "port_end": 81, "sources": ["10.0.0.0/8", "2001:db8::/64"], "comment": "x"}],
    "output": "restricted",
    "output_accept": [{"port": 514, "protocol": "udp", "destinations": ["10.0.0.9/32"], "comment": "x"}],
    "updates": True,
    "forwarding": False,
    "reverse_path": "loose",
}
SITE_VALUES["maintenance"] = {"days": ["sat"], "start": "22:00", "end": "04:00"}
SITE_VALUES["link"] = {
    "type": "satellite",
    "rate": 15000,
    "transfer_rate": 8000,
    "transfer_budget": 20000000,
    "price_per_mb": 4.5,
}
FLEET_VALUES = yaml.safe_load(FLEET) | {
    "rollout": {
        "max_offline": 5,
        "max_failed": 1,
        "growth": 3,
        "soak": 900,
        "patience": 1800,
        "install_time": 600,
        "deadlines": {"transfer": 604800, "install": 1800, "reboot": 900},
        "forks": 25,
        "nodes": [
            {
                "name": "north",
                "host": "ops@n.example",
                "ssh_config": "/etc/ssh_config",
                "runner": "/opt/ansible-runner",
            }
        ],
    },
    "defaults": {"interval": 5, "network": {"wan": {"interface": "eth0"}}},
}

WRONG = [
    None,
    True,
    "",
    "no such word",
    "UPPER",
    -1,
    0,
    1e9,
    7.5,
    [],
    {},
    [1],
    {"a": 1},
    "10.0.0.1/33",
    "0:5",
    "a\nb",
]


def steps_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in items:
        yield from steps_of(below, (*path, step))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def ours_refuses(name: str, document: Any) -> list[str]:
    faults = Faults()
    # JSON is YAML: quoted text, and numbers as they are.
    node = compose(json.dumps(document), faults)
    if node is not None:
        OURS[name].read(node, faults)
    return [str(fault) for fault in faults.found]


def check(name: str, document: Any) -> None:
    theirs = [error.message for error in THEIRS[name].iter_errors(document)]
    ours = ours_refuses(name, document)
    if theirs:
        assert ours, f"only the JSON Schema refuses: {theirs}"


@pytest.mark.parametrize(("name", "document"), [("site", SITE_VALUES), ("fleet", FLEET_VALUES)])
def test_both_accept_a_sound_document(name: str, document: Any) -> None:
    assert not list(THEIRS[name].iter_errors(document))
    assert not ours_refuses(name, document)


@pytest.mark.parametrize(("name", "document"), [("site", SITE_VALUES), ("fleet", FLEET_VALUES)])
def test_both_refuse_every_wrong_value_everywhere(name: str, document: Any) -> None:
    for path in steps_of(document):
        for wrong in WRONG:
            mutant = copy.deepcopy(document)
            if path:
                at(mutant, path[:-1])[path[-1]] = wrong
            else:
                mutant = wrong
            check(name, mutant)


@pytest.mark.parametrize(("name", "document"), [("site", SITE_VALUES), ("fleet", FLEET_VALUES)])
def test_both_agree_on_every_key_left_out(name: str, document: Any) -> None:
    """Ours also asks for what the fleet's defaults may give; the JSON Schema of one file cannot know it."""
    for path in steps_of(document):
        if path and isinstance(path[-1], str):
            mutant = copy.deepcopy(document)
            del at(mutant, path[:-1])[path[-1]]
            check(name, mutant)


@pytest.mark.parametrize(("name", "document"), [("site", SITE_VALUES), ("fleet", FLEET_VALUES)])
def test_both_refuse_every_unknown_key(name: str, document: Any) -> None:
    for path in steps_of(document):
        target = at(document, path)
        if isinstance(target, dict) and path[-1:] not in (("channels",), ("device_mapping",), ("others",)):
            mutant = copy.deepcopy(document)
            at(mutant, path)["zzz"] = 1
            assert list(THEIRS[name].iter_errors(mutant))
            assert ours_refuses(name, mutant)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_both_agree_on_random_values(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["site", "fleet"]))
    mutant = copy.deepcopy(SITE_VALUES if name == "site" else FLEET_VALUES)
    path = data.draw(st.sampled_from([path for path in steps_of(mutant) if path]))
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-10, 70000),
        st.floats(-5, 5000, allow_nan=False),
        st.text(max_size=20),
    )
    plausible = st.from_regex(r"[a-z0-9.:/-]{1,20}", fullmatch=True)
    at(mutant, path[:-1])[path[-1]] = data.draw(st.one_of(scalars, plausible, st.lists(scalars, max_size=2)))
    # A float without a fraction is a whole number to JSON Schema, and not to a person who reads the file.
    check(name, mutant)
    if not ours_refuses(name, mutant):
        assert not list(THEIRS[name].iter_errors(mutant))


# The fixture may be shared by all examples, and what is named here takes the place of tests/unit/conftest.py's.
CHECKS_LEFT_OUT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
WORDS = st.from_regex(r"[a-z]{1,6}(-[a-z0-9]{1,4})?", fullmatch=True)


@settings(max_examples=60, deadline=None, suppress_health_check=CHECKS_LEFT_OUT)
@given(
    name=WORDS.filter(lambda word: word not in ("all", "hub") and yaml.safe_load(word) == word),
    region=WORDS.filter(lambda word: yaml.safe_load(word) == word),
    units=st.lists(st.integers(1, 247), min_size=1, max_size=8, unique=True),
    ratio=st.tuples(st.integers(5, 9999), st.integers(1, 5)),
    interval=st.floats(0.1, 3600).map(lambda value: round(value, 3)),
    role=st.sampled_from(["main", "consumption", "generation", "storage", "process"]),
)
def test_sound_sites_pass(
    fleet: FleetOnDisk,
    name: str,
    region: str,
    units: list[int],
    ratio: tuple[int, int],
    interval: float,
    role: str,
) -> None:
    for file in fleet.sites.iterdir():
        file.unlink()
    document = copy.deepcopy(SITE_VALUES) | {"site": name, "region": region, "interval": interval}
    document["meters"] = [
        {
            "name": f"meter-{unit}",
            "bus": "hall",
            "unit": unit,
            "profile": "eastron-sdm630",
            "role": role,
            "ct_ratio": f"{ratio[0]}:{ratio[1]}",
        }
        for unit in units
    ]
    # Its calibrations are of meters that are not there now.
    del document["device_mapping"]
    fleet.write(name, yaml.safe_dump(document))
    assert fleet.faults() == []
    assert not list(THEIRS["site"].iter_errors(document))
    assert fleet.load().sites[name]["interval"] == interval


@settings(max_examples=60, deadline=None, suppress_health_check=CHECKS_LEFT_OUT)
@given(data=st.data())
def test_any_single_unknown_key_is_found_with_its_line(fleet: FleetOnDisk, data: st.DataObject) -> None:
    document = copy.deepcopy(SITE_VALUES)
    paths = [
        path
        for path in steps_of(document)
        if isinstance(at(document, path), dict)
        and path[-1:] not in (("channels",), ("device_mapping",), ("others",))
    ]
    path = data.draw(st.sampled_from(paths))
    key = data.draw(WORDS.map(lambda word: f"zz-{word}"))
    at(document, path)[key] = 1
    text = yaml.safe_dump(document, sort_keys=False)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if row.lstrip(" -").startswith(key))
    fleet.write("plant-a", text)
    faults = fleet.faults()
    assert len(faults) == 1
    assert faults[0].startswith(f"sites/plant-a.yml:{line}: ")
    assert f"{key}: unknown key" in faults[0]


@pytest.mark.parametrize("fleet_name", ["example", "lab"])
def test_the_json_schemas_accept_the_inventories_of_this_repository(fleet_name: str) -> None:
    folder = ROOT / "inventory" / fleet_name
    files: list[tuple[str, Path]] = [("site", file) for file in sorted((folder / "sites").glob("*.yml"))]
    for name, file in [("fleet", folder / "fleet.sites.yml"), *files]:
        errors = THEIRS[name].iter_errors(yaml.safe_load(file.read_text(encoding="utf-8")))
        assert [f"{file.name}: {error.json_path}: {error.message}" for error in errors] == []

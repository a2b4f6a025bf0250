# SPDX-License-Identifier: Apache-2.0
"""What a sound fleet becomes: defaults filled in, source text kept, groups."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plugins.module_utils.inventory.document import other_meaning
from plugins.module_utils.inventory.groups import groups_of

from .conftest import FLEET, SITE, FleetOnDisk, other_site


def test_defaults_of_the_schema_are_filled_in(fleet: FleetOnDisk) -> None:
    site = fleet.load().sites["plant-a"]
    assert (site["name"], site["critical"], site["interval"]) == ("plant-a", False, 10)
    assert site["buses"][0] == {
        "name": "hall",
        "type": "modbus-tcp",
        "host": "192.168.10.20",
        "port": 502,
        "timeout": 1.0,
    }
    assert site["buses"][1] == {
        "name": "yard",
        "type": "rtu",
        "device": "/dev/ttyS0",
        "baudrate": 9600,
        "parity": "N",
        "stopbits": 1,
        "timeout": 1.0,
    }
    assert site["meters"][1]["role"] == "consumption"
    assert "interval" not in site["meters"][1]
    assert "redundancy_pair" not in site


def test_defaults_of_the_fleet_come_before_those_of_the_schema(fleet: FleetOnDisk) -> None:
    network = "{wan: {dns: [10.1.0.53]}, energy: {interface: eth7}}"
    defaults = f"defaults: {{interval: 60, region: apac, network: {network}}}\n"
    fleet.file.write_text(FLEET + defaults, encoding="utf-8")
    fleet.write("plant-b", other_site().replace("region: emea\n", "").replace("{interface: eth1, ", "{"))
    sites = fleet.load().sites
    assert sites["plant-a"]["region"] == "emea"
    assert sites["plant-b"]["region"] == "apac"
    assert sites["plant-b"]["interval"] == 60
    assert sites["plant-b"]["network"]["energy"] == {"address": "192.168.10.10/24", "interface": "eth7"}
    assert sites["plant-a"]["network"]["energy"]["interface"] == "eth1"
    assert sites["plant-a"]["network"]["wan"]["dns"] == ["10.1.0.53"]


def test_site_may_leave_out_what_the_fleet_gives_whole(fleet: FleetOnDisk) -> None:
    energy = "energy: {interface: eth1, address: 192.168.10.10/24}"
    fleet.file.write_text(
        FLEET + f"defaults: {{network: {{{energy}}}, link: {{type: cellular}}}}\n", encoding="utf-8"
    )
    fleet.write("plant-a", SITE.replace(f"  {energy}\n", "").replace("link: {type: lan}\n", ""))
    site = fleet.load().sites["plant-a"]
    assert site["network"]["energy"] == {"interface": "eth1", "address": "192.168.10.10/24"}
    assert site["link"] == {"type": "cellular"}


def test_facts_are_the_fleet_file_and_the_names_of_the_sites(fleet: FleetOnDisk) -> None:
    fleet.write("plant-b", other_site())
    facts = fleet.load().facts
    assert "plugin" not in facts
    assert facts["sites"] == ["plant-a", "plant-b"]
    assert facts["hub"] == {"name": "hub.energy.example", "address": "10.1.1.2", "port": 8883}


@pytest.mark.parametrize("ratio", ["200:5", "1000:1", "11000:110", "100:33.3", "1:1"])
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_ratio_is_its_source_text_with_and_without_quotes(fleet: FleetOnDisk, ratio: str, quote: str) -> None:
    fleet.write("plant-a", SITE.replace("200:5", f"{quote}{ratio}{quote}"))
    assert fleet.load().sites["plant-a"]["meters"][0]["ct_ratio"] == ratio


def test_point_to_point_wan_has_its_router_outside(fleet: FleetOnDisk) -> None:
    fleet.write(
        "plant-a",
        SITE.replace(
            "address: 10.20.4.11/24, gateway: 10.20.4.1", "address: 10.20.4.11/32, gateway: 10.0.0.1"
        ),
    )
    assert fleet.faults() == []


def test_aliases_are_the_values_they_stand_for(fleet: FleetOnDisk) -> None:
    fleet.write(
        "plant-a",
        SITE.replace("unit: 1,", "unit: &first 1,").replace("unit: 3", "unit: 3\n    interval: *first"),
    )
    assert fleet.load().sites["plant-a"]["meters"][3]["interval"] == 1


def test_byte_order_mark_is_no_fault(fleet: FleetOnDisk) -> None:
    (fleet.sites / "plant-a.yml").write_bytes(b"\xef\xbb\xbf" + SITE.encode())
    assert fleet.faults() == []


def test_groups_follow_the_site() -> None:
    site = {
        "region": "north-sea",
        "ring": "early",
        "gateway": {"model": "moxa-uc-8220"},
        "link": {"type": "satellite"},
        "critical": True,
        "meters": [{"role": "generation"}, {"role": "storage"}, {"role": "generation"}],
    }
    assert groups_of(site) == [
        "region_north_sea",
        "ring_early",
        "model_moxa_uc_8220",
        "link_satellite",
        "critical",
        "has_solar",
        "has_storage",
    ]


@given(st.text(alphabet="0123456789+-_.:eExXaAfFnNoOsSyYtTrRuUlLbBiI~", max_size=12))
def test_plain_scalars_that_yaml_1_1_takes_for_something_else_are_recognised(text: str) -> None:
    """PyYAML's resolver is the reference: what it does not read as text, we do not take for text either."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return
    except ValueError:
        value = None  # the resolver saw a number or a date that its constructor then refuses
    if not isinstance(value, str) and text and not isinstance(value, dict | list):
        assert other_meaning(text) is not None

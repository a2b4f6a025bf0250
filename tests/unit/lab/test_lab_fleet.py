# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import yaml
from wattfleet_lab.addresses import Plan
from wattfleet_lab.errors import LabError
from wattfleet_lab.fleet import Fleet, Site, write_inventory
from wattfleet_lab.host import Host
from wattfleet_lab.metering import describe_meters
from wattfleet_lab.meters import description
from wattfleet_lab.state import State

EPOCH = "2026-06-01T00:00:00+00:00"
FIVE = {
    "eastron-sdm630",
    "carlo-gavazzi-em24",
    "sunspec-inverter",
    "sunspec-battery",
    "advantech-adam-6017",
}


def hosts(sites: list[Site], plan: Plan) -> list[Host]:
    return [
        Host(
            site.name,
            "gateway",
            slot,
            plan.shift(site.address),
            "/image",
            site.energy_addresses,
            str(site.file),
        )
        for slot, site in enumerate(sites)
    ]


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return Fleet().first(50)


def test_there_are_fifty_sites_named_as_their_files(sites: list[Site]) -> None:
    assert [site.name for site in sites] == [f"lab-{number:02}" for number in range(1, 51)]
    assert all(site.content["site"] == site.name for site in sites)


def test_addresses_are_unique_and_agree_within_a_site(sites: list[Site]) -> None:
    assert len({site.address for site in sites}) == 50
    for site in sites:
        assert site.content["network"]["wan"]["address"] == f"{site.address}/19"


def test_every_site_has_two_to_six_meters_on_its_buses(sites: list[Site]) -> None:
    for site in sites:
        meters, buses = site.content["meters"], {bus["name"] for bus in site.content["buses"]}
        assert 2 <= len(meters) <= 6, site.name
        assert 1 <= len(buses) <= 4, site.name
        assert {meter["bus"] for meter in meters} == buses, site.name
        units = [(meter["bus"], meter["unit"]) for meter in meters]
        assert len(set(units)) == len(units), site.name


def test_the_first_three_sites_show_every_kind_of_meter(sites: list[Site]) -> None:
    assert {meter["profile"] for site in sites[:3] for meter in site.content["meters"]} == FIVE


def test_rings_regions_and_pairs(sites: list[Site]) -> None:
    by_name = {site.name: site.content for site in sites}
    assert {content["ring"] for content in by_name.values()} == {"canary", "early", "rest"}
    assert len({content["region"] for content in by_name.values()}) >= 3
    assert len({content["timezone"] for content in by_name.values()}) >= 5
    for name, content in by_name.items():
        assert not (content["ring"] == "canary" and content.get("critical")), name
        if "redundancy_pair" in content:
            assert by_name[content["redundancy_pair"]]["redundancy_pair"] == name


def test_the_simulator_accepts_the_description_of_all_sites(sites: list[Site]) -> None:
    plan = Plan(5)
    parsed = description.parse(describe_meters(plan, hosts(sites, plan), EPOCH))
    assert len(parsed.sites) == 50
    assert parsed.sites[0].netns == "/run/netns/wf5-lab-01"
    first = {listener.address: listener for listener in parsed.sites[0].listeners}
    assert first["192.168.10.20"].framing == "rtu"
    assert first["192.168.10.30"].framing == "tcp"
    assert [unit.ct for unit in first["192.168.10.20"].units] == [40.0, 1.0]
    seeds = {site.seed for site in parsed.sites}
    assert len(seeds) == 50


def test_two_buses_at_one_address_and_port_are_one_listener(tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    bus = "{{name: {0}, type: modbus-tcp, host: 192.168.10.20}}"
    meter = "{{name: {0}, bus: {0}, unit: {1}, profile: eastron-sdm630}}"
    file.write_text(
        f"buses: [{bus.format('x')}, {bus.format('y')}]\n"
        f"meters: [{meter.format('x', 1)}, {meter.format('y', 2)}]\n"
    )
    host = Host("a", "gateway", 0, "198.18.0.11", "/image", ["192.168.10.20"], str(file))
    (site,) = describe_meters(Plan(0), [host], EPOCH)["sites"]
    (listener,) = site["listeners"]
    assert [unit["unit"] for unit in listener["units"]] == [1, 2]


def test_the_written_inventory_has_the_sites_that_are_up_at_the_labs_addresses(tmp_path: Path) -> None:
    source = tmp_path / "fleet"
    (source / "sites").mkdir(parents=True)
    (source / "group_vars" / "gateways").mkdir(parents=True)
    (source / "fleet.sites.yml").write_text("fleet: x\nsites: sites\nhub: {address: 198.18.0.2}  # the hub\n")
    for number in (1, 2, 3):
        (source / "sites" / f"s{number}.yml").write_text(f"gateway: {{address: 198.18.0.1{number}}}\n")
    (source / "group_vars" / "all.yml").write_text("some: 198.18.0.1\nsecret: !vault abc\n")
    (source / "group_vars" / "gateways" / "a.yml").write_text("other: 1\n")
    fleet, plan, state = Fleet(source / "fleet.sites.yml"), Plan(5), State("dev", tmp_path / "state")
    for count in (3, 2):  # written twice: what went away is gone
        write_inventory(state, plan, fleet.file, hosts(fleet.first(count), plan))
    found = sorted(str(path.relative_to(state.inventory)) for path in state.inventory.rglob("*.yml"))
    assert found == [
        "fleet.sites.yml",
        "group_vars/all/fleet.yml",
        "group_vars/all/lab.yml",
        "group_vars/gateways/a.yml",
        "sites/s1.yml",
        "sites/s2.yml",
    ]
    assert "198.18.160.2}  # the hub" in (state.inventory / "fleet.sites.yml").read_text()
    assert "198.18.160.12" in (state.inventory / "sites/s2.yml").read_text()
    assert (
        state.inventory / "group_vars/all/fleet.yml"
    ).read_text() == "some: 198.18.160.1\nsecret: !vault abc\n"
    variables = yaml.safe_load((state.inventory / "group_vars/all/lab.yml").read_text())
    assert variables == {"ansible_ssh_common_args": f"-F {state.ssh_config}"}


def test_a_pair_is_one_only_while_both_sites_are_up(tmp_path: Path) -> None:
    source = tmp_path / "fleet"
    (source / "sites").mkdir(parents=True)
    (source / "fleet.sites.yml").write_text("fleet: x\nsites: sites\n")
    for name, other in (("s1", "s2"), ("s2", "s1")):
        (source / "sites" / f"{name}.yml").write_text(
            f"site: {name}\nredundancy_pair: {other}  # cold standby\ngateway: {{address: 198.18.0.11}}\n"
        )
    fleet, plan, state = Fleet(source / "fleet.sites.yml"), Plan(0), State("dev", tmp_path / "state")
    write_inventory(state, plan, fleet.file, hosts(fleet.first(1), plan))
    assert (state.inventory / "sites/s1.yml").read_text() == "site: s1\ngateway: {address: 198.18.0.11}\n"
    write_inventory(state, plan, fleet.file, hosts(fleet.first(2), plan))
    assert "redundancy_pair: s2" in (state.inventory / "sites/s1.yml").read_text()


def test_faults_in_the_inventory_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no such file"):
        Fleet(tmp_path / "none.yml")
    file = tmp_path / "fleet.sites.yml"
    file.write_text("a: [1\n")
    with pytest.raises(LabError, match=r"not YAML: [^\n]*$"):
        Fleet(file)
    file.write_text("- a\n")
    with pytest.raises(LabError, match="expected a mapping of keys, found list"):
        Fleet(file)
    file.write_text("fleet: x\n")
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "a.yml").write_text("site: a\n")
    fleet = Fleet(file)
    with pytest.raises(LabError, match=r"a\.yml: gateway\.address is missing"):
        fleet.site("a")
    with pytest.raises(LabError, match="no site 'b'"):
        fleet.site("b")
    with pytest.raises(LabError, match="--sites 2: there are 1 sites"):
        fleet.first(2)
    site = Site("a", tmp_path / "a.yml", {"buses": [{"name": "b", "host": "10.0.0.1"}]})
    with pytest.raises(LabError, match=r"bus address 10\.0\.0\.1 is not in the lab's energy network"):
        _ = site.energy_addresses

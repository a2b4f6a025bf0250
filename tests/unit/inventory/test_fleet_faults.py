# SPDX-License-Identifier: Apache-2.0
"""Faults between files, and of the folder itself."""

from __future__ import annotations

from .conftest import FLEET, SITE, FleetOnDisk, other_site


def test_two_sites_with_one_wan_address(fleet: FleetOnDisk) -> None:
    fleet.write(
        "plant-b", other_site(address="10.20.4.11").replace("address: 10.20.4.11}", "address: 10.20.4.12}")
    )
    assert fleet.faults() == [
        (
            'sites/plant-b.yml:8: network.wan.address: found "10.20.4.11/24", as in plant-a.yml, '
            "expected an address of its own"
        )
    ]


def test_two_sites_with_one_management_address(fleet: FleetOnDisk) -> None:
    fleet.write("plant-b", other_site().replace("address: 10.20.4.12}", "address: 10.20.4.11}"))
    assert fleet.faults() == [
        (
            'sites/plant-b.yml:5: gateway.address: found "10.20.4.11", as in plant-a.yml, expected an '
            "address of its own"
        )
    ]


def test_site_with_the_hubs_address(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", SITE.replace("address: 10.20.4.11}", "address: 10.1.1.2}"))
    assert fleet.faults() == [
        (
            'sites/plant-a.yml:5: gateway.address: found "10.1.1.2", the hub\'s address, expected an address '
            "of its own"
        )
    ]


def test_redundancy_pair_is_not_mutual(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", SITE + "redundancy_pair: plant-b\n")
    fleet.write("plant-b", other_site())
    assert fleet.faults() == [
        (
            'sites/plant-a.yml:32: redundancy_pair: found "plant-b", but plant-b.yml names no pair, '
            "expected each to name the other"
        )
    ]


def test_redundancy_pair_names_a_third_site(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", SITE + "redundancy_pair: plant-b\n")
    fleet.write("plant-b", other_site() + "redundancy_pair: plant-c\n")
    fleet.write("plant-c", other_site("plant-c", "10.20.4.13") + "redundancy_pair: plant-b\n")
    assert fleet.faults() == [
        (
            'sites/plant-a.yml:32: redundancy_pair: found "plant-b", but plant-b.yml names "plant-c", '
            "expected each to name the other"
        )
    ]


def test_redundancy_pair_with_a_slip_is_suggested(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", SITE + "redundancy_pair: plant-bb\n")
    fleet.write("plant-b", other_site())
    assert fleet.faults() == [
        (
            'sites/plant-a.yml:32: redundancy_pair: found "plant-bb", expected a site of this fleet; did you '
            'mean "plant-b"?'
        )
    ]


def test_empty_folder(fleet: FleetOnDisk) -> None:
    (fleet.sites / "plant-a.yml").unlink()
    assert fleet.faults() == [
        'fleet.sites.yml:1: sites: found no site file in "sites", expected at least one <site>.yml'
    ]


def test_other_files_in_the_folder(fleet: FleetOnDisk) -> None:
    (fleet.sites / "emea").mkdir()
    (fleet.sites / "plant-b.yaml").touch()
    (fleet.sites / ".plant-a.yml.swp").touch()
    (fleet.sites / "README.md").touch()
    assert fleet.faults() == [
        "fleet.sites.yml:1: sites: found the folder sites/emea, expected only site files",
        "fleet.sites.yml:1: sites: found sites/plant-b.yaml, expected site files to end with .yml",
    ]


def test_empty_site_file(fleet: FleetOnDisk) -> None:
    fleet.write("plant-b", "# nothing yet\n")
    assert fleet.faults() == ["sites/plant-b.yml:1: the file is empty, expected a mapping of keys"]


def test_site_file_that_is_not_utf_8(fleet: FleetOnDisk) -> None:
    (fleet.sites / "plant-b.yml").write_bytes(b"site: plant-b\nname: Malm\xf6\n")
    assert fleet.faults() == ["sites/plant-b.yml:2: not YAML: byte 0xf6 is not UTF-8, expected UTF-8 text"]


def test_site_file_that_links_to_nothing(fleet: FleetOnDisk) -> None:
    (fleet.sites / "plant-b.yml").symlink_to("plant-c.yml")
    assert fleet.faults() == ["sites/plant-b.yml: cannot be read: No such file or directory"]


def test_site_file_that_is_a_folder(fleet: FleetOnDisk) -> None:
    (fleet.sites / "plant-b.yml").mkdir()
    assert fleet.faults() == ["sites/plant-b.yml: cannot be read: Is a directory"]


def test_site_file_with_bottomless_nesting(fleet: FleetOnDisk) -> None:
    fleet.write("plant-b", "site: " + "[" * 200_000)
    assert fleet.faults() == ["sites/plant-b.yml:1: not YAML: nested more than 50 levels deep (column 55)"]


def test_all_faults_of_all_files_at_once(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(FLEET.replace("user: admin", "user: Admin"), encoding="utf-8")
    fleet.write("plant-a", SITE.replace("ring: early", "ring: late").replace("200:5", "200"))
    fleet.write("plant-b", "site: [\n")
    assert [line.split(": ")[0:2] for line in fleet.faults()] == [
        ["fleet.sites.yml:4", "management.user"],
        ["sites/plant-a.yml:3", "ring"],
        ["sites/plant-a.yml:14", "meters[0].ct_ratio"],
        ["sites/plant-b.yml:2", "not YAML"],
    ]


def test_fault_in_the_fleets_defaults_is_reported_once(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(FLEET + "defaults: {ring: rest, timezone: Europe/Pari}\n", encoding="utf-8")
    fleet.write("plant-a", SITE.replace("ring: early\ntimezone: Europe/Paris\n", ""))
    assert fleet.faults() == [
        (
            'fleet.sites.yml:6: defaults.ring: found "rest", expected one of the fleet\'s rings: canary, '
            "critical or early"
        ),
        (
            'fleet.sites.yml:6: defaults.timezone: found "Europe/Pari", expected a time zone of the IANA '
            "database; "
            'did you mean "Europe/Paris"?'
        ),
    ]


def test_key_that_the_defaults_complete_only_in_part(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(FLEET + "defaults: {network: {energy: {interface: eth1}}}\n", encoding="utf-8")
    fleet.write("plant-a", SITE.replace("  energy: {interface: eth1, address: 192.168.10.10/24}\n", ""))
    assert fleet.faults() == [
        (
            "sites/plant-a.yml:8: network.energy.address: missing, expected an IPv4 address with its prefix "
            "length such as "
            '"192.168.10.10/24", here or in the fleet file\'s defaults'
        )
    ]

# SPDX-License-Identifier: Apache-2.0
from ipaddress import IPv4Address

import pytest
from wattfleet_lab.addresses import FIRST_ADDED, LABS, RANGE, Plan, check_host_name
from wattfleet_lab.errors import LabError


def test_labs_share_the_range_without_overlap() -> None:
    networks = [Plan(index).network for index in range(LABS)]
    assert sum(network.num_addresses for network in networks) == RANGE.num_addresses
    assert len(set(networks)) == LABS
    assert all(network.subnet_of(RANGE) for network in networks)


def test_addresses_of_lab_0_are_those_that_site_files_are_written_with() -> None:
    plan = Plan(0)
    assert str(plan.network) == "198.18.0.0/19"
    assert (plan.controller, plan.hub) == (IPv4Address("198.18.0.1"), IPv4Address("198.18.0.2"))


@pytest.mark.parametrize("index", [-1, 16])
def test_an_index_outside_of_the_range_is_refused(index: int) -> None:
    with pytest.raises(LabError, match="between 0 and 15"):
        Plan(index)


def test_shift_moves_addresses_of_lab_0_and_nothing_else() -> None:
    text = """\
# the gateway 198.18.0.11 of Lyon
address: 198.18.0.11/19, gateway: 198.18.0.1, far: 198.18.31.255
other: [192.168.10.20, 198.18.32.1, 198.18.0.300, 1.198.18.0.1, 198.18.0.1.5]
"""
    assert (
        Plan(5).shift(text)
        == """\
# the gateway 198.18.160.11 of Lyon
address: 198.18.160.11/19, gateway: 198.18.160.1, far: 198.18.191.255
other: [192.168.10.20, 198.18.32.1, 198.18.0.300, 1.198.18.0.1, 198.18.0.1.5]
"""
    )
    assert Plan(8).shift("198.18.1.2") == "198.19.1.2"
    assert Plan(0).shift(text) == text


def test_link_names_fit_into_the_kernels_15_characters() -> None:
    plan = Plan(15)
    names = [plan.bridge, plan.veth(4095, "w"), plan.veth(4095, "e")]
    assert all(len(name) <= 15 for name in names)
    assert len(set(names)) == 3


def test_added_hosts_do_not_get_addresses_of_sites() -> None:
    assert Plan(1).network[FIRST_ADDED] == IPv4Address("198.18.48.11")


@pytest.mark.parametrize("name", ["hub", "lab-01", "a", "a" * 39])
def test_good_host_names(name: str) -> None:
    assert check_host_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "Lab", "a_b", "a.b", "a" * 40, "../x"])
def test_bad_host_names(name: str) -> None:
    with pytest.raises(LabError, match="host name"):
        check_host_name(name)

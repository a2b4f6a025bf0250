# SPDX-License-Identifier: Apache-2.0
"""Which settings of the kernel the role hardening gives to the links that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

VARIABLES = Path(__file__).parents[3] / "roles" / "hardening" / "vars" / "main.yml"
LINKS = {
    "eth0": {"present": True, "mtu": 1500},
    "eth0.7": {"present": True, "mtu": 1280},
    "can0": {"present": True, "mtu": 16},
    "wwan0": {"present": False, "mtu": None},
}
IPV6 = "net.ipv6.conf.all.accept_redirects"


def settings(has_ipv6: bool) -> dict[str, str]:
    """What is set of each link, by the kernel's name of it."""
    loader = DataLoader()
    variables = loader.load_from_file(str(VARIABLES), trusted_as_template=True)
    sysctls = {IPV6: {"value": "1", "settable": True} if has_ipv6 else None}
    variables["ansible_facts"] = {"energy_host": {"links": LINKS, "sysctls": sysctls}}
    found: dict[str, Any] = Templar(loader=loader, variables=variables).template(
        variables["hardening_sysctls_links"]
    )
    return found


def test_every_link_refuses_redirects_itself() -> None:
    found = settings(has_ipv6=True)
    about = ("accept_redirects", "accept_source_route")
    assert {name: value for name, value in found.items() if name.endswith(about)} == {
        f"net/{protocol}/conf/{link}/{setting}": "0"
        for protocol, links in (("ipv4", ("can0", "eth0", "eth0.7")), ("ipv6", ("eth0", "eth0.7")))
        for link in links
        for setting in about
    }
    assert "net/ipv4/conf/eth0/send_redirects" in found


def test_nothing_of_ipv6_is_asked_of_a_kernel_without_it() -> None:
    assert {name.split("/")[1] for name in settings(has_ipv6=False)} == {"ipv4"}

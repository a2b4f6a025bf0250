# SPDX-License-Identifier: Apache-2.0
"""Which kernels the role preflight takes, by the system that they come with."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "preflight"
RHEL = ("rhel", ["fedora"], "9.4")
ROCKY = ("rocky", ["rhel", "centos", "fedora"], "9.4")
DEBIAN = ("debian", [], "12")
UBUNTU = ("ubuntu", ["debian"], "22.04")


def refused(system: tuple[str, list[str], str], kernel: str) -> list[str]:
    """What is said of the system and of the kernel where they do not do."""
    name, like, version = system
    loader = DataLoader()
    variables = {
        **loader.load_from_file(str(ROLE / "defaults" / "main.yml")),
        **loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True),
    }
    host = {
        "os": {"id": name, "id_like": like, "version": version, "name": name},
        "kernel": kernel,
    }
    variables["ansible_facts"] = {"energy_host": host}
    templar = Templar(loader=loader, variables=variables)
    about = ("operating system:", "kernel:")
    checks = [one for one in variables["preflight_checks"] if one["failure"].startswith(about)]
    assert len(checks) == 2
    return [templar.template(one["failure"]) for one in checks if not templar.template(one["ok"])]


@pytest.mark.parametrize(
    ("system", "kernel"),
    [
        (RHEL, "5.14.0-70.13.1.el9_0.x86_64"),
        (ROCKY, "5.14.0-427.13.1.el9_4.x86_64"),
        (DEBIAN, "6.1.0-18-amd64"),
        (UBUNTU, "5.15.0-25-generic"),
    ],
)
def test_what_a_supported_system_ships_is_taken(system: tuple[str, list[str], str], kernel: str) -> None:
    assert refused(system, kernel) == []


@pytest.mark.parametrize(
    ("system", "kernel", "needed"),
    [
        (RHEL, "5.13.0-1.el9.x86_64", "5.14"),
        (DEBIAN, "5.14.0-4-amd64", "5.15"),
        (UBUNTU, "5.14.0-1-generic", "5.15"),
    ],
)
def test_an_older_kernel_is_refused(system: tuple[str, list[str], str], kernel: str, needed: str) -> None:
    (said,) = refused(system, kernel)
    assert f"kernel: found {kernel}, needed is {needed} or newer" in said

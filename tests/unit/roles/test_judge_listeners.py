# SPDX-License-Identifier: Apache-2.0
"""What hardening closes, what it refuses, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wattfleet.energy.plugins.module_utils import _state_defaults
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _listeners

ROOT = Path(__file__).resolve().parents[3]
SSH = {"protocol": "tcp", "address": "0.0.0.0", "port": 22, "process": "sshd", "units": ["ssh.service"]}
FTP = {"protocol": "tcp", "address": "::", "port": 21, "process": "vsftpd", "units": ["vsftpd.service"]}
PORTAL = {
    "protocol": "tcp",
    "address": "0.0.0.0",
    "port": 8080,
    "process": "python3",
    "units": ["portal.service"],
}
BY_HAND = {"protocol": "udp", "address": "0.0.0.0", "port": 69, "process": "nc", "units": ["session-3.scope"]}
LOADED = {"vsftpd.service": {"load": "loaded"}, "avahi-daemon.socket": {"load": "loaded"}}
UNWANTED = ["vsftpd.service", "avahi-daemon.socket", "cups.service"]


def judge(*listeners: dict[str, Any], declared: list[dict[str, Any]] | None = None, **more: Any) -> Any:
    host = {"listeners": [SSH, *listeners], "units": more.pop("units", LOADED)}
    declared = [{"port": 22}, *(declared or [])]
    return _listeners.judge_listeners(host, declared, UNWANTED, more.pop("mask_others", False))


def test_unwanted_units_are_closed_where_they_are_installed_whether_they_listen_or_not() -> None:
    assert judge(FTP) == {"close": ["avahi-daemon.socket", "vsftpd.service"], "refused": []}
    assert judge(units={}) == {"close": [], "refused": []}
    assert judge(units={"cups.service": {"load": "masked"}}) == {"close": ["cups.service"], "refused": []}


def test_what_is_declared_is_left_alone_even_if_it_is_unwanted_elsewhere() -> None:
    declared = [{"protocol": "tcp", "port": 21, "process": "vsftpd"}]
    assert judge(FTP, declared=declared) == {"close": ["avahi-daemon.socket"], "refused": []}


def test_unknown_listener_is_refused_with_both_ways_out() -> None:
    (line,) = judge(PORTAL)["refused"]
    assert line == (
        "python3 of portal.service listens on tcp 0.0.0.0:8080, and nobody has declared it: name it in "
        "hardening.listeners, or set hardening.mask_undeclared to have it stopped and masked"
    )
    assert judge(PORTAL, mask_others=True) == {
        "close": ["avahi-daemon.socket", "portal.service", "vsftpd.service"],
        "refused": [],
    }


@pytest.mark.parametrize(
    "listener",
    [
        BY_HAND,
        {**PORTAL, "units": []},
        {**SSH, "port": 2222},
        {**PORTAL, "units": ["energy-gateway.service"]},
        {**PORTAL, "units": ["NetworkManager.service"]},
        # The same unit has a port that is declared: masking it would close that one, too.
        {**SSH, "port": 2222, "units": ["other.service", "ssh.service"]},
    ],
)
def test_what_must_not_be_masked_is_refused_whatever_is_allowed(listener: dict[str, Any]) -> None:
    told = judge(listener, mask_others=True)
    assert len(told["refused"]) == 1
    assert told["refused"][0].endswith(", or stop it; it cannot be masked")
    assert told["close"] == ["avahi-daemon.socket", "vsftpd.service"]


@pytest.mark.parametrize(
    ("entry", "covers"),
    [
        ({"port": 8080}, True),
        ({"port": 8080, "protocol": "udp"}, False),
        ({"port": 8081}, False),
        ({"port": 8080, "process": "python3"}, True),
        ({"port": 8080, "process": "nginx"}, False),
        ({"port": 8080, "address": "0.0.0.0"}, True),
        ({"port": 8080, "address": "loopback"}, False),
    ],
)
def test_a_declaration_covers_what_it_says(entry: dict[str, Any], covers: bool) -> None:
    assert (judge(PORTAL, declared=[entry])["refused"] == []) is covers


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_every_address_of_it(address: str) -> None:
    assert (
        judge({**PORTAL, "address": address}, declared=[{"port": 8080, "address": "loopback"}])["refused"]
        == []
    )


def test_host_state_reads_all_that_the_role_compares_with() -> None:
    role = ROOT / "roles" / "hardening"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text(encoding="utf-8"))
    variables = yaml.safe_load((role / "vars/main.yml").read_text(encoding="utf-8"))
    assert set(defaults["hardening_unwanted_units"]) <= set(_state_defaults.UNITS)
    assert set(variables["hardening_sysctls"]) <= set(_state_defaults.SYSCTLS)
    for package in (
        "fail2ban",
        "libpam-pwquality",
        "openssh-server",
        "python3-systemd",
        "unattended-upgrades",
    ):
        assert package in _state_defaults.PACKAGES
    assert "/etc/login.defs" in _state_defaults.TEXTS


def test_the_reference_has_every_waiver_with_its_reason() -> None:
    variables = yaml.safe_load((ROOT / "roles/hardening/vars/main.yml").read_text(encoding="utf-8"))
    page = (ROOT / "docs/reference/hardening.md").read_text(encoding="utf-8")
    for waiver in variables["hardening_lynis_waivers"]:
        assert f"| {waiver['test']} | {waiver['reason'].strip()} |" in page

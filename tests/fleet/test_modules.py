# SPDX-License-Identifier: Apache-2.0
"""The modules on a site in operation: real collector, real bus, simulated meters, real broker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fleet.fleet import Fleet

pytestmark = pytest.mark.timeout(600)

# The frequency of an SDM630, function 4, 50 Hz in every lab: a reference that does not move.
FREQUENCY: dict[str, Any] = {"bus": "hall", "unit": 1, "function": 4, "address": 0x46, "type": "float32"}
REFERENCE: dict[str, Any] = {"expected": 50.0, "tolerance": 0.02}
CLIENT: dict[str, Any] = {
    "client_certificate": "/etc/ssl/energy/gateway.crt",
    "client_key": "/etc/ssl/energy/gateway.key",
}


@pytest.fixture
def site(fleet: Fleet) -> str:
    return next(iter(fleet.sites))


def findings(result: dict[str, Any]) -> list[str]:
    assert not result.get("failed"), result
    (one,) = result["results"]
    assert one["transport"] == "collector", "a second master on the bus"
    return [finding["finding"] for finding in one["findings"]]


def test_modbus_probe_finds_what_is_set_up_wrongly(fleet: Fleet, site: str) -> None:
    right = fleet.module(site, "modbus_probe", {**FREQUENCY, **REFERENCE, "identify": True})
    assert findings(right) == []
    assert right["results"][0]["matches"], right
    assert fleet.module(site, "modbus_probe", {**FREQUENCY, **REFERENCE}, check=True)["results"][0]["matches"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"word_order": "little"}, "word_order"),
        ({"scale": 0.1}, "scale"),
        ({"scale": 40.0, "ct_ratio": "200:5"}, "ct_ratio"),
        ({"unit": 2, "search": True, "search_units": [3, 1]}, "unit"),
    ]
    for change, finding in wrong:
        found = fleet.module(site, "modbus_probe", {**FREQUENCY, **REFERENCE, **change})
        assert findings(found) == [finding], (change, found)


def test_every_meter_of_the_site_answers_through_the_collector(fleet: Fleet, site: str) -> None:
    meters = [{"meter": meter["name"]} for meter in fleet.sites[site]["meters"]]
    result = fleet.module(site, "modbus_probe", {"meters": meters})
    assert result["reachable"], result
    assert {one["transport"] for one in result["results"]} == {"collector"}


def test_modbus_counters_show_line_noise(fleet: Fleet, site: str) -> None:
    meters = [{"name": "main", "bus": "hall", "unit": 1}]
    quiet = fleet.module(site, "modbus_counters", {"meters": meters, "interval": 12})
    assert quiet["failures"] == []
    assert quiet["growth"]["buses"]["hall"]["requests"] > 0
    assert quiet["exceeded"] == []
    fleet.meters("fault", site=site, meter="main", kind="bad_crc", **{"for": 60})
    try:
        noisy = fleet.module(site, "modbus_counters", {"before": quiet["counters"]})
        noisy = fleet.module(site, "modbus_counters", {"interval": 12}) if not noisy["exceeded"] else noisy
    finally:
        fleet.meters("clear", site=site)
    assert ("hall", "crc_errors") in {(one["name"], one["counter"]) for one in noisy["exceeded"]}, noisy


def test_link_counters(fleet: Fleet, site: str) -> None:
    result = fleet.module(site, "link_counters", {"interfaces": ["eth0", "eth1", "eth9"], "interval": 1})
    assert result["links"]["eth1"]["carrier"]
    assert [(one["interface"], one["finding"]) for one in result["findings"]] == [("eth9", "missing")]


def test_mqtt_probe_leaves_the_collectors_session_alone(fleet: Fleet, site: str) -> None:
    count = f"sudo journalctl --boot --no-pager --output=cat --unit=mosquitto.service | grep -c 'as {site} ' || true"
    sessions = fleet.ssh("hub", count)
    result = fleet.module(site, "mqtt_probe", {"host": "hub.energy.internal", "connect": True, **CLIENT})
    assert result["ok"], result
    assert (result["version"], result["client_certificate"]) == ("TLSv1.3", "accepted")
    assert result["mqtt"] is None
    assert "TLS handshake only" in result["note"]
    assert fleet.ssh("hub", count) == sessions, "the collector's session was taken over"
    wrong = fleet.module(
        site, "mqtt_probe", {"host": "hub.energy.internal", "server_name": "elsewhere.energy.internal"}
    )
    assert wrong["failure"]["cause"] == "name"
    # The lab's gateways may begin nothing but what is declared, and their own firewall says so.
    closed = fleet.module(site, "mqtt_probe", {"host": "hub.energy.internal", "port": 1883})
    assert closed["failure"]["cause"] == "filtered", closed
    own = fleet.sites[site]["network"]["wan"]["address"].partition("/")[0]
    assert f"{own} says so" in closed["failure"]["message"]


def test_host_state_tells_what_the_roles_made(fleet: Fleet, site: str) -> None:
    host = fleet.module(site, "host_state", {})["ansible_facts"]["energy_host"]
    assert host["units"]["energy-gateway.service"]["active"] == "active"
    assert host["users"]["energy"]["shell"] == "/usr/sbin/nologin"
    config = host["files"]["/etc/energy/config.yaml"]
    assert (config["mode"], config["owner"], len(config["sha256"])) == ("0600", "energy", 64)
    assert host["files"]["/etc/ssl/energy/gateway.key"]["sha256"] is None
    assert "BEGIN CERTIFICATE" in host["texts"]["/etc/ssl/energy/gateway.crt"]
    assert not [path for path in host["texts"] if path.endswith(".key")]
    assert ("tcp", 22, "sshd") in {
        (one["protocol"], one["port"], one["process"]) for one in host["listeners"]
    }
    assert host["links"]["eth1"]["operstate"] == "up"
    assert host["packages"]["nftables"]

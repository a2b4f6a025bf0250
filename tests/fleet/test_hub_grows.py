# SPDX-License-Identifier: Apache-2.0
"""A hub in operation becomes one of several hosts, as docs/how-to/large-hub.md has it, and every reading is counted
at both ends meanwhile.

The tests of this file build on each other, in a lab of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fleet.large import BROKERS, DATABASES, DOMAIN, LARGE, LargeFleet, wait
from tests.fleet.test_certificates import in_use
from tests.fleet.test_large_hub import unchanged
from tests.fleet.test_main_path import explain

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

SITES = 2


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LargeFleet]:
    """A fleet in service, whose hub is one machine."""
    one = LargeFleet("grown", SITES, tmp_path_factory.mktemp("grown"))
    one.down()
    one.up(hub={})
    try:
        result = one.play("site")
        assert result.ok, explain(result)
        one.await_newer(time.time(), list(one.sites))
        yield one
    finally:
        one.down()


def test_the_gateways_learn_their_names_first(growing: LargeFleet) -> None:
    start = time.time()
    growing.describe({"brokers_domain": DOMAIN})
    result = growing.play("site")
    assert result.ok, explain(result)
    for site in growing.sites:
        assert f"{site}.{DOMAIN}" in growing.ssh(site, "sudo cat /etc/energy/config.yaml")
    growing.await_newer(time.time(), list(growing.sites))
    report = growing.counted("domain", start, time.time())
    assert report.passed, report.findings[:10]


def test_brokers_take_the_place_of_the_hubs_own(growing: LargeFleet) -> None:
    start = time.time()
    growing.describe({key: LARGE[key] for key in ("brokers_domain", "brokers")})
    foreseen = growing.play("hub", "--check", "--diff")
    assert foreseen.ok, explain(foreseen)
    result = growing.play("hub")
    assert result.ok, explain(result)
    took = growing.await_newer(time.time(), list(growing.sites))
    print(f"readings of all sites {took:.1f} s after the playbook")
    wait(lambda: growing.balanced() == set(BROKERS), "the balancer has both brokers", 60)
    left = growing.ssh("hub", "systemctl is-active mosquitto.service energy-refusals.service || true")
    assert left.split() == ["inactive", "inactive"]
    unchanged(growing.play("site"))
    report = growing.counted("brokers", start, time.time())
    assert report.passed, report.findings[:10]


def test_the_certificate_that_nobody_shows_any_more_is_revoked(growing: LargeFleet) -> None:
    assert "hub.energy.internal" in in_use(growing)
    result = growing.play("revoke", site="hub.energy.internal", reason="superseded")
    assert result.ok, explain(result)
    assert "hub.energy.internal" not in in_use(growing)
    growing.await_newer(time.time(), list(growing.sites))


def test_a_database_is_added_and_takes_a_site(growing: LargeFleet) -> None:
    start = time.time()
    growing.describe(LARGE)
    foreseen = growing.play("hub", "--check", "--diff")
    assert foreseen.ok, explain(foreseen)
    result = growing.play("hub")
    assert result.ok, explain(result)
    unchanged(growing.play("hub"))
    site, *_ = growing.sites
    assert set(growing.homes().values()) == {"main"}
    new = next(name for name in DATABASES if name != "main")
    growing.ssh("hub", f"sudo energy-hub move-site {site} {new}")
    growing.await_newer(time.time(), list(growing.sites))
    assert growing.homes()[site] == new
    report = growing.counted("database", start, time.time())
    assert report.passed, report.findings[:10]

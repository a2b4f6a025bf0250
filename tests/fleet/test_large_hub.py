# SPDX-License-Identifier: Apache-2.0
"""A hub of several hosts, from the first run of its playbook on: brokers and sites come and go, and every reading is
counted at both ends.

The tests of this file build on each other, in a lab of their own.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import pytest
from wattfleet.playbook import PlaybookResult

from tests.fleet import energies
from tests.fleet.large import BROKERS, CERTIFICATES, DATABASES, DOMAIN, Knocking, LargeFleet, wait
from tests.fleet.test_certificates import in_use, serial_on
from tests.fleet.test_main_path import EXECUTIONS_MAX, explain

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

SITES = 3
REFUSED_WITHIN = 60.0  # s
# As hub, brokers and gateways are named in the ledger of certificates.
NAMES = {"ingest", *(f"{broker}.{DOMAIN}" for broker in BROKERS)}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LargeFleet]:
    """A lab that is up, with an authority, and nothing provisioned yet."""
    one = LargeFleet("large", SITES, tmp_path_factory.mktemp("large"))
    one.down()
    one.up()
    try:
        yield one
    finally:
        one.down()


def unchanged(result: PlaybookResult) -> None:
    assert result.ok, explain(result)
    changed = {host: stats["changed"] for host, stats in result.stats.items() if stats["changed"]}
    assert not changed, f"tasks changed on a second run: {changed}, see {result.log}"


def test_check_mode_works_on_fresh_hosts(large: LargeFleet) -> None:
    result = large.play("hub", "--check", "--diff")
    assert result.ok, explain(result)
    assert result.changed > 0, "fresh hosts, and check mode announces no change"


def test_the_hub_is_provisioned_from_scratch(large: LargeFleet) -> None:
    result = large.play("hub")
    assert result.ok, explain(result)
    assert set(result.stats) == {"hub", *BROKERS}
    wait(lambda: large.balanced() == set(BROKERS), "the balancer has both brokers", 60)
    unchanged(large.play("hub"))
    unchanged(large.play("hub", "--check", "--diff"))


def test_sites_are_spread_over_the_databases(large: LargeFleet) -> None:
    result = large.play("site")
    assert result.ok, explain(result)
    large.await_newer(time.time(), list(large.sites))
    assert set(large.homes()) == set(large.sites)
    assert set(large.homes().values()) == set(DATABASES)
    print(f"databases: {large.homes()}; brokers: { {site: large.broker_of(site) for site in large.sites} }")
    before = {site: large.executions(site) for site in large.sites}
    unchanged(large.play("site"))
    cost = {site: large.executions(site) - before[site] for site in large.sites}
    assert all(0 < one <= EXECUTIONS_MAX for one in cost.values()), cost
    unchanged(large.play("site", "--check", "--diff"))
    result = large.play("verify")
    assert result.ok, explain(result)


def test_brokers_are_drained_one_after_the_other(large: LargeFleet) -> None:
    before = {broker: large.since(broker, "mosquitto.service") for broker in BROKERS}
    start = time.time()
    result = large.play("drain_broker")
    took = time.time() - start
    assert result.ok, explain(result)
    assert all(large.since(broker, "mosquitto.service") > before[broker] for broker in BROKERS)
    assert large.balanced() == set(BROKERS)
    back = large.await_newer(time.time(), list(large.sites))
    print(f"both brokers drained in {took:.1f} s; readings of all sites {back:.1f} s later")
    report = large.counted("drain", start, time.time())
    assert report.passed, report.findings[:10]


def test_a_broker_loses_its_power_and_carries_the_sites_again_when_it_is_back(large: LargeFleet) -> None:
    start = time.time()
    gone = large.broker_of("lab-01")
    other = next(broker for broker in BROKERS if broker != gone)
    cut = time.time()
    large.lab("cut", gone)
    took = large.await_newer(cut, list(large.sites))
    print(f"{gone} cut: readings of all sites {took:.1f} s after it")
    assert {large.broker_of(site) for site in large.sites} == {other}
    result = large.play("verify")
    assert f"{gone} could not be asked for its revocation list" in result.log.read_text()
    # Whoever takes out the last one stops the fleet: this is not done.
    refused = large.play("drain_broker", broker=other)
    assert not refused.ok
    assert f"bring it back before {other} is taken out" in refused.log.read_text()

    large.lab("start", gone)
    wait(lambda: large.balanced() == set(BROKERS), f"the balancer has {gone} again")
    result = large.play("drain_broker", broker=other)
    assert result.ok, explain(result)
    large.await_newer(time.time(), list(large.sites))
    assert {large.broker_of(site) for site in large.sites} == {gone}
    report = large.counted("broker-cut", start, time.time())
    assert report.passed, report.findings[:10]


def test_the_hub_loses_its_power_and_needs_nobody(large: LargeFleet) -> None:
    start = time.time()
    large.lab("cut", "hub")
    time.sleep(5)
    back = time.time()
    large.lab("start", "hub")
    took = large.await_newer(back, list(large.sites))
    print(f"the hub has its power again: readings of all sites {took:.1f} s later")
    wait(lambda: large.balanced() == set(BROKERS), "the balancer has both brokers")
    report = large.counted("hub-cut", start, time.time())
    assert report.passed, report.findings[:10]


def test_a_site_moves_to_another_database_while_its_data_flows(large: LargeFleet) -> None:
    start = time.time()
    site = "lab-01"
    source = large.homes()[site]
    target = next(name for name in DATABASES if name != source)
    time.sleep(20)
    began = time.time()
    said = large.ssh("hub", f"sudo energy-hub move-site {site} {target}")
    print(f"{site} moved from {source} to {target} in {time.time() - began:.1f} s: {said}")
    assert large.homes()[site] == target
    large.await_newer(time.time(), list(large.sites))
    held = large.stored(source, site)
    assert large.stored(target, site) > held > 0
    large.ssh("hub", f"sudo energy-audit verify --site {site}")
    large.ssh("hub", f"sudo energy-hub move-site {site} {target} --purge")
    assert large.stored(source, site) == 0
    report = large.counted("move", start, time.time())
    assert report.passed, report.findings[:10]
    energies.held_against_the_simulators(large, DATABASES.values())


def backed_up(fleet: LargeFleet, database: str) -> bool:
    """Whether the first full backup of a database, which hub.yml begins, has come to its end."""
    return "full backup" in fleet.ssh("hub", f"sudo -u postgres pgbackrest --stanza={database} info")


def test_both_databases_go_back_to_a_time_before_a_move(large: LargeFleet) -> None:
    start = time.time()
    site = "lab-02"
    before = large.homes()
    target = next(name for name in DATABASES if name != before[site])
    for database in DATABASES:
        wait(partial(backed_up, large, database), f"a full backup of {database}", 300)
    time.sleep(20)
    moment = datetime.now(UTC)
    time.sleep(5)
    # What each database knows of the site changes, and its old home has none of its readings any more.
    large.ssh("hub", f"sudo energy-hub move-site {site} {target}")
    large.ssh("hub", f"sudo energy-hub move-site {site} {target} --purge")
    time.sleep(20)
    result = large.play("restore", hub_restore_to=moment.isoformat(sep=" "), hub_restore_confirm="hub")
    back = time.time()
    assert result.ok, explain(result)
    assert large.homes() == before
    took = large.await_newer(back, list(large.sites))
    print(f"both databases are at {moment:%H:%M:%S}: readings of all sites {took:.1f} s after the playbook")
    # Also what the databases had had of the time since then: the gateways have sent it again.
    report = large.counted("restore", start, time.time())
    assert report.passed, report.findings[:10]
    energies.held_against_the_simulators(large, DATABASES.values())
    assert large.stored(target, site) == 0
    unchanged(large.play("hub"))


def test_certificates_are_renewed_at_every_broker(large: LargeFleet) -> None:
    before = in_use(large)
    assert set(before) == {*NAMES, *large.sites}
    start = time.time()
    result = large.play("renew_certificates", renew_all=True)
    assert result.ok, explain(result)
    after = in_use(large)
    assert {name for name in before if before[name]["serial"] == after[name]["serial"]} == set()
    for broker in BROKERS:
        assert large.served(broker) == after[f"{broker}.{DOMAIN}"]["serial"]
    for site in large.sites:
        assert serial_on(large, site) == after[site]["serial"]
    large.await_newer(time.time(), list(large.sites))
    unchanged(large.play("renew_certificates"))
    report = large.counted("renew-certificates", start, time.time())
    assert report.passed, report.findings[:10]


def lists(fleet: LargeFleet) -> dict[str, str]:
    """Where a revocation list is read -> its digest."""
    own = (fleet.state.path / "ca/crl.pem").read_bytes()
    found = {"controller": hashlib.sha256(own).hexdigest()}
    for host in ("hub", *BROKERS):
        found[host] = fleet.ssh(host, f"sha256sum {CERTIFICATES}/crl.pem").split()[0]
    return found


def test_the_revocation_list_is_renewed_wherever_it_is_read(large: LargeFleet) -> None:
    before = lists(large)
    assert len(set(before.values())) == 1, before
    start = time.time()
    result = large.play("renew_crl", identity_crl_renew_at=0)
    assert result.ok, explain(result)
    after = lists(large)
    assert len(set(after.values())) == 1, after
    assert after["controller"] != before["controller"]
    unchanged(large.play("renew_crl"))
    large.await_newer(time.time(), list(large.sites))
    report = large.counted("renew-crl", start, time.time())
    assert report.passed, report.findings[:10]


def test_what_the_gateways_have_signed_is_at_the_hub(large: LargeFleet) -> None:
    result = large.play("audit", audit_witnesses=str(large.folder / "witnesses"))
    assert result.ok, explain(result)


def test_a_revoked_gateway_is_refused_at_both_brokers_and_by_the_ingest(large: LargeFleet) -> None:
    revoked, *kept = reversed(list(large.sites))
    knocking = Knocking(large, revoked)
    start = time.time()
    with knocking:
        result = large.play("revoke", site=revoked, reason="keyCompromise")
        wait(
            lambda: set(knocking.refused) == set(BROKERS), f"they refuse it: {knocking.said}", REFUSED_WITHIN
        )
    assert result.ok, explain(result)
    took = {broker: moment - start for broker, moment in knocking.refused.items()}
    print("refused " + ", ".join(f"by {broker} after {seconds:.1f} s" for broker, seconds in took.items()))
    assert max(took.values()) <= REFUSED_WITHIN
    assert re.search(r"[1-9][0-9]* sessions cut", result.log.read_text()), result.log
    assert len(set(lists(large).values())) == 1
    said = large.ssh(
        "hub", f"sudo journalctl --no-pager --output=cat --unit energy-ingest --since @{start:.3f}"
    )
    # Its certificate from before the renewal, too.
    assert "revocation list read again: 2 certificates revoked, 0 before" in said
    large.await_newer(time.time(), kept)
    assert large.newest()[revoked] < start + max(took.values())
    report = large.counted("revoke", start, time.time(), kept)
    assert report.passed, report.findings[:10]

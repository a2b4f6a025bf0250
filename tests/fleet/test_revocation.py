# SPDX-License-Identifier: Apache-2.0
"""A gateway that is revoked, and a site that is taken out of the fleet, while another one goes on.

The tests of this file build on each other, in a lab of their own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from wattfleet.playbook import PlaybookResult

from tests.fleet.fleet import Fleet

# The same flows run in the Molecule scenarios identity and hub_broker, on a broker and single hosts.
pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

REVOKED, KEPT = "lab-01", "lab-02"
CUT_WITHIN = 60.0  # s
CERTIFICATES = "/etc/ssl/energy"


@pytest.fixture(scope="module")
def pair() -> Iterator[Fleet]:
    """Two provisioned sites that deliver."""
    one = Fleet("revoked", 2)
    one.down()
    one.up()
    try:
        result = one.play("site")
        assert result.ok, result.log
        wait(lambda: all(readings(one, site) for site in (REVOKED, KEPT)), "both sites deliver")
        yield one
    finally:
        one.down()


def wait(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)


def readings(fleet: Fleet, site: str) -> int:
    found = fleet.hub.status().get(site)
    return found.readings if found else 0


def journal(fleet: Fleet, unit: str, since: float) -> str:
    return fleet.ssh("hub", f"sudo journalctl --no-pager --output=cat --unit {unit} --since @{since:.6f}")


def log_of(result: PlaybookResult) -> str:
    return result.log.read_text()


def test_a_revoked_gateway_is_cut_and_refused_and_the_other_notices_nothing(pair: Fleet) -> None:
    began = time.time()
    result = pair.play("revoke", site=REVOKED, reason="keyCompromise")
    assert result.ok, result.log
    found = re.search(r"1 sessions cut .*, at most ([0-9.]+) s after the start", log_of(result))
    assert found, result.log
    assert float(found[1]) <= CUT_WITHIN
    print(f"cut at most {found[1]} s after the start")
    wait(
        lambda: "refused a handshake" in journal(pair, "energy-refusals", began),
        "it tries again, and is refused",
    )
    told = journal(pair, "mosquitto", began)
    assert f"as {REVOKED} (" not in told
    assert f"as {KEPT} (" not in told, "the other one has connected again: it was cut"
    before = readings(pair, REVOKED), readings(pair, KEPT)
    wait(lambda: readings(pair, KEPT) > before[1], "the other one delivers")
    assert readings(pair, REVOKED) == before[0]
    assert pair.ssh(
        REVOKED, "systemctl is-active energy-gateway.service energy-persistence.service"
    ).split() == [
        "active",
        "active",
    ]


def test_a_site_that_is_decommissioned_delivers_first(pair: Fleet) -> None:
    result = pair.play("decommission", site=KEPT)
    assert result.ok, result.log
    after = readings(pair, KEPT)
    assert f"{KEPT}: 1 certificates revoked now" in log_of(result)
    left = pair.ssh(
        KEPT,
        f"ls -d {CERTIFICATES} /opt/energy /etc/energy /etc/systemd/system/energy-gateway.service"
        " /var/lib/energy/buffer.db /var/lib/energy/signing.key 2>/dev/null;"
        " systemctl list-units --plain --no-legend 'energy-*' || true",
    )
    assert not [line for line in left.splitlines() if line.startswith("/")], left
    assert not [
        line for line in left.splitlines() if "energy-gateway" in line or "energy-persistence" in line
    ], left
    time.sleep(5)
    assert readings(pair, KEPT) == after > 0, "history stays, and nothing comes any more"


def test_a_gateway_that_is_gone_is_revoked_all_the_same(pair: Fleet) -> None:
    pair.lab("stop", REVOKED)
    result = pair.play("decommission", site=REVOKED)
    assert "without having been reached" in log_of(result), result.log
    assert f"{REVOKED}: 0 certificates revoked now, 1 were before" in log_of(result)

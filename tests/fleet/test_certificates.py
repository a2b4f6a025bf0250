# SPDX-License-Identifier: Apache-2.0
"""The life of certificates on a fleet that runs: renewed, expired, and those of a gateway that was replaced.

The tests of this file build on each other: the fleet is provisioned once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from wattfleet.paths import ROOT

from tests.fleet.fleet import Fleet
from tests.fleet.test_main_path import explain

# The Molecule scenarios identity and hub_broker play the roles' part of it; the playbooks run here alone.
pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

SITE = "lab-01"


@pytest.fixture(scope="module")
def certified() -> Iterator[Fleet]:
    """A lab of its own that is provisioned and delivers."""
    one = Fleet("certs", 2)
    one.down()
    one.up()
    result = one.play("site")
    assert result.ok, explain(result)
    yield one
    one.down()


def in_use(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """Name -> the certificate that `wattfleet certificates` calls valid."""
    command = [sys.executable, "-m", "wattfleet", "certificates", "--lab", fleet.name, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["certificates"]
    return {one["name"]: one for one in found if one["state"] == "valid"}


def serial_on(fleet: Fleet, site: str) -> str:
    text = fleet.ssh(site, "sudo openssl x509 -in /etc/ssl/energy/gateway.crt -noout -serial")
    return text.strip().partition("=")[2].lower().lstrip("0")


def await_readings(fleet: Fleet, site: str, since: float, patience: float = 120) -> None:
    """Until the hub has readings of the site that were taken after `since`."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        newest = fleet.hub.status()[site].newest
        if newest and newest.timestamp() > since:
            return
        time.sleep(2)
    raise AssertionError(
        f"no readings of {site}: {fleet.ssh(site, 'sudo journalctl -n 20 -u energy-persistence')}"
    )


def test_every_certificate_is_renewed_and_the_collectors_go_over(certified: Fleet) -> None:
    before = in_use(certified)
    assert set(before) == {"lab-01", "lab-02", "hub.energy.internal", "ingest"}
    started = time.time()
    result = certified.play("renew_certificates", renew_all=True)
    assert result.ok, explain(result)
    after = in_use(certified)
    assert {name for name in before if before[name]["serial"] == after[name]["serial"]} == set()
    log = result.log.read_text()
    for site in certified.sites:
        assert serial_on(certified, site) == after[site]["serial"]
        assert re.search(rf"{site} .* renewed +all are renewed", log), "the site is not in the table"
        journal = certified.ssh(site, "sudo journalctl -u energy-persistence")
        assert "the hub takes the new ones; going over to the new connection" in journal
        await_readings(certified, site, started)


def test_where_nothing_is_due_nothing_changes(certified: Fleet) -> None:
    before = in_use(certified)
    result = certified.play("renew_certificates")
    assert result.ok, explain(result)
    assert result.changed == 0, f"see {result.log}"
    assert in_use(certified) == before


def expire(fleet: Fleet, site: str) -> None:
    """Give a gateway a certificate as the authority would have made it, that has expired yesterday."""
    folder = fleet.state.path / "ca"
    passphrase = (fleet.state.path / "ca.passphrase").read_text().strip().encode()
    issuer = x509.load_pem_x509_certificate((folder / "intermediate.crt").read_bytes())
    key: Any = serialization.load_pem_private_key((folder / "intermediate.key").read_bytes(), passphrase)
    request = x509.load_pem_x509_csr(fleet.ssh(site, "cat /etc/ssl/energy/gateway.csr").encode())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(issuer.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=366))
        .not_valid_after(now - timedelta(days=1))
    )
    for extension in request.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    expired = builder.add_extension(above, critical=False).sign(key, hashes.SHA256())
    chain = (
        expired.public_bytes(serialization.Encoding.PEM) + issuer.public_bytes(serialization.Encoding.PEM)
    ).decode()
    fleet.ssh(site, f"echo '{chain}' | sudo tee /etc/ssl/energy/gateway.crt >/dev/null")
    fleet.ssh(site, "sudo systemctl restart energy-persistence")


def test_a_gateway_whose_certificate_expired_in_the_dark_comes_back_unaided(certified: Fleet) -> None:
    expire(certified, SITE)
    time.sleep(10)
    dark = time.time()
    journal = certified.ssh(SITE, "sudo journalctl -n 20 -u energy-persistence")
    assert "expired" in journal, journal
    result = certified.play("renew_certificates", "--limit", SITE)
    assert result.ok, explain(result)
    assert "it has expired" in result.log.read_text()
    await_readings(certified, SITE, dark)


def test_a_new_gateway_takes_the_place_of_a_broken_one(certified: Fleet) -> None:
    old = in_use(certified)[SITE]
    start = time.time()
    await_readings(certified, SITE, start)
    streams = int(certified.hub.status()[SITE].batches)
    known = certified.state.known_hosts.read_text()
    certified.lab("host-remove", SITE)
    certified.lab("up", "--sites", "2")
    new_key = next(
        line for line in certified.state.known_hosts.read_text().splitlines() if line.startswith(SITE)
    )
    # The lab knows its new host; the operator's controller does not.
    certified.state.known_hosts.write_text(known)
    assert not certified.reachable(SITE)

    refused = certified.play("replace_gateway", site=SITE, host_key="SHA256:" + "A" * 43)
    assert not refused.ok
    assert "is this the new gateway?" in refused.failures[0].message
    assert in_use(certified)[SITE] == old, "a wrong fingerprint revoked something"

    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", "-"],
        input=new_key.partition(" ")[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[1]
    result = certified.play("replace_gateway", site=SITE, host_key=fingerprint)
    assert result.ok, explain(result)
    new = in_use(certified)[SITE]
    assert new["serial"] == serial_on(certified, SITE) != old["serial"]
    await_readings(certified, SITE, time.time())
    # Both streams of readings are there: what the old gateway delivered, and what the new one does.
    assert certified.readings(SITE, start - 60, start)
    assert certified.hub.status()[SITE].batches > streams
    revoked = (certified.state.path / "ca/revoked.jsonl").read_text()
    assert old["serial"] in revoked
    assert new["serial"] not in revoked

# SPDX-License-Identifier: Apache-2.0
"""What somebody on the WAN can do to a fleet that is in service: nothing, and the hub's journal tells of it.

A case of the table is a line. Each has its counterpart that must succeed, so that a test which cannot see success
goes red.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.fleet.certificates import DAY, Signer, issue, lab_authority, namesake
from tests.fleet.fleet import Fleet
from tests.fleet.foreign import Foreign, plan_of

pytestmark = pytest.mark.timeout(1800)

BROKER = "mosquitto.service"
REFUSALS = "energy-refusals.service"
LISTEN = 30.0  # s; in that time every site delivers, and is acknowledged, more than once
THIEF = "lab-49"  # a site of the fleet that is not up, so that nobody's session is taken over


@pytest.fixture(scope="module")
def foreign(provisioned: Fleet) -> Iterator[Foreign]:
    with Foreign(plan_of(provisioned.name)) as one:
        yield one


@dataclass
class Loot:
    """Certificates by name, and how to get at the broker with them."""

    fleet: Fleet
    foreign: Foreign
    folder: Path
    authority: Signer
    files: dict[str, tuple[str, str]] = field(default_factory=dict)

    def attempt(self, certificate: str | None, **what: Any) -> dict[str, Any]:
        """Run tests.fleet.intruder from the foreign address; its outcome."""
        hub = self.fleet.settings["hub"]
        given = {
            "host": hub["address"],
            "port": hub.get("port", 8883),
            "authority": str(self.fleet.state.path / "ca" / "ca.crt"),
            **what,
        }
        if certificate:
            given["certificate"], given["key"] = self.files[certificate]
        done = self.foreign.run(sys.executable, "-m", "tests.fleet.intruder", json.dumps(given))
        assert done.returncode == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome


@pytest.fixture(scope="module")
def loot(provisioned: Fleet, foreign: Foreign, tmp_path_factory: pytest.TempPathFactory) -> Loot:
    folder = tmp_path_factory.mktemp("loot")
    authority = lab_authority(provisioned.state.path / "ca")
    own = namesake(authority)
    year = timedelta(days=365)
    files = {
        "stolen": issue(folder, "stolen", THIEF, authority),
        "expired": issue(folder, "expired", THIEF, authority, (-year, -DAY)),
        "not-yet": issue(folder, "not-yet", THIEF, authority, (DAY, year)),
        "foreign": issue(folder, "foreign", THIEF, own),
    }
    files["revoked"] = issue(folder, "revoked", THIEF, authority)
    revoke(provisioned, Path(files["revoked"][0]))
    return Loot(provisioned, foreign, folder, authority, files)


def revoke(fleet: Fleet, certificate: Path) -> None:
    """Revoke a certificate that the authority's ledger does not know, and have the broker take up the new list."""
    serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
    entry = {
        "serial": f"{serial:x}",
        "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "reason": "unspecified",
    }
    with (fleet.state.path / "ca" / "revoked.jsonl").open("a") as ledger:
        ledger.write(json.dumps(entry) + "\n")
    result = fleet.play("renew_crl")
    assert result.ok, result.failures


def journal(fleet: Fleet, since: float) -> str:
    """What the broker has told since a Unix time. It tells of a connection's end a moment after the client sees it.

    The time is given with its fraction: rounded to a second, it would leave out an attempt of the half second before.
    """
    time.sleep(2)
    return fleet.ssh(
        "hub",
        f"sudo journalctl --unit={BROKER} --unit={REFUSALS} --since=@{since:.6f} --output=cat --no-pager",
    )


# ---- Ports


def declared(rules: list[dict[str, Any]], protocol: str) -> set[int]:
    """The ports of a list of open ports that are open to everybody."""
    return {
        port
        for rule in rules
        if rule.get("protocol", "tcp") == protocol and not rule.get("sources")
        for port in range(rule["port"], rule.get("port_end", rule["port"]) + 1)
    }


def hosts(fleet: Fleet) -> dict[str, dict[str, set[int]]]:
    """Host -> protocol -> ports that its files declare."""
    hub = fleet.settings["hub"]
    # Time is declared whether or not the hub serves it yet: the host itself answers that nobody is there.
    found = {
        "hub": {
            "tcp": {hub.get("port", 8883)} | declared(hub.get("accept", []), "tcp"),
            "udp": {123} | declared(hub.get("accept", []), "udp"),
        }
    }
    for site, content in fleet.sites.items():
        rules = content.get("firewall", {}).get("accept", [])
        found[site] = {protocol: declared(rules, protocol) for protocol in ("tcp", "udp")}
    return found


def addresses(fleet: Fleet) -> dict[str, str]:
    return {
        "hub": fleet.settings["hub"]["address"],
        **{site: content["gateway"]["address"] for site, content in fleet.sites.items()},
    }


def test_a_scan_of_every_port_finds_what_is_declared(provisioned: Fleet, foreign: Foreign) -> None:
    found = {}
    for host, address in addresses(provisioned).items():
        started = time.monotonic()
        found[host] = {"tcp": set(foreign.tcp(address)), "udp": set(foreign.udp(address))}
        print(f"{host}: {found[host]} in {time.monotonic() - started:.1f} s")
    assert found == hosts(provisioned)


# sshd listens on every gateway. At the other port nobody does, which the host then says. The rule alone opens them.
@pytest.mark.parametrize(("protocol", "port"), [("tcp", 22), ("udp", 40001)])
def test_the_scan_sees_a_port_that_somebody_opens(
    provisioned: Fleet, foreign: Foreign, protocol: str, port: int
) -> None:
    site, address = next((host, at) for host, at in addresses(provisioned).items() if host != "hub")
    rule = f"{protocol} dport {port} accept"
    provisioned.ssh(site, f"sudo nft insert rule inet wattfleet input {rule}")
    try:
        assert getattr(foreign, protocol)(address) == [port]
    finally:
        chain = provisioned.ssh(site, "sudo nft --handle list chain inet wattfleet input")
        handle = re.search(rf"{rule} # handle (\d+)", chain)
        assert handle is not None, chain
        provisioned.ssh(site, f"sudo nft delete rule inet wattfleet input handle {handle[1]}")


def test_the_hosts_are_on_the_wan_by_ipv4_alone(provisioned: Fleet) -> None:
    """So that the scan is of all their addresses; that of IPv6 is in the Molecule scenario of the firewall."""
    for host in addresses(provisioned):
        assert provisioned.ssh(host, "ip -6 -oneline address show dev eth0") == ""


# ---- The broker's door


@dataclass(frozen=True)
class Door:
    """An attempt to get in: with which certificate, how, and what the hub's journal has to say of it."""

    name: str
    certificate: str | None
    told: str
    how: dict[str, Any] = field(default_factory=dict)


DOORS = [
    Door("TLS 1.2", "stolen", r"unsupported protocol", {"tls": "1.2"}),
    Door("no certificate", None, r"peer did not return a certificate"),
    Door("foreign CA", "foreign", r"certificate verify failed"),
    Door("expired", "expired", r"certificate verify failed"),
    Door("not valid yet", "not-yet", r"certificate verify failed"),
    Door("revoked", "revoked", r"certificate verify failed"),
]


@pytest.mark.parametrize("door", DOORS, ids=[one.name for one in DOORS])
def test_the_broker_refuses(provisioned: Fleet, loot: Loot, door: Door) -> None:
    since = time.time()
    outcome = loot.attempt(door.certificate, publish=f"energy/v1/{THIEF}/batch", **door.how)
    assert not outcome["connected"], outcome
    assert not outcome["published"], outcome
    text = journal(provisioned, since)
    assert re.search(rf"refused a handshake from .*{loot.foreign.address}.*{door.told}", text), text


def test_the_broker_lets_in_whom_it_should(provisioned: Fleet, loot: Loot) -> None:
    """The counterpart of the table: the same attempt with a certificate that is right."""
    outcome = loot.attempt("stolen", publish=f"energy/v1/{THIEF}/batch")
    assert outcome["connected"], outcome
    assert outcome["published"], outcome


# ---- Topics


@dataclass(frozen=True)
class Reach:
    """An attempt of one site to get at what is another's, `{other}`."""

    name: str
    told: str
    what: dict[str, Any]


DENIED = r"refused a topic: {me} may not publish to 'energy/v1/{other}/%s'"
ASKED = r"refused a topic: {me} asked for 'energy/v1/%s'"
TOPIC = "energy/v1/{other}/%s"
REACHES = [
    Reach("publish a batch", DENIED % "batch", {"publish": TOPIC % "batch"}),
    Reach("publish an ack", DENIED % "ack", {"publish": TOPIC % "ack"}),
    Reach("publish a command", DENIED % "command", {"publish": TOPIC % "command"}),
    Reach(
        "publish under another's name",
        DENIED % "batch",
        {"publish": TOPIC % "batch", "client_id": "{other}", "username": "{other}"},
    ),
    Reach("read another's", ASKED % "{other}/ack", {"subscribe": TOPIC % "ack"}),
    Reach("read everybody's", ASKED % "#", {"subscribe": "energy/v1/#"}),
]


@pytest.mark.parametrize("reach", REACHES, ids=[one.name for one in REACHES])
def test_a_site_cannot_reach_another(provisioned: Fleet, loot: Loot, reach: Reach) -> None:
    names = {"me": THIEF, "other": next(iter(provisioned.sites))}
    what = {key: text.format(**names) for key, text in reach.what.items()}
    since = time.time()
    outcome = loot.attempt("stolen", listen=LISTEN if "subscribe" in what else 0, **what)
    assert outcome["connected"], outcome
    assert not outcome["published"], outcome
    assert not outcome["received"], outcome
    text = journal(provisioned, since)
    assert re.search(reach.told.format(**names), text), text


def test_who_may_listen_hears_every_site(provisioned: Fleet, loot: Loot) -> None:
    """The counterpart: the same subscription once the hub allows it."""
    acl = "/etc/mosquitto/energy.acl"
    reload = f"sudo systemctl reload {BROKER}"
    provisioned.ssh("hub", f"sudo cp -p {acl} {acl}.kept")
    try:
        allow = f"user {THIEF}\\ntopic read energy/v1/#\\n"
        provisioned.ssh("hub", f"printf '{allow}' | sudo tee -a {acl} && {reload}")
        outcome = loot.attempt("stolen", subscribe="energy/v1/#", listen=LISTEN)
    finally:
        provisioned.ssh("hub", f"sudo mv {acl}.kept {acl} && {reload}")
    heard = {topic.split("/")[2] for topic in outcome["received"]}
    assert heard >= set(provisioned.sites), outcome

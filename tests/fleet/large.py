# SPDX-License-Identifier: Apache-2.0
"""A lab fleet with a hub of several hosts: a balancer with the ingest and two databases, and two brokers."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from wattfleet.errors import WattfleetError
from wattfleet.paths import ROOT
from wattfleet_lab.addresses import Plan

from tests.fault.kill_services import SETTLE
from tests.fault.report import FaultReport
from tests.fleet.fleet import Fleet

DOMAIN = "brokers.energy.internal"
# At lab 0's addresses, as inventory/lab is written.
BROKERS = {"broker-1": "198.18.16.21", "broker-2": "198.18.16.22"}
# Cluster, and port of its socket, on the hub.
DATABASES = {"main": 5432, "second": 5433}
CERTIFICATES = "/etc/ssl/energy"
PROBES = 24


# What makes a hub a large one, by the keys of `hub` in the fleet file.
LARGE: dict[str, Any] = {
    "brokers_domain": DOMAIN,
    "brokers": [{"name": name, "address": address} for name, address in BROKERS.items()],
    "databases": [{"name": name, "port": port} for name, port in DATABASES.items() if name != "main"],
}


class LargeFleet(Fleet):
    """The hub, two machines for brokers beside it, and the first sites of inventory/lab. `folder` takes their files."""

    def __init__(self, name: str, sites: int, folder: Path) -> None:
        super().__init__(name, sites)
        self.folder = folder

    def up(self, *, disks: bool = False, hub: Mapping[str, Any] = LARGE) -> None:
        """`hub` is what the fleet file says of the hub, beside what inventory/lab says."""
        lab = ROOT / "inventory" / "lab"
        for part in ("group_vars", "sites"):
            shutil.copytree(lab / part, self.folder / part)
        fleet = yaml.safe_load((lab / "fleet.sites.yml").read_text(encoding="utf-8"))
        fleet["hub"] |= hub
        file = self.folder / "fleet.sites.yml"
        file.write_text(yaml.safe_dump(fleet, sort_keys=False), encoding="utf-8")
        self.lab("up", "--sites", str(self.count), "--inventory", str(file), *(["--disks"] if disks else []))
        assert self.state.index is not None
        for name, address in BROKERS.items():
            self.lab("host-add", name, "--address", Plan(self.state.index).shift(address))
        assert self.play("ca").ok

    def describe(self, hub: Mapping[str, Any]) -> None:
        """Have the fleet file of the lab that is up say this of the hub, too."""
        assert self.state.index is not None
        content = self.settings
        content["hub"] |= yaml.safe_load(Plan(self.state.index).shift(yaml.safe_dump(dict(hub))))
        text = yaml.safe_dump(content, sort_keys=False)
        (self.state.inventory / "fleet.sites.yml").write_text(text, encoding="utf-8")

    # --- the brokers

    def broker_of(self, name: str) -> str:
        """The broker that the newest connection for a name in the brokers' domain went to."""
        said = self.ssh(
            "hub",
            "sudo journalctl --sync; sudo journalctl --no-pager --output=cat --unit haproxy.service"
            f" | grep -F 'site={name}.{DOMAIN} ' | tail -n 1",
        )
        found = re.search(r" broker=(\S+) ", said)
        assert found, f"the balancer knows no connection of {name}: {said}"
        return found[1]

    def balanced(self) -> set[str]:
        """The brokers that the balancer sends sites to."""
        asked = (
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock');"
            " s.sendall(b'show servers state brokers\\n'); print(s.makefile().read())"
        )
        said = self.ssh("hub", f'sudo python3 -c "{asked}"')
        # srv_name, srv_op_state (2 is up), srv_admin_state (0 is not taken out).
        rows = [line.split() for line in said.splitlines()]
        return {row[3] for row in rows if len(row) > 6 and row[5] == "2" and row[6] == "0"}

    def since(self, host: str, unit: str) -> int:
        """When a service was started, in µs of the host's uptime."""
        return int(self.ssh(host, f"systemctl show --value --property=ActiveEnterTimestampMonotonic {unit}"))

    def knock(self, site: str, name: str) -> str:
        """What the broker behind a name says to the certificate of a site: a line of OpenSSL, or nothing where it
        is let in."""
        command = (
            f"sudo timeout 3 openssl s_client -quiet -connect {self.settings['hub']['address']}:8883"
            f" -servername {name}.{DOMAIN} -CAfile {CERTIFICATES}/ca.crt -verify_return_error"
            f" -cert {CERTIFICATES}/gateway.crt -cert_chain {CERTIFICATES}/gateway.crt"
            f" -key {CERTIFICATES}/gateway.key 2>&1 </dev/null"
        )
        lines = self.ssh(site, f"{command} || true").splitlines()
        return next((line for line in lines if "error" in line.lower()), "")

    def names_by_broker(self, site: str) -> dict[str, str]:
        """A name for each broker, by which the balancer leads there."""
        found: dict[str, str] = {}
        for number in range(PROBES):
            name = f"probe-{number}"
            assert self.knock(site, name) == "", "the site's certificate is refused"
            found.setdefault(self.broker_of(name), name)
            if set(found) == set(BROKERS):
                return found
        raise AssertionError(f"{PROBES} names, and all at {', '.join(found)}")

    def served(self, broker: str) -> str:
        """The serial number of the certificate that a broker shows, as the hub sees it."""
        address = next(one["address"] for one in self.settings["hub"]["brokers"] if one["name"] == broker)
        text = self.ssh(
            "hub",
            f"openssl s_client -connect {address}:8883 -servername {broker}.{DOMAIN} </dev/null 2>/dev/null"
            " | openssl x509 -noout -serial",
        )
        return text.strip().partition("=")[2].lower().lstrip("0")

    # --- the databases

    def homes(self) -> dict[str, str]:
        """Site -> database, as the directory has it."""
        said = self.ssh(
            "hub",
            "sudo -u postgres psql -XAtq --port=5432 --dbname=energy --command='SELECT site, shard FROM directory'",
        )
        return dict(line.split("|") for line in said.splitlines())

    def stored(self, database: str, site: str) -> int:
        """Readings of a site that a database holds."""
        question = (
            "SELECT count(*) FROM reading JOIN point ON point.id = reading.point"
            f" JOIN site ON site.id = point.site WHERE site.name = '{site}'"
        )
        port = DATABASES[database]
        return int(
            self.ssh(
                "hub",
                f'sudo -u postgres psql -XAtq --port={port} --dbname=energy --command="{question}"',
            )
        )

    # --- readings

    def newest(self) -> dict[str, float]:
        """Site -> Unix time of its newest reading at the hub."""
        found = self.hub.status()
        return {site: one.newest.timestamp() for site, one in found.items() if one.newest}

    def await_newer(self, than: float, sites: list[str], patience: float = 180.0) -> float:
        """Until the hub has readings of all these sites from after a time; the seconds since then."""

        def come() -> bool:
            try:
                newest = self.newest()
            except WattfleetError:
                return False  # the hub is not up yet
            return all(newest.get(site, 0.0) > than for site in sites)

        wait(come, f"readings of {', '.join(sites)} come", patience)
        return time.time() - than

    def delays(self, start: float, end: float) -> dict[str, float]:
        """Site -> s from the source to the commit, for 99 of 100 readings between two times."""
        moments = [datetime.fromtimestamp(one, UTC).isoformat() for one in (start, end)]
        document: dict[str, Any] = yaml.safe_load(
            self.hub.command("health", "--json", "--since", moments[0], "--until", moments[1], timeout=120)
        )
        return {site: row["delay"]["p99"] for site, row in document["sites"].items() if row["delay"]}

    def counted(self, name: str, start: float, end: float, sites: list[str] | None = None) -> FaultReport:
        """Both ends of the sites between two times, when what is under way has arrived."""
        time.sleep(max(0.0, end + SETTLE - time.time()))
        report = FaultReport(name, rounds=1)
        for site in sites or list(self.sites):
            report.add(site, self.both_ends(site, start, end))
        late = self.delays(start, end)
        report.figures = {f"{site}_p99_s": late[site] for site in sites or list(self.sites) if site in late}
        print(f"{name}: {end - start:.0f} s, {report}")
        return report


class Knocking:
    """Knocks at every broker with a site's certificate, and notes when each refuses it."""

    def __init__(self, fleet: LargeFleet, site: str) -> None:
        self.refused: dict[str, float] = {}  # broker -> Unix time
        self.said: dict[str, str] = {}  # broker -> what it said last, beside that
        self._fleet, self._site = fleet, site
        self._names = fleet.names_by_broker(site)
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._knock, args=(broker,)) for broker in self._names]

    def __enter__(self) -> Knocking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _knock(self, broker: str) -> None:
        while not self._end.is_set():
            said = self._fleet.knock(self._site, self._names[broker])
            if "revoked" in said:
                self.refused[broker] = time.time()
                return
            # Nobody knows whose connection it is that has not said a word of MQTT: revoke.yml may cut it.
            self.said[broker] = said
            self._end.wait(0.5)


def wait(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)

# SPDX-License-Identifier: Apache-2.0
"""Somebody on the lab's WAN whom no file of the fleet knows: a network namespace on its bridge, and a scanner.

    python -m tests.fleet.foreign --lab NAME tcp 198.18.0.11      prints the ports that answer, as JSON
    python -m tests.fleet.foreign --lab NAME run COMMAND …        runs a command there

The address is neither management's nor the hub's. The scanner is nmap: all 65,535 ports of a protocol
take it less than a minute, since it does not wait for what vanishes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from ipaddress import IPv4Address
from typing import Self

from wattfleet_lab import registry
from wattfleet_lab.addresses import Plan
from wattfleet_lab.commands import ip_batch, run, succeeds


class Foreign:
    """The namespace; a context manager, which leaves nothing behind."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.namespace = f"{plan.prefix}foreign"
        # The last but one of the lab's addresses, far from those of sites and hosts.
        self.address = IPv4Address(int(plan.network.broadcast_address) - 1)
        self.address6 = "2001:db8:bad::1"

    def __enter__(self) -> Self:
        self._remove()
        near, far = f"{self._plan.prefix}foreign", "wan"
        run("ip", "netns", "add", self.namespace)
        try:
            ip_batch(
                [
                    f"link add {near} type veth peer name {far} netns {self.namespace}",
                    f"link set {near} master {self._plan.bridge} up",
                ]
            )
            ip_batch(
                [
                    "link set lo up",
                    f"link set {far} up",
                    f"address add {self.address}/{self._plan.network.prefixlen} dev {far}",
                    f"address add {self.address6}/64 dev {far} nodad",
                ],
                self.namespace,
            )
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _remove(self) -> None:
        if succeeds("ip", "netns", "pids", self.namespace):
            run("ip", "netns", "delete", self.namespace)

    def run(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command from there."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def tcp(self, address: str) -> list[int]:
        """Every TCP port that answers in any way: that takes a connection, or refuses it in so many words."""
        return self._scan("-sS", "-p-", "--min-rate", "15000", address)

    def udp(self, address: str) -> list[int]:
        """Every UDP port that answers in any way, be it that nobody is there.

        A datagram that vanishes is what we want to see. So the time goes into sending, and not into waiting.
        """
        return self._scan("-sU", "-p-", "--min-rate", "10000", address)

    def _scan(self, *arguments: str) -> list[int]:
        family = ("-6",) if ":" in arguments[-1] else ()
        options = ("-n", "-Pn", "-T4", "--max-retries", "2", "--reason", "-oX", "-")
        done = self.run("nmap", *options, *family, *arguments, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(f"nmap: {done.stderr or done.stdout}")
        return answering(done.stdout)


def answering(report: str) -> list[int]:
    """The ports in nmap's XML report that are not silent.

    nmap lists states that few ports have one by one, and counts the others: those may only be silent ones.
    """
    host = ET.fromstring(report).find("host")
    if host is None or (ports := host.find("ports")) is None:
        raise RuntimeError(f"nmap has scanned nothing: {report}")
    silent = ("filtered", "open|filtered")
    for extra in ports.findall("extraports"):
        if extra.get("state") not in silent:
            raise RuntimeError(f"{extra.get('count')} ports are {extra.get('state')}: nothing filters them")
    found = []
    for port in ports.findall("port"):
        state = port.find("state")
        if state is not None and state.get("state") not in silent:
            found.append(int(port.get("portid", "0")))
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(description="Look at a lab's hosts from a foreign address.")
    parser.add_argument("--lab", required=True)
    parser.add_argument("what", choices=["tcp", "udp", "run"])
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    with Foreign(plan_of(given.lab)) as foreign:
        if given.what == "run":
            done = foreign.run(*given.arguments)
            sys.stdout.write(done.stdout)
            sys.stderr.write(done.stderr)
            return done.returncode
        print(json.dumps(getattr(foreign, given.what)(*given.arguments)))
    return 0


def plan_of(lab: str) -> Plan:
    """The address plan of a lab that is up."""
    return Plan(registry.read().labs[lab][0])


if __name__ == "__main__":
    sys.exit(main())

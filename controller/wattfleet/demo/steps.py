# SPDX-License-Identifier: Apache-2.0
"""The demo, step by step. Each step can be repeated: what is there already is found, not made again."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from wattfleet_lab.meters import truth as simulators
from wattfleet_lab.state import State

from wattfleet.demo.stopwatch import Stopwatch
from wattfleet.demo.table import fleet_table, sites_table
from wattfleet.demo.totals import Meter, Truth, compare
from wattfleet.errors import WattfleetError
from wattfleet.hub import Hub, SiteState
from wattfleet.paths import BUILD, ROOT
from wattfleet.playbook import PlaybookResult, run_playbook

# s; two polls, a batch, and room for a busy machine.
FIRST_DATA_TIMEOUT = 120.0
# A site has arrived when each of its meters was read more than once.
POLLS_TO_SEE = 2


class Demo:
    """One run of `wattfleet demo`."""

    def __init__(self, console: Console, lab: str, sites: int, picture: Path | None) -> None:
        self._console = console
        self._count = sites
        self._picture = picture
        self._state = State.of(lab)
        self._watch = Stopwatch(console)

    def run(self) -> int:
        """0 when both ends agree."""
        with self._watch.step(f"Lab: a hub and {self._count} sites"):
            self._python("-m", "wattfleet_lab", "--lab", self._state.name, "up", "--sites", str(self._count))
        with self._watch.step("Releases of collector and hub"):
            self._python("tools/build_release.py", "collector")
            self._python("tools/build_release.py", "hub")
        with self._watch.step("Certificate authority (playbooks/ca.yml)"):
            self._play("ca")
        with self._watch.step("Hub and sites (playbooks/site.yml)"):
            self._play("site")
        meters = self._meters()
        with self._watch.step("Data: every meter read twice and committed at the hub"):
            states = self._wait_for_data(meters)
        with self._watch.step("Health (playbooks/verify.yml)"):
            buffered = self._verify()
        return self._close(meters, states, buffered)

    def _python(self, *arguments: str) -> None:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False)
        if done.returncode != 0:
            raise WattfleetError(f"`python {' '.join(arguments)}` ended with {done.returncode}; see above")

    def _play(self, playbook: str, **variables: Any) -> PlaybookResult:
        result = run_playbook(
            playbook, self._state.inventory / "fleet.sites.yml", extra_vars=variables, console=self._console
        )
        if not result.ok:
            for failure in result.failures:
                self._console.print(
                    f"[red]{failure.host}[/red] {failure.task}: {failure.message}", highlight=False
                )
            raise WattfleetError(f"playbooks/{playbook}.yml failed; the whole output is in {result.log}")
        self._console.print(
            f"    {playbook}: {len(result.stats)} hosts, {result.changed} changes", highlight=False
        )
        return result

    def _meters(self) -> list[Meter]:
        """All meters of the sites that are up, from their site files."""
        found = []
        fleet = yaml.safe_load((self._state.inventory / "fleet.sites.yml").read_text(encoding="utf-8"))
        default = fleet.get("defaults", {}).get("interval", 10)
        for file in sorted((self._state.inventory / "sites").glob("*.yml")):
            site = yaml.safe_load(file.read_text(encoding="utf-8"))
            for meter in site["meters"]:
                interval = float(meter.get("interval", site.get("interval", default)))
                found.append(Meter(site["site"], meter["name"], meter.get("role", "consumption"), interval))
        return found

    def _wait_for_data(self, meters: list[Meter]) -> dict[str, SiteState]:
        hub = Hub(self._state.ssh_config)
        sites = sorted({meter.site for meter in meters})
        deadline = time.monotonic() + FIRST_DATA_TIMEOUT
        began = datetime.now(UTC)
        slowest = max(meter.interval for meter in meters)
        while True:
            states = hub.status()
            arrived = [
                site
                for site in sites
                if site in states
                and (newest := states[site].newest)
                and (newest - began).total_seconds() > slowest * (POLLS_TO_SEE - 1)
            ]
            self._console.print(f"    {len(arrived)} of {len(sites)} sites have delivered", highlight=False)
            if len(arrived) == len(sites):
                return states
            if time.monotonic() > deadline:
                missing = [site for site in sites if site not in arrived]
                raise WattfleetError(
                    f"no readings of {', '.join(missing)} reached the hub within {FIRST_DATA_TIMEOUT:.0f} s; look at "
                    f"`ssh -F {self._state.ssh_config} {missing[0]} "
                    "sudo journalctl -u energy-gateway -u energy-persistence`"
                )
            time.sleep(3)

    def _verify(self) -> Mapping[str, int | None]:
        """Readings in the buffer of each site, from the report that verify.yml writes."""
        report = BUILD / "runs" / "verify.json"
        report.unlink(missing_ok=True)
        self._play("verify", verify_report=str(report))
        document = json.loads(report.read_text(encoding="utf-8"))
        return {verdict["site"]: verdict["buffer"] for verdict in document["sites"]}

    def _close(
        self, meters: list[Meter], states: dict[str, SiteState], buffered: Mapping[str, int | None]
    ) -> int:
        names: dict[str, list[str]] = {}
        for meter in meters:
            names.setdefault(meter.site, []).append(meter.name)
        comparison = compare(meters, states, self._truth())
        tables = (sites_table(names, states, buffered), fleet_table(comparison))
        self._console.print(self._watch.table(), *tables)
        if self._picture is not None:
            paper = Console(record=True, width=100, file=io.StringIO())
            paper.print(*tables)
            # A picture that fetches its font from elsewhere would tell that server who looks at it.
            picture = re.sub(
                r"@font-face \{.*?\}\s*", "", paper.export_svg(title="make demo"), flags=re.DOTALL
            )
            self._picture.write_text(picture, encoding="utf-8")
        for line in comparison.disagreements:
            self._console.print(f"[red]differs[/red] {line}", highlight=False)
        if comparison.disagreements:
            raise WattfleetError("the database and the simulators do not agree, see above")
        self._console.print(
            f"{comparison.compared} counters compared: database and simulators agree.", highlight=False
        )
        return 0

    def _truth(self) -> Truth:
        description = json.loads(self._state.meters.read_text(encoding="utf-8"))

        def at(site: str, meter: str, moment: datetime) -> Mapping[str, float]:
            return simulators.totals(description, moment)[site][meter]

        return at

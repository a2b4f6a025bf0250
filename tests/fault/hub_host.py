# SPDX-License-Identifier: Apache-2.0
"""The hub's host of a lab fleet, as the tests that take it away look at it: is it alive again, and is all in order?"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from wattfleet.errors import WattfleetError

from tests.fault.kill_hub import UNCHECKED, UNTOLD
from tests.fault.report import FaultReport
from tests.fault.rig.rig import say
from tests.fleet.fleet import Fleet

HUB = "hub"
KEY = "/etc/energy-hub/checkpoint.pub"
WITNESSES = "/var/lib/energy/witness.jsonl"
# s until a hub that was off or gone has readings of every site that were measured after its return.
PATIENCE = 240.0
# s after which the hub has what was read before: a batch, its repetition when it was lost, its commit.
SETTLE = 90.0
# Poll and batch of every site, in s: some commits a second, so that an instant at random meets one.
LOAD: dict[str, Any] = {"interval": 2, "collector": {"batch": {"interval": 1}}}


class HubHost:
    """`folder` keeps what an auditor has: the hub's public key, and the gateways' witnesses."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self._folder = folder
        self._key = folder / "checkpoint.pub"

    def take_the_key(self) -> None:
        """An auditor has it from the beginning; later on the hub could show any."""
        self._key.write_text(self.fleet.ssh(HUB, f"sudo cat {KEY}"))

    def query(self, sql: str) -> list[list[str]]:
        """Rows of the hub's database."""
        said = self.fleet.ssh(HUB, f"sudo -u postgres psql -XAtq -F '|' energy -c {shlex.quote(sql)}")
        return [line.split("|") for line in said.splitlines()]

    def number_of_readings(self) -> int:
        return int(self.query("SELECT count(*) FROM reading")[0][0])

    def sign(self) -> None:
        """A checkpoint, and every gateway bears witness to it."""
        before = {site: self._held(site) for site in self.fleet.sites}
        self.fleet.ssh(HUB, "sudo systemctl start energy-checkpoint.service")
        for site, held in before.items():
            wait(partial(self._holds_another, site, held), f"{site} keeps the checkpoint")

    def _holds_another(self, site: str, than: str) -> bool:
        return self._held(site) != than

    def _held(self, site: str) -> str:
        return self.fleet.ssh(site, f"sudo tail --lines=1 {WITNESSES} 2>/dev/null || true")

    def wait_until_live(self, since: float, patience: float = PATIENCE) -> bool:
        """Until the hub has a reading of every site from after a Unix time."""
        end = time.monotonic() + patience
        while not self._is_live(since):
            if time.monotonic() > end:
                return False
            time.sleep(0.5)
        return True

    def _is_live(self, since: float) -> bool:
        try:
            states = self.fleet.hub.status()
        except (WattfleetError, ValueError):
            return False
        newest = [states[site].newest if site in states else None for site in self.fleet.sites]
        return all(one is not None and one.timestamp() > since for one in newest)

    def count(self, report: FaultReport, start: float, end: float, settle: float = SETTLE) -> None:
        """Both ends of every site. Nobody has touched a gateway, so that nothing is excused."""
        say(f"waiting {settle:.0f} s for what is still under way")
        time.sleep(settle)
        for site in self.fleet.sites:
            report.add(site, self.fleet.both_ends(site, start, end))

    def judge(self, report: FaultReport) -> set[str]:
        """Whatever is not in order is a piece of evidence. Returns the kinds of notes that the audit makes."""
        for site, missing in self.query(UNTOLD):
            _find(report, f"{site}: stored, and not told as committed: {missing}")
        for site, count in self.query(UNCHECKED):
            _find(
                report, f"{site}: {count} links of the chain are unchecked, though the batch before is there"
            )
        for line in self.fleet.ssh(HUB, "systemctl --failed --plain --no-legend").splitlines():
            _find(report, f"a unit of the hub has failed: {line}")
        said = self._folder / "audit.json"
        self.sign()
        variables = {"audit_key": str(self._key), "audit_witnesses": str(self._folder), "audit_whole": True}
        result = self.fleet.play("audit", audit_report=str(said), **variables)
        for failure in result.failures:
            _find(report, f"audit.yml: {failure.host}: {failure.message}")
        result = self.fleet.play("verify")
        for failure in result.failures:
            _find(report, f"verify.yml: {failure.host}: {failure.message}")
        notes = json.loads(said.read_text())["notes"] if said.exists() else []
        for note in notes:
            say(f"note: {note['site']}: {note['kind']}: {note['detail']}")
        return {str(note["kind"]) for note in notes}


def _find(report: FaultReport, line: str) -> None:
    report.evidence += 1
    report.findings.append(line)


def wait(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Raises AssertionError when it does not come."""
    end = time.monotonic() + seconds
    while not _holds(condition):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)


def _holds(condition: Callable[[], object]) -> bool:
    """A host that is busy or on its way may not answer."""
    try:
        return bool(condition())
    except (AssertionError, subprocess.TimeoutExpired):
        return False

# SPDX-License-Identifier: Apache-2.0
"""The hub's database is backed up, goes on, and is restored to an earlier point, while readings flow.

The gateway sees that it was set back, and sends again what it had delivered and the hub has no more. An audit with what
the gateway has kept of checkpoints then finds nothing, and says that there was a restore.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub.audit.context import Scope
from energy_hub.audit.verify import verify
from energy_hub.evidence import step
from energy_hub.evidence.keys import raw

from tests.fault.report import FaultReport
from tests.fault.rig.backup import Backup
from tests.fault.rig.process import wait_for
from tests.fault.rig.rig import Rig, say

# Readings between two things that happen: some seconds of the rig's.
SOME = 300


class Hub:
    """What the rig's hub has beside the database: backups, and the key that signs checkpoints."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.key = Ed25519PrivateKey.generate()
        self.backup = Backup(rig.database)
        self.witnesses = rig.home / "buffer" / "witness.jsonl"

    def sign(self) -> None:
        """A checkpoint, and the gateway bears witness to it."""
        before = self._held()
        with self.rig.database.connect("energy_ingest") as connection:
            assert step.run(connection, self.key)
        wait_for(lambda: self._held() > before, "the gateway keeps the checkpoint")

    def _held(self) -> int:
        return len(self.witnesses.read_bytes().splitlines()) if self.witnesses.exists() else 0

    def restore(self, to: datetime) -> int:
        """How many readings the database has then."""
        self.rig.ingest.stop()
        self.backup.restore(to)
        left = self.rig.database.number_of_readings()
        self.rig.ingest.start()
        return left

    def audit(self) -> tuple[list[str], set[str]]:
        """Findings, and kinds of notes."""
        authority = self.rig.authority
        scope = Scope(
            keys=frozenset([raw(self.key.public_key())]),
            authorities=[authority.root.certificate, authority.intermediate.certificate],
            witnesses=[self.witnesses],
        )
        with self.rig.database.connect("energy_read") as connection:
            report = verify(connection, scope)
        findings = [f"{one.kind} {one.subject}: {one.detail}" for one in report.sorted_findings()]
        return findings + report.unchecked, {note.kind for note in report.sorted_notes()}


def run(rounds: int) -> FaultReport:
    """A round: readings, a point in time, more readings that the gateway sees signed, and back to the point."""
    report = FaultReport("restore-hub", rounds)
    with Rig() as rig:
        hub = Hub(rig)
        rig.wait_for_delivery()
        hub.backup.take("full")
        for number in range(rounds):
            _set_back(hub, report, f"round {number + 1} of {rounds}")
            rig.wait_for_delivery(SOME)
        rig.finish(report)
        with rig.database.connect("energy_ingest") as connection:
            assert step.run(connection, hub.key)
        findings, notes = hub.audit()
        report.evidence += len(findings)
        report.findings += findings
        if not {"restored", "set-back"} <= notes:
            report.evidence += 1
            report.findings.append(f"the audit says nothing of the restore, but {', '.join(sorted(notes))}")
    return report


def _set_back(hub: Hub, report: FaultReport, text: str) -> None:
    rig = hub.rig
    rig.wait_for_delivery(SOME)
    to = hub.backup.moment()
    rig.wait_for_delivery(SOME)
    hub.sign()
    had = rig.database.number_of_readings()
    left = hub.restore(to)
    report.faults += 1
    lost = had - left
    say(f"{text}: {lost} readings set back by {(datetime.now(UTC) - to).total_seconds():.0f} s")
    report.figures["set_back"] = report.figures.get("set_back", 0) + lost
    assert lost > 0, "the restore has taken nothing away"


def control() -> FaultReport:
    """The gateway keeps nothing of what the hub has committed."""
    report = FaultReport("restore-hub-control", 1)
    with Rig(settings={"buffer": {"keep_age": 0}}) as rig:
        hub = Hub(rig)
        rig.wait_for_delivery()
        hub.backup.take("full")
        _set_back(hub, report, "without what the gateway keeps")
        rig.wait_for_delivery(SOME)
        rig.finish(report, patience=10)
    return report

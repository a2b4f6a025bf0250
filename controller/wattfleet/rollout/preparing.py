# SPDX-License-Identifier: Apache-2.0
"""Making a plan and beginning it, for the command and for the playbook."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from wattfleet.rollout import operations, plan_file
from wattfleet.rollout.arm import ask_versions, open_log
from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.fleet import read_fleet
from wattfleet.rollout.folder import Folder
from wattfleet.rollout.gate_settings import gate_settings
from wattfleet.rollout.ledger import Ledger, LedgerChangedError, LedgerError, Step
from wattfleet.rollout.plan_file import PlanFile
from wattfleet.rollout.planning import PlanError, make_plan
from wattfleet.rollout.release import read_release

TRIES = 20
# Which sites are asked what they run: those of which no rollout has told, all, or none.
ASK = ("unknown", "all", "none")


def make(
    folder: Folder,
    ledger: Ledger,
    name: str,
    inventory: Path,
    *,
    image: Path,
    manifest: Path,
    limit: str | None = None,
    ask: str = "unknown",
    tell: Callable[[str], None] = lambda _: None,
) -> PlanFile:
    """Make a plan and save it; nothing else is changed. Raises WattfleetError."""
    plan_file.check_name(name)
    if name in ledger.rollouts():
        raise PlanError(f"there is a rollout {name} already: give this one another name")
    now = datetime.now(UTC)
    fleet = read_fleet(inventory, limit)
    release = read_release(manifest, image, fleet.install_time, now)
    known = ledger.known()
    asked = [
        site
        for site in fleet.sites
        if ask == "all" or (ask == "unknown" and "version" not in known.get(site, {}))
    ]
    if asked:
        tell(f"asking {len(asked)} sites what they run")
        with open_log(folder.log(name)) as log:
            for site, version in ask_versions(fleet, asked, release.release.kind, log).items():
                known[site] = {**known.get(site, {}), "version": version}
    fleet = fleet.with_known(known)
    gates = gate_settings(fleet.facts.get("gates"))
    made = make_plan(fleet.sites.values(), release.release, fleet.settings, fleet.rings, now, gates)
    files = {
        "image": str(release.image),
        "manifest": str(release.manifest),
        "inventory": str(fleet.inventory),
    }
    one = PlanFile(name, made, files, now)
    plan_file.save(folder.plan(name), one)
    return one


def begin(folder: Folder, ledger: Ledger, name: str, digest: str, who: str) -> None:
    """Begin the plan that has this digest. Raises WattfleetError."""
    one = plan_file.load(folder.plan(plan_file.check_name(name)))
    plan_file.check_digest(one, digest)
    image, manifest = Path(one.files["image"]), Path(one.files["manifest"])
    release = read_release(manifest, image, one.plan.release.install, datetime.now(UTC))
    if release.release != one.plan.release:
        raise PlanError(f"{manifest}: not the release that was planned: make the plan again")
    if name not in ledger.rollouts():
        ledger.write(operations.plan_steps(name, one.plan, one.files), at=now_ms(), who=who)
    operate(ledger, name, lambda rollout: operations.start(rollout, one.plan.digest), who)


def operate(ledger: Ledger, name: str, operation: Callable[[Rollout], list[Step]], who: str) -> list[Step]:
    """Read, decide, write; again, when a driver has written in between."""
    for _ in range(TRIES):
        rollout = operations.load(ledger, name)
        steps = operation(rollout)
        try:
            ledger.write(steps, at=now_ms(), who=who, following=rollout.number)
        except LedgerChangedError:
            continue
        return steps
    raise LedgerError(f"{name}: the ledger changes all the time: try again")


def now_ms() -> int:
    return int(time.time() * 1000)

# SPDX-License-Identifier: Apache-2.0
"""The hub's host is gone with all that it had, and a new one takes its place, as
docs/how-to/back-up-and-restore-the-hub.md says: under the old name and address, by playbooks/hub.yml, with the
databases from a repository that was elsewhere.

Gateways measure on meanwhile. They then meet a broker with a new certificate of the same authority, and send again what
the backup has not.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from pathlib import Path

import yaml
from wattfleet.playbook import PlaybookResult

from tests.fault.hub_host import HUB, LOAD, HubHost, wait
from tests.fault.report import FaultReport
from tests.fault.rig.rig import say
from tests.fleet.fleet import Fleet

# Where the hub sees what stands for another machine's disk.
STORE = "/mnt/store"
# s of readings that no archive has: more than a minute, and the hub archives by itself.
UNARCHIVED = (15.0, 40.0)
REFUSED = "the repository has backups of another database"


def prepare(fleet: Fleet) -> None:
    """A hub that has its backups elsewhere as well, and sites that deliver every second."""
    fleet.up()
    fleet.change_sites(**LOAD)
    _store(fleet).mkdir()
    _store(fleet).chmod(0o755)
    _attach(fleet)
    variables = {"hub_backup_repositories": [{"path": f"{STORE}/hub"}]}
    (fleet.state.inventory / "group_vars/all/store.yml").write_text(yaml.safe_dump(variables))


def _store(fleet: Fleet) -> Path:
    return fleet.state.path / "store"


def _attach(fleet: Fleet) -> None:
    """Mount it in the hub, as a network file system would be at each boot."""
    fleet.lab("stop", HUB)
    point = fleet.state.folder(HUB).root / STORE.lstrip("/")
    point.mkdir()
    subprocess.run(["mount", "--bind", _store(fleet), point], check=True)
    fleet.lab("start", HUB)


def run(fleet: Fleet, rounds: int) -> FaultReport:
    """A round is a hub that is lost and restored."""
    report = FaultReport("lose-hub", rounds)
    with tempfile.TemporaryDirectory() as folder:
        hub = HubHost(fleet, Path(folder))
        hub.take_the_key()
        start = time.time()
        assert hub.wait_until_live(start), "the sites do not deliver"
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            _lose_and_restore(hub, report)
        hub.count(report, start, time.time())
        notes = hub.judge(report)
        if not {"restored", "set-back"} <= notes:
            report.evidence += 1
            report.findings.append(f"the audit says nothing of the restore, but {', '.join(sorted(notes))}")
        _play(fleet, "backup")
    return report


def _lose_and_restore(hub: HubHost, report: FaultReport) -> None:
    fleet = hub.fleet
    _deliver_what_no_archive_has(hub)
    had = hub.number_of_readings()
    lost = time.time()
    fleet.lab("host-remove", HUB)
    report.faults += 1
    say(f"the hub is gone with {had} readings")
    fleet.lab("host-add", HUB)
    _attach(fleet)
    refused = fleet.play("hub")
    assert REFUSED in _why(refused), _why(refused)
    _play(fleet, "restore", hub_restore_to="latest", hub_restore_confirm=HUB)
    left = hub.number_of_readings()
    say(f"restored to {left} readings {time.time() - lost:.0f} s after the loss")
    _play(fleet, "hub")
    serving = time.time()
    assert hub.wait_until_live(serving), f"the sites do not deliver to the new hub: {fleet.hub.status()}"
    report.figures |= {
        "set_back": report.figures.get("set_back", 0) + had - left,
        "live_again_s": round(time.time() - lost, 1),
        "live_after_hub.yml_s": round(time.time() - serving, 1),
    }
    again = _play(fleet, "hub")
    if again.changed:
        report.evidence += 1
        report.findings.append(f"hub.yml once more changes {again.changed} tasks, see {again.log}")


def _deliver_what_no_archive_has(hub: HubHost) -> None:
    """The first backup is whole, the log until now is with it; then readings flow that are in neither, and gateways see
    them signed."""
    wait(lambda: _backups(hub.fleet), "the store has a backup", 300)
    hub.query("SELECT pg_switch_wal()")
    wait(lambda: hub.query("SELECT count(*) = 0 FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'") == [["t"]],
         "the log is archived")  # fmt: skip
    time.sleep(random.uniform(*UNARCHIVED))
    hub.sign()


def _backups(fleet: Fleet) -> bool:
    """Of all repositories the second one alone is elsewhere."""
    said = fleet.ssh(HUB, "sudo -u postgres pgbackrest --repo=2 info")
    return "full backup" in said


def _play(fleet: Fleet, playbook: str, **variables: str) -> PlaybookResult:
    result = fleet.play(playbook, **variables)
    assert result.ok, f"{playbook}.yml: {_why(result)}"
    return result


def _why(result: PlaybookResult) -> str:
    return "; ".join(f"{one.host}: {one.task}: {one.message}" for one in result.failures) or "it went through"


def control(fleet: Fleet) -> FaultReport:
    """The gateways keep nothing of what the hub has committed."""
    report = FaultReport("lose-hub-control", 1)
    batch = LOAD["collector"]["batch"]
    fleet.change_sites(collector={"batch": batch, "buffer": {"keep_age": 0}})
    _play(fleet, "site")
    with tempfile.TemporaryDirectory() as folder:
        hub = HubHost(fleet, Path(folder))
        start = time.time()
        assert hub.wait_until_live(start), "the sites do not deliver"
        _lose_and_restore(hub, report)
        hub.count(report, start, time.time())
    return report

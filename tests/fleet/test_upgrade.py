# SPDX-License-Identifier: Apache-2.0
"""A fleet that the release before this one has provisioned is brought to this one, and goes on measuring.

The site files stay as they are: whoever upgrades runs the same command on the same inventory. What each role takes over
is told in docs/how-to/upgrade.md, and held here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.kill_services import SETTLE, UNCOMMITTED
from tests.fleet.fleet import Fleet
from tests.fleet.previous import Release, previous_release
from tests.fleet.test_main_path import explain, verdicts

pytestmark = [pytest.mark.timeout(2400), pytest.mark.long]

BEFORE = 30.0  # s that the old release measures before, and the new one after the upgrade


@pytest.fixture(scope="module")
def old() -> Release:
    release = previous_release()
    if not release.is_known:
        pytest.skip(
            f"this clone does not reach back to {release.version}, {release.commit[:12]}: it is shallow"
        )
    release.take_out()
    return release


@pytest.fixture(scope="module")
def upgraded(old: Release) -> Iterator[Fleet]:
    """One site and the hub, as the old release has left them."""
    one = Fleet("upgrade", 1)
    one.down()
    one.lab("up", "--sites", "1", "--inventory", str(old.tree / "inventory" / "lab" / "fleet.sites.yml"))
    for playbook in ("ca", "site"):
        done = old.play(playbook, one.inventory)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    yield one
    one.down()


def version(fleet: Fleet, host: str, folder: str) -> str:
    return fleet.ssh(host, f"readlink {folder}/current").strip().rpartition("/")[2]


# Keys, certificates and what vouches for the batches: nobody has to be enrolled again.
IDENTITIES = (
    "sudo sh -c 'sha256sum /etc/ssl/energy/*.key /etc/ssl/energy/*.crt /var/lib/energy/*.key /var/lib/energy-hub/*.key"
    " 2>/dev/null; true'"
)
CONNECTIONS = "sudo nmcli --terse --fields DEVICE,NAME,UUID connection show --active"
ADDRESSES = "ip -brief address show scope global"


def taken_over(fleet: Fleet) -> dict[str, str]:
    """What has to be the same before and after on every host."""
    return {
        f"{host}: {command}": fleet.ssh(host, command)
        for host in ("hub", *fleet.sites)
        for command in (IDENTITIES, CONNECTIONS, ADDRESSES)
    }


def ledgers(fleet: Fleet, folder: str) -> dict[str, list[str]]:
    """Name -> serial numbers in its ledger."""
    found = (fleet.state.inventory.parent / "ca" / folder).glob("*.jsonl")
    return {
        path.stem: [json.loads(line)["serial"] for line in path.read_text().splitlines()] for path in found
    }


def test_the_upgrade_loses_nothing_and_is_complete(upgraded: Fleet, old: Release, tmp_path: Path) -> None:
    fleet = upgraded
    (site,) = fleet.sites
    assert version(fleet, site, "/opt/energy") == old.version
    before, issued = taken_over(fleet), ledgers(fleet, "issued")
    assert set(issued) == {site, "ingest", fleet.settings["hub"]["name"]}
    start = time.time()
    time.sleep(BEFORE)

    begun = time.time()
    result = fleet.play("site")
    assert result.ok, explain(result)
    restarted = fleet.ssh(
        site, "systemctl show --value -p ActiveEnterTimestamp --timestamp=unix energy-gateway"
    )
    assert float(restarted.strip().lstrip("@")) > begun - 1, "the polling service is still the old one"
    new = {version(fleet, site, "/opt/energy"), version(fleet, "hub", "/opt/energy-hub")}
    assert old.version not in new, new

    second = fleet.play("site")
    assert second.ok, explain(second)
    assert second.changed == 0, f"the run after the upgrade changed something, see {second.log}"

    after = taken_over(fleet)
    assert after == before, {key: (before[key], after[key]) for key in after if after[key] != before[key]}
    assert ledgers(fleet, "issued") == issued, "a certificate was signed anew"
    assert ledgers(fleet, "installed") == issued, "the ledger does not tell what each host uses"

    # What was taken over has to be there after a boot as well.
    off = time.time()
    fleet.lab("reboot", site)
    on = time.time()
    time.sleep(BEFORE)
    result, verdict = verdicts(fleet, tmp_path / "verify.json")
    assert result.ok, verdict

    end = time.time()
    time.sleep(SETTLE)
    # The polling service ends in good order: what it has read is committed. A poll that it ended within was not.
    moment = float(restarted.strip().lstrip("@"))
    count = fleet.both_ends(
        site,
        start,
        end,
        [(moment - UNCOMMITTED, moment + UNCOMMITTED), (off - UNCOMMITTED, on + UNCOMMITTED)],
    )
    print(f"{count.polls} polls, {count.readings} readings, {count.excused} excused")
    assert count.exact, (count.lost[:5], count.doubled[:5], count.invented[:5])
    assert count.readings > count.polls > 10

    # The gateway's certificate is still that of the old release, and so is its line in the ledger.
    result = fleet.play("revoke", site=site, reason="superseded")
    assert result.ok, explain(result)
    revoked = (fleet.state.inventory.parent / "ca" / "revoked.jsonl").read_text().splitlines()
    assert [json.loads(line)["serial"] for line in revoked] == issued[site]

# SPDX-License-Identifier: Apache-2.0
"""A fleet that the release before this one has provisioned is brought to this one, and goes on measuring.

The site files stay as they are: whoever upgrades runs the same command on the same inventory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fault.kill_services import SETTLE, UNCOMMITTED
from tests.fleet.counting import count_site
from tests.fleet.fleet import Fleet
from tests.fleet.previous import Release, previous_release
from tests.fleet.test_main_path import explain

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

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


def test_the_upgrade_loses_nothing_and_is_complete(upgraded: Fleet, old: Release) -> None:
    fleet = upgraded
    (site,) = fleet.sites
    assert version(fleet, site, "/opt/energy") == old.version
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

    end = time.time()
    time.sleep(SETTLE)
    # The polling service ends in good order: what it has read is committed. A poll that it ended within was not.
    moment = float(restarted.strip().lstrip("@"))
    count = count_site(
        fleet.answers(site),
        fleet.readings(site, start, end),
        fleet.intervals(site),
        start,
        end,
        [(moment - UNCOMMITTED, moment + UNCOMMITTED)],
    )
    print(f"{count.polls} polls, {count.readings} readings, {count.excused} excused")
    assert count.exact, (count.lost[:5], count.doubled[:5], count.invented[:5])
    assert count.readings > count.polls > 10

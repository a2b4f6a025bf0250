# SPDX-License-Identifier: Apache-2.0
"""Services one of whose threads dies: the process ends with it, and what it had in hand comes again to the next one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from energy_hub.store import Store

from .authority import Authority
from .conftest import Database, RunningBroker, Shards, running, wait_until
from .test_ingest import ROOT, Hub, Site, readings
from .test_store import commit, known
from .threads_with_faults import VARIABLE

SABOTAGE = "tests.unit.hub.threads_with_faults"


@pytest.fixture
def site(broker: RunningBroker, authority: Authority) -> Iterator[Site]:
    one = Site(broker, authority, "plant-a")
    yield one
    one.close()


@pytest.fixture
def hub(broker: RunningBroker, database: Database, tmp_path: Path) -> Iterator[Hub]:
    one = Hub(broker, database, tmp_path)
    yield one
    one.stop()


@pytest.fixture
def hub_of_two(broker: RunningBroker, shards: Shards, tmp_path: Path) -> Iterator[Hub]:
    one = Hub(broker, shards.databases["north"], tmp_path)
    yield one
    one.stop()


def check_its_end(hub: Hub, site: Site, name: str, **config: Any) -> None:
    """A worker with a sabotaged thread ends, and says where; the next one, which systemd would start, has what this one
    left behind, though the site does not send it again."""
    # Both are the same to the broker, which keeps what was not receipted, however slowly the next one starts.
    there = hub.at(hub.broker.port) | {"session_expiry": 60}
    worker = hub.start(SABOTAGE, broker=there, **config)
    site.online()
    assert site.acks.get(timeout=20)
    site.send(site.gateway.batch(readings(0)))
    assert worker.wait(30) == 1
    line = rf"ERR fault: thread {name}: ZeroDivisionError\('of the test'\) at threads_with_faults\.py:\d+; "
    assert re.search(line, hub.log())
    hub.start(broker=there, **config)
    site.send(site.gateway.batch(readings(1)))
    wait_until(lambda: site.committed == {1, 2}, "nothing is lost")


@pytest.mark.parametrize(("thread", "name"), [("main", "main"), ("broker", r"paho-mqtt-client-\S+")])
def test_a_worker_ends_with_its_thread(
    hub: Hub, site: Site, thread: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, thread)
    check_its_end(hub, site, name)


@pytest.mark.parametrize(("thread", "name"), [("lane", "lane-north"), ("herald", "herald")])
def test_a_worker_for_several_databases_ends_with_its_thread(
    hub_of_two: Hub, shards: Shards, site: Site, thread: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, thread)
    check_its_end(hub_of_two, site, name, **shards.config())


def test_the_rollups_end_with_one_of_their_threads(shards: Shards, tmp_path: Path) -> None:
    """Each has a database, and the others would feed the watchdog for it."""
    south = shards.databases["south"]
    store = Store(south.conninfo("energy_ingest"))
    gateway = known(store, "plant-b")
    commit(store, "plant-b", gateway.batch(readings(0)))
    store.close()
    config, log = tmp_path / "ingest.yaml", tmp_path / "service.log"
    config.write_text(json.dumps({key: value for key, value in shards.config().items() if value is not None}))
    options = ["rollup", "--config", str(config), "--every", "0.2", "--log", str(log)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'hub'}:{ROOT}", VARIABLE: "rollup"}
    stumbling = subprocess.run(
        [sys.executable, "-m", SABOTAGE, *options],
        env=environment,
        timeout=30,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert stumbling.returncode == 1
    assert "ERR fault: thread rollup-south: ZeroDivisionError('of the test') at threads_with_faults.py:" in (
        log.read_text()
    )
    assert b"Traceback" in stumbling.stderr
    assert south.one("SELECT count(*) FROM touched") == 1
    with running([sys.executable, "-m", "energy_hub", *options]):
        wait_until(lambda: south.one("SELECT count(*) FROM touched") == 0, "the next one counts it")
    assert south.one("SELECT sum(readings)::int FROM rollup_minute") == 10

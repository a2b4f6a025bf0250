# SPDX-License-Identifier: Apache-2.0
"""Two gateways and a hub with two databases: each site is counted in the one where the directory says it lives."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from energy_hub.config import Databases
from energy_hub.shards import adopt

from tests.fault.rig.broker import Broker
from tests.fault.rig.database import HEALTH, NAME, Database
from tests.fault.rig.exact import Row
from tests.fault.rig.ingest import USUAL, Ingest
from tests.fault.rig.process import Process
from tests.fault.rig.rig import Rig
from tests.unit.hub.authority import Authority

DIRECTORY, OTHER = "north", "south"
SETTINGS: dict[str, Any] = {"delivery": {"backlog_start": 0}}


class SiteDatabase(Database):
    """What is stored of one site, wherever it lives."""

    def __init__(self, databases: dict[str, Database], site: str) -> None:
        self._databases = databases
        self._site = site

    def home(self) -> str | None:
        """The database that the directory names."""
        with self._databases[DIRECTORY].connect() as connection:
            row = connection.execute("SELECT shard FROM directory WHERE site = %s", (self._site,)).fetchone()
        return row[0] if row else None

    def connect(self, user: str = "owner") -> psycopg.Connection:
        return self._databases[self.home() or DIRECTORY].connect(user)

    def number_of_readings(self) -> int:
        return len([row for row in self.rows() if row.value is not None and not re.match(HEALTH, row.point)])

    def rows(self, site: str | None = None) -> list[Row]:
        return super().rows(site or self._site)

    def newest(self) -> float | None:
        with self.connect() as connection:
            row = connection.execute(
                "SELECT extract(epoch FROM max(r.time))::float8 FROM point p JOIN site s ON s.id = p.site"
                " JOIN reading r ON r.point = p.id WHERE s.name = %s AND r.value IS NOT NULL"
                " AND p.name !~ %s",
                (self._site, HEALTH),
            ).fetchone()
        return None if row is None else row[0]

    def evidence(self, without: str = "") -> list[str]:
        with self.connect() as connection:
            found = connection.execute(
                "SELECT e.kind, e.detail FROM evidence e JOIN site s ON s.id = e.site WHERE s.name = %s",
                (self._site,),
            ).fetchall()
            found += connection.execute(
                "SELECT 'quarantine', reason FROM quarantine WHERE topic_site = %s", (self._site,)
            ).fetchall()
        return [f"{kind}: {detail}" for kind, detail in found]


class ShardedRig(Rig):
    """The first site, and the hub."""

    def __init__(self, *, interval: float = 0.2, ingest: str = USUAL) -> None:
        super().__init__(interval=interval, settings=SETTINGS)
        self._module = ingest

    def _start_hub(self, address: str, far: str | None) -> None:
        self.authority = Authority()
        self.shards = {name: Database(self.folder / name) for name in (DIRECTORY, OTHER)}
        for one in self.shards.values():
            self._started(one)
        conninfos = {name: f"host={one.folder} dbname={NAME}" for name, one in self.shards.items()}
        self.databases = Databases(conninfos, DIRECTORY)
        with self.shards[DIRECTORY].connect("energy_migrate") as directory:
            for name, one in self.shards.items():
                with one.connect("energy_migrate") as connection:
                    adopt(name, connection, directory)
        self.broker = Broker(self.folder / "broker", self.authority, address, netns=far)
        self._started(self.broker)
        configuration: dict[str, object] = {"databases": conninfos, "directory": DIRECTORY}
        self.ingest = Ingest(
            self.folder / "ingest", self.broker, configuration, self.authority, netns=far, module=self._module
        )
        self._started(self.ingest)
        self.database = SiteDatabase(self.shards, self.site)

    def mover(self, site: str, to: str) -> Process:
        """`energy-hub move-site`, not started yet."""
        return Process.module(
            "energy_hub", "move-site", site, to, "--config", self.ingest.config, log=self.folder / "mover"
        )


class Beside(Rig):
    """Another site of the same hub."""

    def __init__(self, first: ShardedRig, site: str) -> None:
        super().__init__(interval=first._interval, settings=SETTINGS, site=site)
        self._first = first

    def _start_hub(self, address: str, far: str | None) -> None:
        first = self._first
        self.authority, self.broker, self.ingest = first.authority, first.broker, first.ingest
        self.database = SiteDatabase(first.shards, self.site)

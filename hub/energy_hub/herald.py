# SPDX-License-Identifier: Apache-2.0
"""Gives every gateway its part of a new checkpoint, where there are several databases.

Checkpoints are in the directory's database, and what proves them in those of the sites. This has a thread and
connections of its own, so that a database which does not answer holds up witnesses alone, and no readings.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import psycopg
from psycopg.conninfo import make_conninfo

from energy_hub.config import Databases
from energy_hub.evidence import witness
from energy_hub.ingest import WITNESS_EVERY
from energy_hub.link import BrokerLink
from energy_hub.logs import Throttle
from energy_hub.pipeline import ROOT
from energy_hub.shards import GONE

log = logging.getLogger(__name__)

ROLE = "energy_ingest"


class Herald:
    def __init__(self, links: Sequence[BrokerLink], databases: Databases) -> None:
        self._links = links
        self._databases = databases
        self._connections: dict[str, psycopg.Connection] = {}
        # By database and link: the checkpoint that was published there, and on which connection.
        self._published: dict[tuple[str, BrokerLink], tuple[int, int]] = {}
        self._throttle = Throttle(300.0)
        self._stop = threading.Event()
        # Nobody waits for it in the end: what it has not published the next worker does.
        self._thread = threading.Thread(target=self._run, name="herald", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(WITNESS_EVERY):
            for name in self._databases.conninfos:
                try:
                    self._publish(name)
                except psycopg.Error:
                    # Whoever delivers to it says so.
                    self._forget(name)
                    self._forget(self._databases.directory)
                except LookupError as error:
                    if self._throttle(str(error)) is not None:
                        log.error("ERR witness: %s; run energy-audit verify", error)  # noqa: TRY400  (no traceback)

    def _publish(self, name: str) -> None:
        fleet = self._connect(self._databases.directory)
        number = witness.newest(fleet)
        # A broker that has come back may have forgotten what it retained.
        states = {link: (number, link.connection) for link in self._links if link.subscribed.is_set()}
        behind = {link: state for link, state in states.items() if state != self._published.get((name, link))}
        if number == 0 or not behind:
            return
        for site, payload in witness.messages(fleet, self._connect(name)):
            for link in behind:
                link.publish(f"{ROOT}/{site}/witness", payload, retain=True)
        for link, state in behind.items():
            self._published[name, link] = state

    def _connect(self, name: str) -> psycopg.Connection:
        if name not in self._connections:
            conninfo = make_conninfo(self._databases.conninfo(name, ROLE), **GONE)
            self._connections[name] = psycopg.connect(conninfo, autocommit=True)
        return self._connections[name]

    def _forget(self, name: str) -> None:
        connection = self._connections.pop(name, None)
        if connection is not None:
            connection.close()

# SPDX-License-Identifier: Apache-2.0
"""A worker for several databases: a lane for each, so that one which is away holds up its own sites alone.

The router's thread takes messages from the broker and puts each into the lane of its site. A lane is a worker without a
broker of its own: a thread that examines, commits and acknowledges what is in its queue.

A broker hands over a number of messages before the first is acknowledged (`in_flight`). A lane whose database is away
may hold its share of them and no more, or the others would get nothing. What comes beyond that is given back: PUBACK to
the broker, which proves nothing to a gateway, and no acknowledgement of ours, so that the gateway keeps the batch and
sends it again. Of a site's statuses the newest is kept, since nobody sends them again soon.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import psycopg
from cryptography import x509

from energy_hub.config import Config, Databases
from energy_hub.databases import trouble
from energy_hub.figures import LEFT, Figures
from energy_hub.herald import ROLE, Herald
from energy_hub.ingest import Action, Worker, acknowledge
from energy_hub.link import BrokerLink, Message
from energy_hub.logs import Throttle
from energy_hub.pipeline import split_topic
from energy_hub.quota import Quotas
from energy_hub.revocation import Revocations
from energy_hub.sequences import ranges
from energy_hub.shards import Directory, ShardStore
from energy_hub.store import ElsewhereError, Store, StreamKey

log = logging.getLogger(__name__)

# A database that has not finished a group after so long counts as away, in s.
STALLED = 5.0
# So long a message waits whose site is on its way or cannot be found, in s.
PARKED = 0.5
# A worker that is stopped waits for its lanes so long, in s; a database that hangs holds nobody up for ever.
PATIENCE = 10.0
# Of so many streams a site is told what is committed when its database is back; a gateway has one.
REMINDED = 4


class Router(Worker):
    """Takes messages from the link to the lanes until it is stopped."""

    def __init__(
        self, config: Config, authorities: Sequence[x509.Certificate], revocations: Revocations
    ) -> None:
        assert config.databases is not None
        # The lanes wait for a group to be full; here it would be waited for twice.
        super().__init__(replace(config, group=replace(config.group, wait=0.0)), authorities, revocations)
        self._databases = config.databases
        self._directory = _directory(config.databases)
        # Half of what may be in flight is shared out: for what waits in a queue, and as much for what is being done.
        self.share = max(1, config.in_flight // (2 * len(config.databases.conninfos)))
        self._herald = Herald(self._links, config.databases)
        self._lanes = {
            name: Lane(self, name, config, authorities, revocations) for name in config.databases.conninfos
        }
        # What was known of the directory. It may be old: the databases refuse what is not theirs.
        self._homes: dict[str, str] = {}
        self._parked: queue.SimpleQueue[tuple[float, Message]] = queue.SimpleQueue()

    @property
    def links(self) -> Sequence[BrokerLink]:
        """What the lanes answer on, too."""
        return self._links

    @property
    def quotas(self) -> Quotas:
        """The lanes find out how many readings a batch has."""
        return self._quotas

    def figures(self) -> dict[str, Figures]:
        return {name: lane.figures()[name] for name, lane in self._lanes.items()}

    def beyond_quota(self) -> Counter[str]:
        found = Counter(self._over_quota)
        for lane in self._lanes.values():
            found.update(lane.beyond_quota())
        return found

    def states(self) -> dict[str, tuple[bool, int]]:
        return {name: lane.states()[name] for name, lane in self._lanes.items()}

    def stop(self) -> None:
        super().stop()
        for lane in self._lanes.values():
            lane.stop()

    def again(self, message: Message, home: str | None) -> None:
        """A lane cannot take a message: it is another's, or its site is on its way. Called by the lanes."""
        site = _site(message)
        if home is not None and site is not None and self._homes.get(site) != home:
            self._homes[site] = home
            self._parked.put((0.0, message))
        elif self._parked.qsize() < self.share:
            self._parked.put((time.monotonic() + PARKED, message))
        else:
            message.link.done(message)

    def _connect_store(self) -> bool:
        """In place of a store: what the directory says, and the lanes. A directory that is away is not waited for: the
        sites come to be known one by one."""
        try:
            self._homes = self._directory.sites()
        except psycopg.Error as error:
            self._say_trouble(error)
        finally:
            self._directory.close()
        for lane in self._lanes.values():
            lane.start()
        self._herald.start()
        return True

    def _end(self) -> None:
        self._herald.stop()
        for lane in self._lanes.values():
            lane.stop()
        deadline = time.monotonic() + PATIENCE
        for lane in self._lanes.values():
            lane.join(max(0.0, deadline - time.monotonic()))

    def _process(self, messages: list[Message]) -> None:
        for _ in range(self._parked.qsize()):
            due, message = self._parked.get()
            if due <= time.monotonic():
                self._lane_of(message).put(message)
            else:
                self._parked.put((due, message))
        for lane in self._lanes.values():
            lane.tidy()
        for message in messages:
            self._lane_of(message).put(message)

    def _lane_of(self, message: Message) -> Lane:
        """The lane of a site; that of the directory for one that is not known, which finds out."""
        home = self._homes.get(_site(message) or "", self._databases.directory)
        return self._lanes.get(home) or self._lanes[self._databases.directory]

    def _publish_witnesses(self) -> None:
        """The herald does."""

    def _look_behind(self) -> None:
        """The lanes do, each at its database."""


class Lane(Worker):
    """The part of a worker that serves one database."""

    def __init__(
        self,
        router: Router,
        name: str,
        config: Config,
        authorities: Sequence[x509.Certificate],
        revocations: Revocations,
    ) -> None:
        assert config.databases is not None
        # What is being done is held as well as what waits.
        group = replace(config.group, batches=min(config.group.batches, router.share))
        super().__init__(replace(config, group=group, database=name), authorities, revocations, router.links)
        self._router = router
        # Batches are let in there.
        self._quotas = router.quotas
        self._name = name
        if name != config.databases.directory:
            # Checkpoints are in the directory's.
            self._figures.last_checkpoint = None
        self._conninfo = config.databases.conninfo(name, ROLE)
        self._directory = _directory(config.databases)
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"lane-{name}", daemon=True)
        self._in_trouble = False
        self._busy_since: float | None = None
        self._gone: set[str] = set()
        # Of sites that were told nothing while the database was away.
        self._kept: dict[str, Message] = {}
        self._left: set[str] = set()
        self._left_count = 0
        self._left_said = Throttle(30.0)

    def start(self) -> None:
        self._thread.start()

    def figures(self) -> dict[str, Figures]:
        return {self._name: self._figures}

    def states(self) -> dict[str, tuple[bool, int]]:
        return {self._name: (self._store is not None and not self.is_away, self._queue.qsize())}

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    # --- called by the router's thread

    @property
    def is_away(self) -> bool:
        """Whether the database is gone, or does not come to an end with what it was given."""
        since = self._busy_since
        return self._in_trouble or (since is not None and time.monotonic() - since > STALLED)

    def put(self, message: Message) -> None:
        if self.is_away and self._queue.qsize() >= self._router.share:
            self._leave(message, newest=True)
        else:
            self._queue.put(message)

    def tidy(self) -> None:
        """Give back what is beyond the share of a database that is away; take up again when it is back."""
        if self.is_away:
            while self._queue.qsize() > self._router.share:
                try:
                    self._leave(self._queue.get_nowait(), newest=False)
                except queue.Empty:
                    break
        elif self._kept:
            kept, self._kept = self._kept, {}
            for message in kept.values():
                self._queue.put(message)

    def _leave(self, message: Message, *, newest: bool) -> None:
        site = _site(message)
        if message.topic.endswith("/status"):
            # It is the broker's no more, so it must not be acknowledged once more.
            own = replace(message, qos=0)
            self._kept[message.topic] = own if newest else self._kept.get(message.topic, own)
        elif site is not None:
            self._left.add(site)
            self._left_count += 1
            self._figures.batches[LEFT] += 1
            if self._left_said("left") is not None:
                count, self._left_count = self._left_count, 0
                log.error(
                    "ERR database %s is away: %d batches are left to their gateways, which send them again;"
                    " nothing is lost",
                    self._name,
                    count,
                )
        message.link.done(message)

    # --- the lane's own thread

    def _serve(self) -> None:
        self._connect_store()
        while not self._stop.is_set():
            messages = self._take_queued()
            self._busy_since = time.monotonic()
            self._process(messages)
            self._remind()
            self._summarise()
            self._publish_witnesses()
            self._look_behind()
            self._busy_since = None
        if self._store is not None:
            self._store.close()
        self._directory.close()

    def _take_queued(self) -> list[Message]:
        found: list[Message] = []
        timeout = 0.5
        deadline = 0.0
        while len(found) < self._config.group.batches:
            try:
                found.append(self._queue.get(timeout=timeout))
            except queue.Empty:
                break
            if len(found) == 1:
                deadline = time.monotonic() + self._config.group.wait
            timeout = max(0.0, deadline - time.monotonic())
        return found

    def _open_store(self) -> Store:
        return ShardStore(self._name, self._conninfo, self._directory)

    def _connect_store(self) -> bool:
        connected = super()._connect_store()
        if connected:
            self._in_trouble = False
        return connected

    def _persist(self, action: Action) -> None:
        super()._persist(action)
        if not self._stop.is_set():
            self._in_trouble = False

    def _say_trouble(self, error: psycopg.Error) -> None:
        self._in_trouble = True
        text = trouble(error, self._name)
        if self._trouble(text) is not None:
            log.error("ERR %s; retrying, nothing is lost", text)

    def _elsewhere(self, error: ElsewhereError) -> None:
        self._gone |= error.sites

    def _finish(self, messages: Sequence[Message]) -> None:
        gone, self._gone = self._gone, set()
        if not gone or self._stop.is_set():
            super()._finish(messages)
            return
        homes = {site: self._home(site) for site in gone}
        for message in messages:
            site = _site(message)
            if site in homes:
                self._router.again(message, homes[site])
            else:
                super()._finish([message])

    def _home(self, site: str) -> str | None:
        try:
            return self._directory.where(site)
        except psycopg.Error:
            return None

    def _remind(self) -> None:
        """Tell the gateways whose batches were left to them what is committed: who hears something after a long silence
        sends again soon."""
        if self.is_away:
            return
        sites = []
        while self._left:
            # The router's thread adds to it meanwhile.
            sites.append(self._left.pop())
        if sites:
            self._persist(partial(self._acknowledge_all, sites=sites))

    def _acknowledge_all(self, store: Store, sites: Sequence[str]) -> None:
        for site, stream, committed in store.connection.execute(
            # The one that its last status names first: who has made very many is not told of all.
            "SELECT s.name, t.stream, t.committed::text FROM site s CROSS JOIN LATERAL (SELECT stream, committed"
            " FROM stream WHERE site = s.id ORDER BY encode(stream, 'hex') = s.status->>'stream' DESC NULLS LAST"
            " LIMIT %s) AS t WHERE s.name = ANY(%s) AND s.here",
            (REMINDED, list(sites)),
        ):
            # It may be at any broker by now.
            for link in self._links:
                acknowledge(link, StreamKey(site, bytes(stream)), ranges(committed), store.generation)

    def _publish_witnesses(self) -> None:
        """The herald does."""


def _directory(databases: Databases) -> Directory:
    return Directory(databases.conninfo(databases.directory, ROLE), list(databases.conninfos))


def _site(message: Message) -> str | None:
    try:
        return split_topic(message.topic)[0]
    except ValueError:
        return None

# SPDX-License-Identifier: Apache-2.0
"""The ingest worker: from the brokers to the database, and the acknowledgement back.

A thread for each broker, and one for the worker. The brokers' threads put messages into one queue; the worker's thread
takes groups of them out, commits each group, publishes what is committed where it came from, and only then lets the
broker forget the messages (PUBACK). A database that is away stops the flow without filling memory: each broker's
receive maximum bounds the batches in the queue, since those that it does not count (QoS 0) are dropped as they come,
and of statuses the queue holds one of each site.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import psycopg
from cryptography import x509

from energy_hub.behind import look
from energy_hub.config import Config
from energy_hub.databases import trouble
from energy_hub.evidence import witness
from energy_hub.figures import LET_GO, REFUSED, STATUS, UNREADABLE, UNTRUSTED, WAITED, Figures, over_quota
from energy_hub.gaps import MOST_RANGES
from energy_hub.link import BrokerLink, Inbox, Message
from energy_hub.logs import Throttle, place
from energy_hub.notify import notify
from energy_hub.pipeline import (
    ROOT,
    Unreadable,
    Untrusted,
    examine,
    learn_key,
    read_status,
    split_topic,
)
from energy_hub.quota import STATUSES, Quotas, Statuses, cost
from energy_hub.revocation import Revocations
from energy_hub.sequences import Ranges, told
from energy_hub.store import Committed, ElsewhereError, Signed, Store, StreamKey
from energy_hub.trust import TrustError
from energy_hub.whereabouts import Whereabouts

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MOST = 0.5, 30.0
# So long a start waits for all brokers, in s; then the ones that are there have to do.
ALL_BROKERS_WITHIN = 3.0
SUMMARY_EVERY = 60.0
# A new checkpoint is looked for so often, in s.
WITNESS_EVERY = 5.0
# And so often, where metrics are asked for, how far rollups and checkpoints are behind.
LOOK_EVERY = 10.0
# Faults of what is being stored, not of the database: classes 22 and 23 of the SQLSTATE table.
FAULTS_OF_THE_DATA = (psycopg.DataError, psycopg.IntegrityError)

# Objects that are made before Python looks for garbage in circles. Batches have none, and a group of them has some
# hundred thousand: with the usual 700 a quarter of the decoding would go into that.
OBJECTS = 100_000

Action = Callable[[Store], object]


def spare_memory_searches() -> None:
    """For a process that decodes batches: look rarely, and never at what was there from the beginning."""
    gc.freeze()
    gc.set_threshold(OBJECTS)


def acknowledgement(stream: bytes, ranges: Ranges, generation: str, around: Collection[int] = ()) -> bytes:
    """The JSON of an `ack` from all committed sequences of a stream; `generation` names the database that has them. Of
    very many ranges it names those `around` some sequences, and the ends."""
    watermark = 0
    above = list(told(ranges, around))
    if above and above[0][0] == 1:
        watermark = above.pop(0)[1]
    return json.dumps(
        {
            "stream": stream.hex(),
            "watermark": watermark,
            "ranges": [list(one) for one in above],
            "generation": generation,
        }
    ).encode()


def acknowledge(
    link: BrokerLink, key: StreamKey, ranges: Ranges, generation: str, around: Collection[int] = ()
) -> None:
    """Tell a gateway, at the broker where it was heard, what is committed of a stream: all, or of very much what is
    `around` these sequences."""
    link.publish(f"{ROOT}/{key.site}/ack", acknowledgement(key.stream, ranges, generation, around))


@dataclass(slots=True)
class Group:
    """Batches for one transaction."""

    messages: list[Message] = field(default_factory=list)
    signed: list[Signed] = field(default_factory=list)
    # By site: where it is answered, which is the link of its newest batch.
    answers: dict[str, BrokerLink] = field(default_factory=dict)
    readings: int = 0

    def add(self, one: Signed, link: BrokerLink) -> None:
        self.signed.append(one)
        self.answers[one.site] = link
        self.readings += one.body.readings if one.body else 0


class Worker:
    """Takes messages from the links to the store until it is stopped."""

    def __init__(
        self,
        config: Config,
        authorities: Sequence[x509.Certificate],
        revocations: Revocations,
        links: Sequence[BrokerLink] = (),
    ) -> None:
        self._config = config
        self._authorities = authorities
        self._revocations = revocations
        self._inbox = Inbox()
        self._links = links or [
            BrokerLink(one, self._inbox, config.in_flight, config.batch_bytes) for one in config.brokers
        ]
        self._whereabouts = Whereabouts()
        self._quotas = Quotas(config.quota, config.in_flight)
        self._statuses = Statuses()
        self._delayed = 0
        self._figures = Figures()
        self._over_quota = over_quota()
        self._store: Store | None = None
        self._stop = threading.Event()
        self._throttle = Throttle(300.0)
        self._trouble = Throttle(30.0)
        self._done = Committed()
        self._next_summary = time.monotonic() + SUMMARY_EVERY
        self._next_witness = 0.0
        self._next_look = 0.0
        # By link: the checkpoint that was published there, and on which connection.
        self._witnessed = dict.fromkeys(self._links, (0, 0))
        # What is being published, and what is known of the links that get it when all of it is.
        self._round: tuple[witness.Round, dict[BrokerLink, tuple[int, int]]] | None = None

    def stop(self) -> None:
        self._stop.set()

    # --- what the metrics ask

    @property
    def broker_links(self) -> Sequence[BrokerLink]:
        return self._links

    @property
    def inbox_length(self) -> int:
        return len(self._inbox)

    def figures(self) -> dict[str, Figures]:
        """By database; of one alone the name is empty."""
        return {"": self._figures}

    def beyond_quota(self) -> Counter[str]:
        return self._over_quota

    def states(self) -> dict[str, tuple[bool, int]]:
        """By database: whether it is there, and how many messages wait for it beside those of the inbox."""
        return {"": (self._store is not None, 0)}

    # --- the worker's thread

    def run(self) -> None:
        """Until `stop`; returns with everything that was committed also acknowledged."""
        self._connect_store()
        for link in self._links:
            link.start()
        started = time.monotonic()
        ready = False
        try:
            while not self._stop.is_set():
                if not ready:
                    ready = self._is_ready(time.monotonic() - started)
                messages = self._take()
                self._revocations.refresh()
                self._process(messages)
                self._summarise()
                self._publish_witnesses()
                self._look_behind()
        finally:
            notify("STOPPING=1")
            self._end()
            for link in self._links:
                link.leave()
            for link in self._links:
                link.stop()
            if self._store is not None:
                self._store.close()

    def _end(self) -> None:
        """What has to end while the brokers still hear us."""

    def _is_ready(self, waited: float) -> bool:
        """One broker is enough, though all are waited for a little; says who is missing."""
        missing = [link.where for link in self._links if not link.subscribed.is_set()]
        if len(missing) == len(self._links) or (missing and waited < ALL_BROKERS_WITHIN):
            return False
        notify("READY=1")
        if missing:
            log.warning("ready, without broker %s", ", ".join(missing))
        else:
            log.info("ready")
        return True

    def _take(self) -> list[Message]:
        """A group of messages: all that is there, up to the bounds; waits at most half a second for the
        first."""
        group = self._config.group
        now = time.monotonic()
        found = self._statuses.due(now) + self._quotas.due(now)
        message = self._inbox.take(0.0 if found or self._round else 0.5)
        deadline = time.monotonic() + group.wait
        while message is not None:
            if self._is_within_quota(message):
                found.append(message)
            if len(found) >= group.batches:
                break
            message = self._inbox.take(max(0.0, deadline - time.monotonic()))
        return found

    def _is_within_quota(self, message: Message) -> bool:
        if not message.is_batch:
            return self._is_status_of_now(message)
        return self._goes_on(message, self._quotas.admit(message, time.monotonic()))

    def _goes_on(self, message: Message, admitted: bool | None) -> bool:
        """What the quota says of a batch; it is taken care of unless it goes on."""
        if admitted:
            return True
        self._delayed += 1
        self._over_quota[LET_GO if admitted is None else WAITED] += 1
        self._say(
            (message.topic, "quota"),
            "ERR quota: %s: more than %g batches, %g bytes or %g readings a second; they wait, the other sites' do not",
            message.topic,
            self._config.quota.batches,
            self._config.quota.bytes,
            self._config.quota.readings,
        )
        if admitted is None:
            message.link.done(message)
        return False

    def _is_status_of_now(self, message: Message) -> bool:
        if self._statuses.admit(message, time.monotonic()):
            return True
        self._over_quota[STATUS] += 1
        text = "ERR quota: %s: more than %g statuses a second; of those beyond it the newest is looked at"
        self._say((message.topic, "quota"), text, message.topic, STATUSES)
        message.link.done(message)
        return False

    def _process(self, messages: list[Message]) -> None:
        """Work through the messages in their order: runs of batches in groups, each status by itself."""
        for are_batches, run in itertools.groupby(messages, key=lambda one: one.is_batch):
            if are_batches:
                self._batches(list(run))
            else:
                for message in run:
                    self._persist_one(message, partial(self._status, message=message))
                    self._finish([message])

    # --- the database, which may be away

    def _persist(self, action: Action) -> None:
        """Do `action` until the database has taken it or the worker is stopped."""
        delay = RETRY_FIRST
        while not self._stop.is_set():
            if self._store is None and not self._connect_store():
                return
            assert self._store is not None
            try:
                action(self._store)
            except FAULTS_OF_THE_DATA:
                raise
            except psycopg.Error as error:
                self._say_trouble(error)
                # A new connection also forgets what was remembered of a database that may have been restored.
                self._store.close()
                self._store = None
            else:
                return
            self._stop.wait(delay)
            delay = min(2 * delay, RETRY_MOST)

    def _persist_one(self, message: Message, action: Action) -> None:
        """The same for what belongs to one message; a message that the database refuses is dropped, with a
        line."""
        try:
            self._persist(action)
        except FAULTS_OF_THE_DATA as error:
            self._say(
                (message.topic, "refused"), "ERR %s: the database refuses it: %s", message.topic, _line(error)
            )
        except ElsewhereError as error:
            self._elsewhere(error)
        except Exception as error:  # noqa: BLE001  (told by _fault, ends no worker)
            self._fault(message.topic, error)

    def _fault(self, what: str, error: Exception) -> str:
        """A fault of this program that one message has brought out; what is to be told of it. The worker must not end
        by it: the message would come again, end it again, and every site would wait."""
        text = place(error)
        self._say((what, "fault"), "ERR fault of ingest: %s: %s; passed over, please report it", what, text)
        return text

    def _elsewhere(self, error: ElsewhereError) -> None:
        """Nothing of these sites was taken."""
        for site in error.sites:
            text = "ERR site %s was moved to another database, which is not configured here; not acknowledged"
            self._say((site, "elsewhere"), text, site)

    def _open_store(self) -> Store:
        return Store(self._config.database)

    def _connect_store(self) -> bool:
        delay = RETRY_FIRST
        while not self._stop.is_set():
            try:
                self._store = self._open_store()
            except psycopg.Error as error:
                self._say_trouble(error)
                self._stop.wait(delay)
                delay = min(2 * delay, RETRY_MOST)
            else:
                self._figures.migration = self._store.migration
                log.info("connected to database %s", self._config.database)
                return True
        return False

    def _say_trouble(self, error: psycopg.Error) -> None:
        text = trouble(error)
        if self._trouble(text) is not None:
            log.error("ERR %s; retrying, nothing is lost", text)

    # --- batches

    def _batches(self, messages: Sequence[Message]) -> None:
        """Examine and commit; one transaction for up to the bound of readings."""
        group = Group()
        for message in messages:
            if not self._goes_on(message, self._quotas.admit_to_reading(message, time.monotonic())):
                continue
            self._persist_one(message, partial(self._sort, message=message, group=group))
            group.messages.append(message)
            if group.readings >= self._config.group.readings:
                self._commit_and_finish(group)
                group = Group()
        self._commit_and_finish(group)

    def _commit_and_finish(self, group: Group) -> None:
        self._commit(group.signed, group.answers)
        self._finish(group.messages)

    def _sort(self, store: Store, message: Message, group: Group) -> None:
        try:
            site, _ = split_topic(message.topic)
        except ValueError as error:
            self._say("topic", "ERR %s", str(error))
            return
        try:
            found = examine(store, site, message.payload, self._config.batch_bytes, self._revocations)
        except (psycopg.Error, ElsewhereError):
            raise
        except Exception as error:  # noqa: BLE001  (told by _fault, ends no worker)
            found = Unreadable(f"cannot be examined: {self._fault(message.topic, error)}")
        match found:
            case Signed() as one:
                self._quotas.charge(message, cost(one.body))
                group.add(one, message.link)
            case Unreadable(reason):
                store.quarantine(site, message.payload, reason)
                self._figures.batches[UNREADABLE] += 1
                self._quotas.charge_unsigned(message)
                self._say((site, "unreadable"), "ERR quarantine: site %s: batch: %s", site, reason)
            case Untrusted(reason):
                self._figures.batches[UNTRUSTED] += 1
                self._quotas.charge_unsigned(message)
                self._say((site, "untrusted"), "ERR untrusted: site %s: %s; not acknowledged", site, reason)

    def _commit(self, signed: Sequence[Signed], answers: Mapping[str, BrokerLink]) -> None:
        if not signed:
            return
        try:
            self._persist(partial(self._commit_group, signed=signed, answers=answers))
        except ElsewhereError as error:
            self._elsewhere(error)
            self._commit([one for one in signed if one.site not in error.sites], answers)
        except Exception as error:  # noqa: BLE001  (told by _fault, ends no worker)
            if len(signed) > 1:
                # One of them is at fault; the others must not wait for it.
                for one in signed:
                    self._commit([one], answers)
                return
            if isinstance(error, psycopg.Error):
                reason = f"the database refuses it: {_line(error)}"
            else:
                reason = f"cannot be stored: {self._fault(signed[0].site, error)}"
            if signed[0].body is None:
                self._figures.batches[REFUSED] += 1
                self._say(
                    (signed[0].site, "refused"), "ERR site %s: %s; not acknowledged", signed[0].site, reason
                )
                return
            self._commit([unreadable(signed[0], reason)], answers)

    def _commit_group(
        self, store: Store, signed: Sequence[Signed], answers: Mapping[str, BrokerLink]
    ) -> None:
        began = time.monotonic()
        result = store.commit(signed)
        self._figures.add(result, time.monotonic() - began)
        sent: dict[StreamKey, list[int]] = defaultdict(list)
        for one in signed:
            sent[StreamKey(one.site, one.envelope.stream)].append(one.envelope.sequence)
        for key, ranges in result.streams.items():
            acknowledge(answers[key.site], key, ranges, store.generation, sent[key])
        for one in result.scattered:
            text = (
                "ERR scattered: site %s sequence %d: its stream has %d gaps, and this would be one more;"
                " not acknowledged"
            )
            self._say((one.site, "scattered"), text, one.site, one.envelope.sequence, MOST_RANGES)
        for one in signed:
            if one.body is None:
                text = "ERR quarantine: site %s sequence %d: %s"
                self._say((one.site, "quarantine"), text, one.site, one.envelope.sequence, one.reason)
        self._done.batches += result.batches
        self._done.readings += result.readings
        self._done.duplicates += result.duplicates

    def _summarise(self) -> None:
        """A line a minute rather than one a commit; nothing while nothing comes."""
        if time.monotonic() < self._next_summary:
            return
        self._next_summary = time.monotonic() + SUMMARY_EVERY
        done, self._done = self._done, Committed()
        delayed, self._delayed = self._delayed, 0
        if delayed:
            log.warning("%d batches were over their sites' quota in the last %.0f s", delayed, SUMMARY_EVERY)
        if done.batches or done.duplicates:
            log.info(
                "committed %d batches with %d readings, and met %d again, in the last %.0f s",
                done.batches,
                done.readings,
                done.duplicates,
                SUMMARY_EVERY,
            )

    def _publish_witnesses(self) -> None:
        """Give every gateway its part of a new checkpoint, at every broker, since it may go from one to another. Each
        worker does; the message is retained, and a gateway that gets it twice keeps it once. Between two slices of the
        sites is time for a group of batches."""
        if self._round is not None:
            self._persist(self._publish_slice)
            return
        if time.monotonic() < self._next_witness or not any(link.subscribed.is_set() for link in self._links):
            return
        self._next_witness = time.monotonic() + WITNESS_EVERY
        self._persist(self._begin_round)

    def _begin_round(self, store: Store) -> None:
        number = witness.newest(store.connection)
        # A broker that has come back may have forgotten what it retained.
        states = {link: (number, link.connection) for link in self._links if link.subscribed.is_set()}
        behind = {link: state for link, state in states.items() if state != self._witnessed[link]}
        found = witness.newest_round(store.connection) if number and behind else None
        if found is not None:
            self._round = found, behind

    def _publish_slice(self, store: Store) -> None:
        assert self._round is not None
        found, behind = self._round
        try:
            for site, payload in found.next_slice(store.connection):
                for link in behind:
                    link.publish(f"{ROOT}/{site}/witness", payload, retain=True)
        except LookupError as error:
            self._say("witness", "ERR witness: %s; run energy-audit verify", str(error))
        if found.is_over:
            self._round = None
            self._witnessed |= behind

    def _look_behind(self) -> None:
        """For the metrics, which ask no database: here one is there, or is waited for anyhow."""
        if self._config.metrics_port is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_EVERY
        self._persist(self._note_behind)

    def _note_behind(self, store: Store) -> None:
        self._figures.behind(look(store.connection))

    def _finish(self, messages: Sequence[Message]) -> None:
        if not self._stop.is_set():
            for message in messages:
                message.link.done(message)

    # --- status

    def _status(self, store: Store, message: Message) -> None:
        try:
            site, _ = split_topic(message.topic)
            if not message.payload:
                return  # a retained status was deleted
            status = read_status(site, message.payload)
        except ValueError as error:
            self._say((message.topic, "status"), "ERR status %s: %s", message.topic, str(error))
            return
        if self._whereabouts.is_left_behind(site, status.state, message.link, retained=message.retain):
            return
        if status.state == "online":
            try:
                new = learn_key(store, site, status, self._authorities, self._revocations)
            except TrustError as error:
                self._say((site, "key"), "ERR untrusted: site %s: key statement: %s", site, str(error))
                return
            if new is not None:
                log.info("site %s: signing key %s trusted from now on", site, new.hex())
        store.set_status(
            site, status.state, status.kept, seen=status.state == "online" and not message.retain
        )
        if status.state == "online" and status.stream is not None:
            key = StreamKey(site, status.stream)
            first = status.kept.get("first")
            around = [first] if isinstance(first, int) else []
            acknowledge(message.link, key, store.committed(key), store.generation, around)

    def _say(self, key: object, text: str, *values: object) -> None:
        held = self._throttle(key)
        if held is not None:
            more = f" (and {held} more like it before)" if held else ""
            log.error(text + "%s", *values, more)


def unreadable(one: Signed, reason: str) -> Signed:
    """The same batch, to be quarantined."""
    return Signed(one.site, one.site_id, one.key_id, one.payload, one.envelope, None, reason)


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__

# SPDX-License-Identifier: Apache-2.0
"""Each batch's row against its bytes, its bytes against the gateway's signature, and then its readings."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, NamedTuple

from energy_hub.audit.context import Context, span
from energy_hub.audit.findings import Times
from energy_hub.audit.neighbours import between
from energy_hub.audit.readings import Readings
from energy_hub.audit.trees import name
from energy_hub.batch import NO_PREVIOUS, BatchError, Body, Envelope, read_body, read_envelope
from energy_hub.store import CHAIN_BROKEN, CHAIN_PENDING, READ_AGAIN
from energy_hub.trust import batch_is_signed_by

_BATCHES = """
SELECT b.id, b.site, b.stream, b.sequence, b.digest, b.previous, b.signature, b.key, b.size, b.readings,
       b.received, b.chain, b.quarantined, b.content,
       (SELECT p.digest FROM batch p
        WHERE p.site = b.site AND p.stream = b.stream AND p.sequence = b.sequence - 1),
       EXISTS (SELECT FROM leaf l WHERE l.batch = b.id) OR EXISTS (SELECT FROM leaf_due d WHERE d.batch = b.id)
FROM batch b WHERE b.id >= %s AND b.site = ANY(%s) ORDER BY b.id
"""
# Batches carry up to a MB.
_FETCH = 50


class Row(NamedTuple):
    """A row of table batch, the digest of the batch before it, and whether it is in the tree or due for it."""

    id: int
    site: int
    stream: bytes
    sequence: int
    digest: bytes
    previous: bytes
    signature: bytes
    key: int
    size: int
    readings: int
    received: datetime
    chain: int
    quarantined: bool
    content: bytes | None
    before: bytes | None
    known: bool


def check(context: Context) -> None:
    """Batches of the chosen sites, and all readings that say they came with them."""
    _check_streams(context)
    total = _total(context)
    done = 0
    readings = Readings(context)
    sent: Counter[int] = Counter()
    context.progress.begin()
    for found in context.stream(_BATCHES, (context.first_batch, context.chosen), _FETCH):
        row = _row(found)
        batch = _Batch(context, row)
        body = batch.check()
        done += row.readings
        seen = context.seen.get(row.site)
        # What has no time of its own was received at some time before.
        if seen is not None and (not batch.is_timed or batch.times[0] <= seen.time):
            sent[row.site] += 1
        if body is None:
            readings.leave_out(row.id)
        else:
            readings.add(row.id, row.site, body, name(row.stream, row.sequence))
        context.progress.tell("readings", done, total)
    readings.finish()
    _check_sent_again(context, sent)


def _check_sent_again(context: Context, sent: Counter[int]) -> None:
    """Whether after a restore there are as many batches again of what was measured before as a gateway has seen signed.
    Their order and times of arrival are others, so that no root can tell."""
    report = context.report
    for site, seen in context.seen.items():
        row = context.connection.execute(
            "SELECT count(*) FILTER (WHERE received <= %s), count(*) FILTER (WHERE received > %s)"
            " FROM batch WHERE site = %s AND id < %s",
            (seen.time, seen.time, site, context.first_batch),
        ).fetchone()
        early, late = row or (0, 0)
        if late:
            report.unchecked.append(
                f"{context.sites[site]}: whether all was sent again after a restore is not seen with such a --since"
            )
        elif early + sent[site] < seen.size:
            missing = seen.size - early - sent[site]
            report.find(
                context.sites[site],
                "not-sent-again",
                "tree",
                f"the database was {seen.restore}; of {seen.size} batches that the gateway had seen signed before,"
                f" {missing} are not here again: the gateway sends what it still keeps when it is connected",
                # What was at the end of the archive nobody knows; the gateway had seen it by then.
                (seen.restore.target or seen.time, seen.time),
                missing,
            )


def _row(found: Any) -> Row:
    return Row._make(found)


def _total(context: Context) -> int:
    row = context.connection.execute(
        "SELECT coalesce(sum(readings), 0)::bigint FROM batch WHERE id >= %s AND site = ANY(%s)",
        (context.first_batch, context.chosen),
    ).fetchone()
    return int(row[0]) if row else 0


class _Batch:
    def __init__(self, context: Context, row: Row) -> None:
        self.context = context
        self.report = context.report
        self.row = row
        self.site = context.sites[row.site]
        self.subject = name(row.stream, row.sequence)
        self.times: Times = (row.received, row.received)
        # Whether these are the times of its readings, and not that of its arrival.
        self.is_timed = False

    def _find(self, kind: str, detail: str) -> None:
        self.report.find(self.site, kind, self.subject, detail, self.times)

    def check(self) -> Body | None:
        """The batch's readings, or None when its bytes prove nothing."""
        self.report.count("batches")
        if self.row.content is None:
            self.report.unchecked.append(f"{self.site}: {self.subject}: its bytes are not kept")
            return None
        envelope, body, why = self._read(self.row.content)
        if body is not None and body.series:
            self.times, self.is_timed = span(body), True
        if envelope is None:
            self._find("batch-changed", f"its bytes are no batch: {why}")
            return None
        if not self._is_proven(envelope):
            return None
        self._check_chain(envelope)
        self._check_readable(body, why)
        if not self.row.known:
            self._find("batch-inserted", "is in no tree, nor due for one; or its leaf was removed")
        is_stored = not self.row.quarantined or self._is_told(READ_AGAIN)
        return body if body is not None and is_stored else Body(self.site, ())

    def _read(self, content: bytes) -> tuple[Envelope | None, Body | None, str]:
        try:
            envelope = read_envelope(content)
        except BatchError as error:
            return None, None, str(error)
        try:
            body = read_body(envelope)
        except BatchError as error:
            return envelope, None, str(error)
        if body.site != self.site:
            return envelope, None, f"it is of site {body.site}"
        return envelope, body, ""

    def _is_proven(self, envelope: Envelope) -> bool:
        row = self.row
        if (envelope.stream, envelope.sequence) != (row.stream, row.sequence):
            self._find("batch-renumbered", f"its bytes say {name(envelope.stream, envelope.sequence)}")
        differing = [
            what
            for what, is_, was in (
                ("digest", row.digest, envelope.digest),
                ("previous", row.previous, envelope.previous),
                ("signature", row.signature, envelope.signature),
                ("size", row.size, len(row.content or b"")),
            )
            if is_ != was
        ]
        if differing:
            self._find("batch-changed", f"its bytes have another {', '.join(differing)} than its row")
        key = self.context.keys.get(row.key)
        if key is None or key.site != row.site:
            self._find("batch-changed", "its key is none of the site's")
            return False
        if not batch_is_signed_by(key.public, envelope.signature, envelope.signed):
            self._find("batch-changed", "the gateway's key did not sign these bytes")
            return False
        return True

    def _check_chain(self, envelope: Envelope) -> None:
        row = self.row
        follows = row.before if row.sequence > 1 else NO_PREVIOUS
        if follows is None:
            if row.chain != CHAIN_PENDING:
                self.report.find(
                    self.site,
                    "batch-removed",
                    name(row.stream, row.sequence - 1),
                    "was here when the batch after it came",
                    between(self.context, row.site, row.stream, row.sequence - 1, row.sequence - 1),
                )
            elif self.is_timed and (restore := self.context.across(self.times[0], row.received)):
                self._find(
                    "not-sent-again",
                    f"the database was {restore}; what came before this has not come again, or was dropped at the"
                    " bounds of the gateway's buffer",
                )
            else:
                self.report.explain(
                    self.site,
                    "gap",
                    "batches before these have not come, or were dropped at the bounds of the gateway's buffer",
                    self.times,
                )
        elif follows != envelope.previous:
            self._tell_broken()
        elif row.chain == CHAIN_BROKEN:
            self._find("batch-changed", "its chain is said to be broken, and is not")

    def _tell_broken(self) -> None:
        """It does not follow from the batch before it. The hub has seen and said so when it came, or it was not so."""
        row = self.row
        if row.chain == CHAIN_BROKEN and self._is_told("chain-broken", "fork"):
            self.report.explain(
                self.site, "chain-broken", "came with a broken chain, as table evidence says", self.times
            )
        elif row.chain != CHAIN_PENDING:
            self._find("chain-broken", "does not follow from the batch before it, and did when it came")

    def _check_readable(self, body: Body | None, why: str) -> None:
        row = self.row
        readings = body.readings if body is not None and not row.quarantined else 0
        if row.readings != readings:
            self._find("batch-changed", f"its row says {row.readings} readings, its bytes hold {readings}")
        if row.quarantined and (body is None or self._has_reason()):
            text = "could not be stored as readings; table quarantine has the reason"
            if body is not None and self._is_told(READ_AGAIN):
                text = "could not be stored as readings when they came, and were by a later release"
            self.report.explain(self.site, "quarantined", text, self.times)
        elif row.quarantined:
            self._find("batch-changed", "is said to be unreadable, and is not")
        elif body is None:
            self._find("batch-changed", f"is said to be readable, and is not: {why}")

    def _is_told(self, *kinds: str) -> bool:
        """Whether table evidence says one of these of the batch."""
        row = self.context.connection.execute(
            "SELECT EXISTS (SELECT FROM evidence WHERE site = %s AND stream = %s AND sequence = %s AND kind = ANY(%s))",
            (self.row.site, self.row.stream, self.row.sequence, list(kinds)),
        ).fetchone()
        return row == (True,)

    def _has_reason(self) -> bool:
        row = self.context.connection.execute(
            "SELECT EXISTS (SELECT FROM quarantine WHERE topic_site = %s AND digest = %s AND signed)",
            (self.site, self.row.digest),
        ).fetchone()
        return row == (True,)


def _check_streams(context: Context) -> None:
    """Sequences that were acknowledged as committed and are not here."""
    for site, stream, first, last in context.stream(
        """
        SELECT t.site, t.stream, lower(gap), upper(gap) - 1
        FROM stream t
        CROSS JOIN LATERAL (
            SELECT t.committed - coalesce(range_agg(int8range(sequence, sequence, '[]')), '{}') AS gone
            FROM batch WHERE site = t.site AND stream = t.stream) AS g
        CROSS JOIN LATERAL unnest(g.gone) AS gap
        WHERE t.site = ANY(%s)
        """,
        (context.chosen,),
    ):
        context.report.find(
            context.sites[site],
            "batch-removed",
            name(bytes(stream), first, last),
            "was acknowledged as committed and is not here",
            between(context, site, bytes(stream), first, last),
            last - first + 1,
        )

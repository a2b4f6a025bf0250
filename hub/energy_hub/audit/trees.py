# SPDX-License-Identifier: Apache-2.0
"""Each site's leaves against its batches, and the tree that they make against every checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from energy_hub.audit.context import Context, span
from energy_hub.audit.findings import Times
from energy_hub.audit.neighbours import between, readings_of
from energy_hub.evidence.checkpoint import Checkpoint, CheckpointError
from energy_hub.evidence.leaves import HASH, Leaf
from energy_hub.evidence.merkle import Frontier

_LEAVES = """
SELECT l.number, l.batch, l.stream, l.sequence, l.received, l.hashes,
       b.site, b.stream, b.sequence, b.digest, k.public, b.received, b.readings, b.quarantined
FROM leaf l LEFT JOIN batch b ON b.id = l.batch LEFT JOIN site_key k ON k.id = b.key
WHERE l.site = %s ORDER BY l.number
"""


@dataclass(slots=True)
class Run:
    """Batches of one stream that are gone, one after the other."""

    stream: bytes
    first: int
    last: int
    since: datetime
    until: datetime

    def subject(self) -> str:
        return name(self.stream, self.first, self.last)


def name(stream: bytes, first: int, last: int | None = None) -> str:
    more = f" to {last}" if last is not None and last != first else ""
    return f"stream {stream.hex()} sequence {first}{more}"


def check(context: Context) -> None:
    """All trees of the chosen sites, from their first leaf on."""
    for site in context.chosen:
        _Site(context, site).check()


class _Site:
    def __init__(self, context: Context, site: int) -> None:
        self.context = context
        self.site = site
        self.name = context.sites[site]
        self.report = context.report
        self.tree = Frontier()
        self.whole = True
        self.good: tuple[int, datetime | None] = (0, None)
        # When the first leaf's batch came in, and the newest one's so far.
        self.began: datetime | None = None
        self.arrived: datetime | None = None
        self.gone: Run | None = None

    def check(self) -> None:
        signed = self._signed()
        expected = next(signed, None)
        for row in self.context.stream(_LEAVES, (self.site,)):
            number, batch, stream, sequence, received, hashes = row[:6]
            self.report.count("leaves")
            if number != self.tree.size:
                missing = number - self.tree.size
                self.report.find(
                    self.name,
                    "leaf-removed",
                    f"leaf {self.tree.size}",
                    f"{missing} leaves before number {number} are missing",
                    (self.arrived or received, received),
                    missing,
                )
                # Without them there is no root that could be compared; the rest is still held against its batches.
                self.whole = False
                self.tree = Frontier(number)
            self.began = self.began or received
            self.arrived = received
            self._check_batch((number, batch), stream, sequence, received, hashes[:HASH], row[6:])
            if self.whole:
                self._grow(number, hashes)
                while expected is not None and expected[1] == self.tree.size:
                    self._compare(*expected)
                    expected = next(signed, None)
            else:
                self.tree.size += 1
        self._end_run()
        self._check_end(expected, signed)

    def _signed(self) -> Iterator[tuple[int, int, bytes, datetime | None]]:
        """(checkpoint, size, root, time) in the order of the checkpoints."""
        before = 0
        for number, size, root, text in self.context.stream_of_fleet(
            "SELECT s.checkpoint, s.size, s.root, c.body FROM checkpoint_site s"
            " LEFT JOIN checkpoint c ON c.number = s.checkpoint WHERE s.site = %s ORDER BY s.checkpoint",
            (self.name,),
        ):
            time = _time_of(text)
            if size <= before:
                detail = f"its tree of {size} leaves comes after one of {before}"
                self.report.find(
                    self.name, "tree-not-as-signed", f"checkpoint {number}", detail, self._span(None, time)
                )
                continue
            before = size
            yield number, size, bytes(root), time

    def _check_batch(
        self,
        numbers: tuple[int, int],
        stream: bytes,
        sequence: int,
        received: datetime,
        stored: bytes,
        row: Any,
    ) -> None:
        site, of_stream, of_sequence, digest, key, arrived, readings, quarantined = row
        if site is None:
            self._removed(bytes(stream), sequence, received)
            return
        self._end_run()
        where = (self.context.sites.get(site, "?"), bytes(of_stream), of_sequence, arrived)
        for what, is_, was in zip(
            ("site", "stream", "sequence", "time of arrival"),
            where,
            (self.name, bytes(stream), sequence, received),
            strict=True,
        ):
            if is_ != was:
                text = f"its {what} is {_show(is_)}, and was {_show(was)}"
                kind = "batch-changed" if what == "time of arrival" else "batch-renumbered"
                self.report.find(
                    self.name, kind, name(stream, sequence), text, self._times(numbers[1], received)
                )
                return
        leaf = Leaf(
            self.name,
            bytes(of_stream),
            of_sequence,
            bytes(digest),
            bytes(key),
            arrived,
            readings,
            quarantined,
        )
        if leaf.hash() != stored:
            text = f"is not what leaf {numbers[0]} was made of: digest, key, readings or quarantine differ"
            self.report.find(
                self.name, "batch-changed", name(stream, sequence), text, self._times(numbers[1], received)
            )

    def _grow(self, number: int, hashes: bytes) -> None:
        completed = self.tree.append(hashes[:HASH])
        if b"".join(completed) != hashes:
            self.report.find(
                self.name,
                "tree-changed",
                f"leaf {number}",
                "the nodes above it are not made of what is below them",
                self._span(self.arrived, self.arrived),
            )

    def _compare(self, checkpoint: int, size: int, root: bytes, time: datetime | None) -> None:
        if self.tree.root() == root:
            self.good = size, time
            return
        before, since = self.good
        self.report.find(
            self.name,
            "tree-not-as-signed",
            f"checkpoint {checkpoint}",
            f"leaves from number {before} to {size - 1} are not those that the checkpoint was signed over:"
            " changed, reordered, inserted or replaced",
            self._span(since or self.began, time or self.arrived),
            size - before,
        )
        # All later roots have this part in them.
        self.whole = False

    def _check_end(
        self,
        expected: tuple[int, int, bytes, datetime | None] | None,
        signed: Iterator[tuple[int, int, bytes, datetime | None]],
    ) -> None:
        left = signed if expected is None else itertools.chain([expected], signed)
        newest = max(left, key=lambda one: one[0], default=None)
        if newest is not None and newest[1] > self.tree.size:
            missing = newest[1] - self.tree.size
            self.report.find(
                self.name,
                "tail-cut",
                "tree",
                f"checkpoint {newest[0]} was signed over {newest[1]} leaves, there are {self.tree.size}:"
                f" the last {missing} are gone",
                self._span(self.arrived, newest[3]),
                missing,
            )

    def _span(self, first: datetime | None, last: datetime | None) -> Times:
        """What is known of both; nothing is where leaves and checkpoints are gone: then it was before the audit."""
        one = first or last or self.arrived or self.context.now
        return first or one, last or one

    # Batches that are gone.

    def _removed(self, stream: bytes, sequence: int, received: datetime) -> None:
        run = self.gone
        if run is not None and run.stream == stream and run.last + 1 == sequence:
            run.last, run.until = sequence, received
            return
        self._end_run()
        self.gone = Run(stream, sequence, sequence, received, received)

    def _end_run(self) -> None:
        run, self.gone = self.gone, None
        if run is None:
            return
        self.report.find(
            self.name,
            "batch-removed",
            run.subject(),
            f"came in from {run.since:%Y-%m-%dT%H:%M:%SZ} to {run.until:%Y-%m-%dT%H:%M:%SZ} and is gone",
            between(self.context, self.site, run.stream, run.first, run.last, (run.since, run.until)),
            run.last - run.first + 1,
        )

    def _times(self, batch: int, received: datetime) -> Times:
        """Those of a batch's readings, or else that of its arrival."""
        row = self.context.connection.execute("SELECT content FROM batch WHERE id = %s", (batch,)).fetchone()
        body = readings_of(row[0]) if row is not None else None
        return span(body) if body is not None else (received, received)


def _time_of(text: str | None) -> datetime | None:
    try:
        return Checkpoint(text or "", b"", b"").body().time
    except CheckpointError:
        return None


def _show(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime) else str(value)

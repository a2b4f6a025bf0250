# SPDX-License-Identifier: Apache-2.0
"""What the hub has noted of odd things: tables evidence, conflict and quarantine, against each other and the batches.

They are in no tree. But each of them says something that another place has to say as well: a second value stands in its
batch, a fork's second batch in quarantine, and what could not be read is a batch with that mark. Who takes a row out of
one place has to know of the others; and who takes out a fork's note and its second batch together goes unseen.

What is due for a tree is here as well: a batch that is gone before it came into one is in leaf_due, and in evidence as
soon as the next checkpoint has missed it."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from itertools import groupby
from typing import Any

from energy_hub.audit.context import EPOCH, Context
from energy_hub.audit.findings import FLEET
from energy_hub.audit.neighbours import beside, between
from energy_hub.audit.trees import name
from energy_hub.batch import BatchError, Body, Envelope, read_body, read_envelope
from energy_hub.trust import batch_is_signed_by

_CAME_IN = re.compile(r"came in at (\S+Z) ")
_SECOND = re.compile(r"then ([0-9a-f]{64})\b")

_FORKS = "SELECT site, stream, sequence, found, detail FROM evidence WHERE kind = 'fork' AND site = ANY(%s)"

_REMOVED = "SELECT site, stream, sequence, found, detail FROM evidence WHERE kind = 'batch-removed' AND site = ANY(%s)"

_DUE_AND_GONE = """
SELECT d.batch, s.id, d.stream, d.sequence, d.received FROM leaf_due d LEFT JOIN site s ON s.id = d.site
WHERE NOT EXISTS (SELECT FROM batch b WHERE b.id = d.batch) AND (s.id IS NULL OR s.id = ANY(%s))
"""

_QUARANTINE = """
SELECT s.id, q.digest, q.signed, q.size, q.first_seen, q.content,
       EXISTS (SELECT FROM batch b WHERE b.site = s.id AND b.digest = q.digest AND b.quarantined)
FROM quarantine q JOIN site s ON s.name = q.topic_site
WHERE s.id = ANY(%s) ORDER BY q.id
"""

_WITHOUT_REASON = """
SELECT b.site, b.stream, b.sequence, b.received
FROM batch b JOIN site s ON s.id = b.site
WHERE b.quarantined AND b.site = ANY(%s) AND NOT EXISTS (
    SELECT FROM quarantine q WHERE q.topic_site = s.name AND q.digest = b.digest AND q.signed)
"""

_CONFLICTS = """
SELECT c.second_batch, p.site, p.name, c.time, c.second_value, c.second_quality, b.content, b.stream, b.sequence,
       r.time IS NULL OR (r.value IS NOT DISTINCT FROM c.first_value AND r.quality = c.first_quality
                          AND r.batch = c.first_batch),
       EXISTS (SELECT FROM evidence e WHERE e.site = p.site AND e.kind = 'conflict'
               AND e.stream = b.stream AND e.sequence = b.sequence)
FROM conflict c JOIN point p ON p.id = c.point
LEFT JOIN batch b ON b.id = c.second_batch AND b.site = p.site
LEFT JOIN reading r ON r.point = c.point AND r.time = c.time
WHERE p.site = ANY(%s) ORDER BY c.second_batch, c.point, c.time
"""

_UNITS_WITHOUT_NOTE = """
SELECT p.site, p.name, u.since, u.unit
FROM point_unit u JOIN point p ON p.id = u.point
WHERE p.site = ANY(%s) AND u.since > '1970-01-01Z' AND NOT EXISTS (
    SELECT FROM evidence e WHERE e.site = p.site AND e.kind = 'unit-changed' AND starts_with(e.detail, p.name || ': '))
"""


def check(context: Context) -> None:
    """All rows of the chosen sites, whenever they came: they are few."""
    forks = _check_forks(context)
    _check_quarantine(context, forks)
    _check_unreadable(context)
    _check_units(context)
    _check_conflicts(context)
    _check_removed(context)
    _check_due(context)


def _check_forks(context: Context) -> dict[tuple[int, bytes], datetime]:
    """(site, digest of the second batch) of all that were noted, and when."""
    found: dict[tuple[int, bytes], datetime] = {}
    for site, stream, sequence, at, detail in context.stream(_FORKS, (context.chosen,)):
        second = _SECOND.search(detail)
        if second is None:
            text = "the note of its fork does not name the second batch"
            context.report.find(
                context.sites[site], "note-changed", name(bytes(stream), sequence), text, (at, at)
            )
            continue
        digest = bytes.fromhex(second[1])
        found[site, digest] = at
        row = context.connection.execute(
            "SELECT EXISTS (SELECT FROM quarantine WHERE topic_site = %s AND digest = %s AND signed)",
            (context.sites[site], digest),
        ).fetchone()
        if row != (True,):
            text = f"the second batch of a fork, {second[1][:16]}..., is not in quarantine any more"
            context.report.find(
                context.sites[site], "note-removed", name(bytes(stream), sequence), text, (at, at)
            )
            continue
        text = "one sequence came with two contents: the first is stored, the second is in quarantine"
        context.report.explain(context.sites[site], "fork", text, (at, at))
    return found


def _check_quarantine(context: Context, forks: dict[tuple[int, bytes], datetime]) -> None:
    """What is signed is either the content of a batch that could not be read, or the second batch of a fork."""
    for site, digest, signed, size, at, content, is_batch in context.stream(
        _QUARANTINE, (context.chosen,), size=50
    ):
        context.report.count("quarantined payloads")
        subject = f"quarantine {bytes(digest).hex()[:16]}"
        # Of what nobody trusted has signed the beginning may be all that was kept.
        whole = len(content) == size
        if (signed or whole) and hashlib.sha256(content).digest() != bytes(digest):
            text = "its bytes have another digest than its row"
            context.report.find(context.sites[site], "note-changed", subject, text, (at, at))
            continue
        if not signed or is_batch:
            continue
        envelope = _envelope(content)
        if envelope is None or not _is_of(context, site, envelope):
            text = "is said to be signed by the site, and is not"
            context.report.find(context.sites[site], "note-inserted", subject, text, (at, at))
        elif (site, bytes(digest)) not in forks:
            text = "is the second batch of a fork, of which table evidence says nothing any more"
            subject = name(envelope.stream, envelope.sequence)
            context.report.find(context.sites[site], "note-removed", subject, text, (at, at))


def _envelope(content: bytes) -> Envelope | None:
    try:
        return read_envelope(content)
    except BatchError:
        return None


def _is_of(context: Context, site: int, envelope: Envelope) -> bool:
    return any(
        batch_is_signed_by(key.public, envelope.signature, envelope.signed)
        for key in context.keys.values()
        if key.site == site
    )


def _check_unreadable(context: Context) -> None:
    for site, stream, sequence, at in context.stream(_WITHOUT_REASON, (context.chosen,)):
        text = "could not be read, and quarantine has no reason any more"
        context.report.find(
            context.sites[site], "note-removed", name(bytes(stream), sequence), text, (at, at)
        )


def _check_units(context: Context) -> None:
    for site, point, since, unit in context.stream(_UNITS_WITHOUT_NOTE, (context.chosen,)):
        text = f"{point}: its unit became {unit}, of which table evidence says nothing any more"
        context.report.find(context.sites[site], "note-removed", point, text, (since, since))


def _check_conflicts(context: Context) -> None:
    """A second value has to be in the batch that brought it, a first value in table reading unless retention has
    dropped that, and each such batch in table evidence. What is missing here shows with the readings."""
    rows = context.stream(_CONFLICTS, (context.chosen,))
    for _, group in groupby(rows, key=lambda row: row[0]):
        _check_batch_in_conflict(context, list(group))


def _check_batch_in_conflict(context: Context, rows: list[Any]) -> None:
    batch, number, _, first, *_ = rows[0]
    site, last = context.sites[number], rows[-1][3]
    content, stream, sequence, is_told = rows[0][6], rows[0][7], rows[0][8], rows[0][10]
    if content is None:
        if stream is None:
            subject, text = f"conflict of batch number {batch}", "there is no such batch of this site"
            context.report.find(site, "note-inserted", subject, text, (first, last), len(rows))
        return
    subject = name(bytes(stream), sequence)
    if not is_told:
        text = "brought other values than were stored, of which table evidence says nothing any more"
        context.report.find(site, "note-removed", subject, text, (first, last), len(rows))
    held = _held(content)
    for _, _, point, time, value, quality, *_, first_is_stored, _ in rows:
        if not first_is_stored:
            text = "the first value in table conflict is not the one that is stored"
        elif held.get((point, (time - EPOCH).total_seconds() * 1000)) != (value, quality):
            text = "the second value in table conflict is not the one that its batch holds"
        else:
            continue
        context.report.find(site, "note-changed", f"{point} of {subject}", f"{point}: {text}", (time, time))


def _held(content: bytes) -> dict[tuple[str, float], tuple[float | None, int]]:
    """A batch's readings, (value, quality) by (point, ms)."""
    try:
        body = read_body(read_envelope(content))
    except BatchError:
        body = Body("", ())
    found: dict[tuple[str, float], tuple[float | None, int]] = {}
    for series in body.series:
        values, at = iter(series.values), 0
        for code, null, length in series.runs:
            for time in series.times[at : at + length]:
                found[series.point, time] = (None if null else next(values), code)
            at += length
    return found


def _check_removed(context: Context) -> None:
    """Batches that a checkpoint has missed: nothing else tells of one whose number was taken out of its stream, too."""
    for site, stream, sequence, found, detail in context.stream(_REMOVED, (context.chosen,)):
        arrival = _arrival(detail, found)
        times = between(context, site, bytes(stream), sequence, sequence, (arrival, arrival))
        subject, text = name(bytes(stream), sequence), f"{detail}, as table evidence says"
        context.report.find(context.sites[site], "batch-removed", subject, text, times)


def _arrival(detail: str, found: datetime) -> datetime:
    text = _CAME_IN.search(detail)
    try:
        return datetime.fromisoformat(text[1]) if text else found
    except ValueError:
        # Somebody has changed the note.
        return found


def _check_due(context: Context) -> None:
    """Batches that the next checkpoint is going to miss."""
    for batch, site, stream, sequence, received in context.stream(_DUE_AND_GONE, (context.chosen,)):
        if site is None or stream is None:
            text = "was due for a tree and is gone; whose it was is not known"
            context.report.find(FLEET, "batch-removed", f"batch number {batch}", text, beside(context, batch))
            continue
        text = f"came in at {received:%Y-%m-%dT%H:%M:%SZ}, was due for its site's tree and is gone"
        times = between(context, site, bytes(stream), sequence, sequence, (received, received))
        context.report.find(context.sites[site], "batch-removed", name(bytes(stream), sequence), text, times)

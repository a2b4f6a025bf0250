# SPDX-License-Identifier: Apache-2.0
"""When something was that has no time of its own any more: between what is beside it and does have one."""

from __future__ import annotations

from typing import LiteralString

from energy_hub.audit.context import Context, span
from energy_hub.audit.findings import Times
from energy_hub.batch import BatchError, Body, read_body, read_envelope


def readings_of(content: bytes | None) -> Body | None:
    """The readings of a batch that can be read and has some."""
    if content is None:
        return None
    try:
        body = read_body(read_envelope(bytes(content)))
    except BatchError:
        return None
    return body if body.series else None


def between(
    context: Context, site: int, stream: bytes, first: int, last: int, arrival: Times | None = None
) -> Times:
    """When batches that are gone were measured: after the batch before them in their stream and before the one after.
    Where there is none, their arrival bounds it, or all the time that the hub has known the site."""
    since, until = arrival or _known(context, site)
    before = _nearest(context, "sequence < %s ORDER BY sequence DESC", site, stream, first)
    after = _nearest(context, "sequence > %s ORDER BY sequence", site, stream, last)
    if before is not None:
        since = before[1]
    if after is not None:
        until = after[0]
    return since, until


def beside(context: Context, batch: int) -> Times:
    """When a batch came in of which no more is known than its number."""
    before, after = (
        context.connection.execute(
            f"SELECT received FROM batch WHERE id {where} LIMIT 1",  # noqa: S608  (literals)
            (batch,),
        ).fetchone()
        for where in ("< %s ORDER BY id DESC", "> %s ORDER BY id")
    )
    until = after[0] if after else context.now
    return (before[0] if before else until), until


def _nearest(context: Context, where: LiteralString, site: int, stream: bytes, sequence: int) -> Times | None:
    row = context.connection.execute(
        f"SELECT received, content FROM batch WHERE site = %s AND stream = %s AND {where} LIMIT 1",  # noqa: S608  (literals)
        (site, stream, sequence),
    ).fetchone()
    if row is None:
        return None
    body = readings_of(row[1])
    return span(body) if body is not None else (row[0], row[0])


def _known(context: Context, site: int) -> Times:
    row = context.connection.execute("SELECT first_seen FROM site WHERE id = %s", (site,)).fetchone()
    return (row[0] if row else context.now), context.now

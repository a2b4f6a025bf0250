# SPDX-License-Identifier: Apache-2.0
"""Reads signed batches again that could not be read when they came: a release that mends the reader brings their
readings back. The gateway has let go of them, since all of their bytes are here.

The batch's own row stays as it is, its mark included: the trees are made over it. That its readings are here all the
same is said by a row of evidence, by which an audit holds them against the batch like any others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from energy_hub import __version__
from energy_hub.batch import BatchError, read_body, read_envelope
from energy_hub.store import READ_AGAIN, Signed, Store
from energy_hub.times import scattered

_WAITING = """
SELECT b.id FROM batch b JOIN site s ON s.id = b.site
WHERE b.quarantined AND b.content IS NOT NULL AND s.name = %s AND s.here
      AND NOT EXISTS (SELECT FROM evidence e WHERE e.site = b.site AND e.stream = b.stream AND e.sequence = b.sequence
                      AND e.kind = %s)
ORDER BY b.id
"""


@dataclass(frozen=True)
class Read:
    """What has become of a batch: how many readings it has, or why it cannot be read by this release either."""

    stream: bytes
    sequence: int
    readings: int
    why: str = ""


def sites(connection: psycopg.Connection) -> list[str]:
    """Those that live here and have a batch that could not be read."""
    return [
        name
        for (name,) in connection.execute(
            "SELECT name FROM site s WHERE here AND EXISTS (SELECT FROM batch WHERE site = s.id AND quarantined)"
            " ORDER BY name"
        )
    ]


def site(store: Store, name: str, *, check: bool = False) -> Iterator[Read]:
    """Each batch of a site that waits for it, in a transaction of its own; with `check` nothing is stored. The site
    must not be moved meanwhile. Raises psycopg.Error and ElsewhereError."""
    # Batches carry up to a MB, so one at a time.
    for (number,) in store.connection.execute(_WAITING, (name, READ_AGAIN)).fetchall():
        row = store.connection.execute(
            "SELECT site, key, content FROM batch WHERE id = %s", (number,)
        ).fetchone()
        if row is None:
            continue  # removed, which an audit tells
        site_id, key, content = row
        one = _read(name, site_id, key, bytes(content))
        readings = one.body.readings if one.body else 0
        if one.body is not None and not check:
            store.add_readings(one, number, f"read by {__version__}: {readings} readings")
        yield Read(one.envelope.stream, one.envelope.sequence, readings, one.reason)


def _read(name: str, site_id: int, key: int, content: bytes) -> Signed:
    """As the ingest does it; signature and size were looked at when it came."""
    envelope = read_envelope(content)
    try:
        body = read_body(envelope)
    except BatchError as error:
        return Signed(name, site_id, key, content, envelope, None, str(error))
    why = f"is of site {body.site!r}" if body.site != name else scattered(body)
    return Signed(name, site_id, key, content, envelope, None if why else body, why)

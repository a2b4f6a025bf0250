# SPDX-License-Identifier: Apache-2.0
"""Sabotage: an ingest that stumbles over some messages."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from energy_hub import ingest, pipeline
from energy_hub.batch import Body, Envelope, read_body
from energy_hub.cli import main
from energy_hub.pipeline import Status, read_status
from energy_hub.store import Committed, Signed, Store

_commit = Store.commit


def _read(envelope: Envelope) -> Body:
    body = read_body(envelope)
    if body.series[0].point == "fault/examine":
        raise ZeroDivisionError("of the test")
    return body


def _store(self: Store, group: Sequence[Signed]) -> Committed:
    for one in group:
        if one.body and one.body.series[0].point == "fault/store":
            raise ZeroDivisionError("of the test")
    return _commit(self, group)


def _status(site: str, payload: bytes) -> Status:
    status = read_status(site, payload)
    if status.kept["version"] == "fault":
        raise ZeroDivisionError("of the test")
    return status


if __name__ == "__main__":
    pipeline.read_body = _read  # type: ignore[attr-defined] # this is the sabotage
    Store.commit = _store  # type: ignore[method-assign] # and this
    ingest.read_status = _status  # type: ignore[attr-defined] # and this
    sys.exit(main())

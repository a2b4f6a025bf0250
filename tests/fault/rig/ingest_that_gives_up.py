# SPDX-License-Identifier: Apache-2.0
"""Sabotage: the hub's ingest acknowledges a batch that the database could not take."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import psycopg
from energy_hub.cli import main
from energy_hub.ingest import Worker, acknowledge
from energy_hub.link import BrokerLink
from energy_hub.store import Signed, Store, StreamKey

_commit = Worker._commit_group


def _commit_or_not(
    self: Worker, store: Store, signed: Sequence[Signed], answers: Mapping[str, BrokerLink]
) -> None:
    try:
        _commit(self, store, signed, answers)
    except psycopg.OperationalError:
        for one in signed:
            key, sequence = StreamKey(one.site, one.envelope.stream), one.envelope.sequence
            acknowledge(answers[one.site], key, [(sequence, sequence)], store.generation)


Worker._commit_group = _commit_or_not  # type: ignore[method-assign]  # that is the sabotage

if __name__ == "__main__":
    sys.exit(main())

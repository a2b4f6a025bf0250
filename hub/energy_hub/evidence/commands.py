# SPDX-License-Identifier: Apache-2.0
"""What the timer does every few minutes: `energy-hub checkpoint`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from energy_hub.evidence import stamps, step

log = logging.getLogger(__name__)

KEY = Path("/etc/energy-hub/checkpoint.key")


def checkpoint(
    connection: psycopg.Connection,
    key: Ed25519PrivateKey,
    authority: stamps.Authority | None,
    interval: float,
    shards: Sequence[step.Shard] = (),
) -> bool:
    """One step, and a time stamp when one is due; false when something of it failed or was missing, which is told."""
    try:
        done = step.run(connection, key, shards=shards)
    except (step.StepError, LookupError) as error:
        log.error("ERR checkpoint: %s", error)  # noqa: TRY400  (told in one line)
        return False
    if done is None:
        log.info("checkpoint: another process is making one")
        return True
    log.info(
        "checkpoint %d: %d batches came into the trees of %d sites", done.number, done.leaves, done.sites
    )
    # What is missing was told in lines of its own, and is in table evidence or still due.
    whole = done.missing == 0
    if authority is None or not stamps.is_due(connection, authority, interval):
        return whole
    try:
        moment = stamps.stamp(connection, done.number, done.checkpoint.digest, authority)
    except stamps.StampError as error:
        # The checkpoint is good without it, and the next one takes its place.
        log.error("ERR time stamp of checkpoint %d: %s", done.number, error)  # noqa: TRY400  (as above)
        return False
    log.info("checkpoint %d: stamped by %s at %s", done.number, authority.url, f"{moment:%Y-%m-%dT%H:%M:%SZ}")
    return whole

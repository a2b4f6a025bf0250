# SPDX-License-Identifier: Apache-2.0
"""Checkpoints against each other, the hub's key, their own rows of sites, and time stamps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any

from energy_hub.audit.context import Context
from energy_hub.audit.findings import FLEET, Times
from energy_hub.evidence import stamps
from energy_hub.evidence.checkpoint import (
    NO_PREVIOUS,
    Body,
    Checkpoint,
    CheckpointError,
    SiteTree,
    fleet_root,
)
from energy_hub.evidence.keys import key_id

# The authority's clock and ours may differ by this much.
CLOCKS = timedelta(minutes=5)


class _Findings:
    """What has no time of its own, or one that is worth nothing, waits for the next checkpoint that has, and is told
    with the times of both sides."""

    def __init__(self, context: Context) -> None:
        self._report = context.report
        self._waiting: list[tuple[str, str, str, str, int]] = []
        # The time of the last checkpoint that has one.
        self.before: datetime | None = None

    def find(
        self, site: str, kind: str, subject: str, detail: str, times: Times | None, count: int = 1
    ) -> None:
        if times is None:
            self._waiting.append((site, kind, subject, detail, count))
        else:
            self._report.find(site, kind, subject, detail, times, count)

    def reach(self, time: datetime) -> None:
        """The next checkpoint that has a time, or the end."""
        for site, kind, subject, detail, count in self._waiting:
            self._report.find(site, kind, subject, detail, (self.before or time, time), count)
        self._waiting.clear()
        self.before = time


def check(context: Context) -> None:
    """All checkpoints, from the first one on: each is held against the one before it."""
    report, findings = context.report, _Findings(context)
    rows = context.stream_of_fleet("SELECT number, body, signature, key FROM checkpoint ORDER BY number")
    trees = _Trees(context)
    expected = 1
    previous: bytes | None = NO_PREVIOUS
    for number, text, signature, key in rows:
        checkpoint = Checkpoint(text, bytes(signature), bytes(key))
        subject = f"checkpoint {number}"
        report.count("checkpoints")
        if number != expected:
            missing = number - expected
            removed = f"checkpoint {expected}"
            findings.find(FLEET, "checkpoint-removed", removed, f"{missing} are missing", None, missing)
            previous = None
        grown = trees.advance(number)
        try:
            body = checkpoint.body()
        except CheckpointError as error:
            findings.find(FLEET, "checkpoint-changed", subject, str(error), None)
            expected, previous = number + 1, None
            continue
        before = findings.before
        at: Times | None = None
        # Where the signature does not fit, the time may be what was changed.
        if checkpoint.is_signed():
            at = (body.time, body.time)
            findings.reach(body.time)
        _check_signature(context, checkpoint, body, subject, findings, at)
        changed = partial(findings.find, FLEET, "checkpoint-changed", subject, times=at)
        if body.number != number:
            changed(f"its text says number {body.number}")
        if previous is not None and body.previous != previous:
            changed("does not follow from the checkpoint before it")
        if before is not None and body.time < before:
            changed("is older than the one before it")
        if (len(trees.sites), fleet_root(trees.sites)) != (body.sites, body.root):
            since = None if at is None else (before or body.time, body.time)
            _tell_difference(findings, subject, grown, since)
        expected, previous = number + 1, checkpoint.digest
    findings.reach(context.now)
    if expected == 1:
        report.unchecked.append("there is no checkpoint: energy-checkpoint.timer has not run yet")


def _check_signature(
    context: Context,
    checkpoint: Checkpoint,
    body: Body,
    subject: str,
    findings: _Findings,
    at: Times | None,
) -> None:
    if not checkpoint.is_signed():
        findings.find(FLEET, "checkpoint-changed", subject, "its signature does not fit its text", at)
    if key_id(checkpoint.key) != body.key:
        findings.find(FLEET, "checkpoint-changed", subject, f"its text names key {body.key}", at)
    keys = context.scope.keys
    if keys is not None and checkpoint.key not in keys:
        text = f"signed by {key_id(checkpoint.key)}, which is not the hub's key"
        # One finding for all of them: the first is what counts.
        findings.find(FLEET, "checkpoint-foreign-key", "checkpoints", text, at)


def _tell_difference(findings: _Findings, subject: str, grown: list[str], times: Times | None) -> None:
    """What was signed is not what the rows of the sites say. The root tells that, and not whose row it is: one of
    those that had grown is most likely."""
    site = grown[0] if len(grown) == 1 else FLEET
    those = f", of {', '.join(grown[:5])}" if len(grown) > 1 else ""
    text = f"{subject} was signed over other trees than table checkpoint_site holds{those}"
    findings.find(site, "tree-not-as-signed", "checkpoint_site", text, times)


class _Trees:
    """The sites' trees as the rows say, from checkpoint to checkpoint."""

    def __init__(self, context: Context) -> None:
        rows = context.stream_of_fleet(
            "SELECT checkpoint, site, size, root FROM checkpoint_site ORDER BY checkpoint, site"
        )
        self._groups: Iterator[tuple[int, Iterator[Any]]] = groupby(rows, key=lambda row: row[0])
        self._next: tuple[int, list[Any]] | None = None
        self.sites: dict[str, SiteTree] = {}
        self._pull()

    def _pull(self) -> None:
        found = next(self._groups, None)
        self._next = (found[0], list(found[1])) if found else None

    def advance(self, number: int) -> list[str]:
        """Go on to a checkpoint; the sites whose trees have grown."""
        grown = []
        while self._next is not None and self._next[0] <= number:
            for _, site, size, root in self._next[1]:
                self.sites[site] = SiteTree(size, bytes(root))
                grown.append(site)
            self._pull()
        return grown


def check_stamps(context: Context) -> None:
    """Time stamps against the certificates of their authority."""
    report, ca = context.report, context.scope.stamp_ca
    rows = context.stream_of_fleet(
        "SELECT s.checkpoint, s.authority, s.token, c.body, c.signature, c.key, s.received FROM checkpoint_stamp s"
        " LEFT JOIN checkpoint c ON c.number = s.checkpoint"
        " WHERE s.received >= coalesce(%s::timestamptz, '-infinity') ORDER BY s.checkpoint",
        (context.scope.since,),
        100,
    )
    for number, authority, token, text, signature, key, received in rows:
        # When the stamp came: its own time has to be proven first.
        at = (received, received)
        subject = f"stamp of checkpoint {number}"
        if ca is None:
            report.unchecked.append(
                "there are time stamps: name the authority's certificates with --stamp-ca"
            )
            return
        report.count("time stamps")
        if text is None:
            removed = f"checkpoint {number}"
            report.find(FLEET, "checkpoint-removed", removed, "it has a time stamp, and is gone", at)
            continue
        checkpoint = Checkpoint(text, bytes(signature), bytes(key))
        try:
            stamped = stamps.check(checkpoint.digest, bytes(token), ca)
        except stamps.StampMissingError as error:
            report.unchecked.append(str(error))
            return
        except stamps.StampError as error:
            detail = f"the stamp of {authority} is not for this checkpoint, or not good: {error}"
            report.find(FLEET, "stamp-differs", subject, detail, at)
            continue
        _check_time(context, subject, checkpoint, stamped)


def _check_time(context: Context, subject: str, checkpoint: Checkpoint, stamped: datetime) -> None:
    try:
        time = checkpoint.body().time
    except CheckpointError:
        # Told already.
        return
    if stamped < time - CLOCKS:
        detail = f"was stamped at {stamped:%Y-%m-%dT%H:%M:%SZ}, before the time that it states"
        context.report.find(FLEET, "checkpoint-dated-falsely", subject, detail, (stamped, time))

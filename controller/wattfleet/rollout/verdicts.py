# SPDX-License-Identifier: Apache-2.0
"""Asks gates without keeping the driver waiting: what they said last counts for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.ledger import Record

INTERVAL = 30.0  # s between two questions about a site
FRESH = 4 * INTERVAL  # an answer that is older than this says nothing about now
AT_ONCE = 4


class Gate(Protocol):
    """What judges a site that runs a new release. `record.data["look"]` is what the gateway last said itself."""

    def verdict(self, site: str, record: Record) -> Verdict:
        """May take its time."""


class NoGate:
    """Where nobody measures: a person decides, since what was not measured never passes."""

    def verdict(self, site: str, record: Record) -> Verdict:  # noqa: ARG002  (the interface)
        return Verdict(Outcome.INCONCLUSIVE, "nothing measures the sites")


@dataclass(frozen=True)
class _Answer:
    since: int  # of the site's soak: an answer about an earlier one says nothing
    verdict: Verdict
    at: float


class Verdicts:
    """The answers of one gate, by site."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gate")
        self._lock = threading.Lock()
        self._answers: dict[str, _Answer] = {}
        self._asked: set[str] = set()

    def of(
        self, rollout: Rollout, names: Iterable[str], looks: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Verdict]:
        """What is known of the named sites; those of which nothing fresh is known are left out, and asked about."""
        found = {}
        now = time.monotonic()
        for name in names:
            record = rollout.sites[name]
            with self._lock:
                answer = self._answers.get(name)
                if answer and answer.since == record.since and now - answer.at < FRESH:
                    found[name] = answer.verdict
                due = not answer or answer.since != record.since or now - answer.at >= INTERVAL
                if due and name in looks and name not in self._asked:
                    self._asked.add(name)
                    data = {**record.data, "look": dict(looks[name])}
                    self._pool.submit(self._ask, name, replace(record, data=data))
        return found

    def _ask(self, name: str, record: Record) -> None:
        try:
            verdict = self._gate.verdict(name, record)
        except Exception as error:  # noqa: BLE001  (whatever goes wrong in asking proves nothing about the site)
            verdict = Verdict(Outcome.INCONCLUSIVE, f"the gate could not be asked: {error}")
        with self._lock:
            self._answers[name] = _Answer(record.since, verdict, time.monotonic())
            self._asked.discard(name)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

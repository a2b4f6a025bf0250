# SPDX-License-Identifier: Apache-2.0
"""Asks gates without keeping the driver waiting: what they said last counts for a while."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.gate import Gate, ask
from wattfleet.rollout.gates import Verdict
from wattfleet.rollout.ledger import Record

INTERVAL = 30.0  # s between two questions about a site
FRESH = 4 * INTERVAL  # an answer that is older than this says nothing about now
AT_ONCE = 4


@dataclass(frozen=True)
class _Answer:
    # Of the site's soak, and whether it was over: an answer about an earlier one says nothing, and one from before its
    # end is no longer the last word.
    about: tuple[int, bool]
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
            about = _about(record)
            with self._lock:
                answer = self._answers.get(name)
                if answer and answer.about == about and now - answer.at < FRESH:
                    found[name] = answer.verdict
                due = not answer or answer.about != about or now - answer.at >= INTERVAL
                if due and name in looks and name not in self._asked:
                    self._asked.add(name)
                    data = {**record.data, "look": dict(looks[name])}
                    self._pool.submit(self._ask, name, replace(record, data=data))
        return found

    def _ask(self, name: str, record: Record) -> None:
        about = _about(record)
        verdict = ask(self._gate, name, record)
        with self._lock:
            self._answers[name] = _Answer(about, verdict, time.monotonic())
            self._asked.discard(name)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _about(record: Record) -> tuple[int, bool]:
    return record.since, time.time() * 1000 >= record.data.get("soak_until", math.inf)

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

INTERVAL = 30.0  # s between two questions about a site; a soak that is shorter is asked about more often
QUESTIONS_IN_A_SOAK = 10
FRESH = 4  # intervals; an answer that is older says nothing about now


@dataclass(frozen=True)
class _Answer:
    # Of the site's soak, and whether it was over: an answer about an earlier one says nothing, and one from before its
    # end is not the last word.
    about: tuple[int, bool]
    verdict: Verdict
    at: float


class Verdicts:
    """The answers of one gate, by site. One question is under way at a time, about all sites that are due."""

    def __init__(self, gate: Gate, soak: float) -> None:
        self._gate = gate
        self._interval = min(INTERVAL, max(1.0, soak / QUESTIONS_IN_A_SOAK))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gate")
        self._lock = threading.Lock()
        self._answers: dict[str, _Answer] = {}
        self._is_asking = False

    def of(
        self, rollout: Rollout, names: Iterable[str], looks: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Verdict]:
        """What is known of the named sites; those of which nothing fresh is known are left out, and asked about."""
        found: dict[str, Verdict] = {}
        due: dict[str, Record] = {}
        now = time.monotonic()
        with self._lock:
            for name in names:
                record = rollout.sites[name]
                answer = self._answers.get(name)
                if answer and answer.about != _about(record):
                    answer = None
                if answer and now - answer.at < FRESH * self._interval:
                    found[name] = answer.verdict
                if name in looks and (answer is None or now - answer.at >= self._interval):
                    due[name] = replace(record, data={**record.data, "look": dict(looks[name])})
            if due and not self._is_asking:
                self._is_asking = True
                self._pool.submit(self._ask, due)
        return found

    def _ask(self, records: Mapping[str, Record]) -> None:
        about = {name: _about(record) for name, record in records.items()}
        verdicts = ask(self._gate, records)
        now = time.monotonic()
        with self._lock:
            for name, verdict in verdicts.items():
                self._answers[name] = _Answer(about[name], verdict, now)
            self._is_asking = False

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _about(record: Record) -> tuple[int, bool]:
    return record.since, time.time() * 1000 >= record.data.get("soak_until", math.inf)

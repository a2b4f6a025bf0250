# SPDX-License-Identifier: Apache-2.0
"""The ledger: every step of every rollout, written before it is acted on, each chained to the one before.

One SQLite file with `synchronous=FULL`: what `write` has returned for survives a power cut. The tables `rollout` and
`site` are what the entries add up to, kept in the same transaction so that a resume need not add up five thousand
sites. `verify` adds them up again, and recomputes every hash: an entry that was changed, removed or put in shows.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.rollout.states import ROLLOUT_STEPS, SITE_STEPS, RolloutState, SiteState

# Of the first entry.
NOTHING = b"\0" * 32
BUSY_TIMEOUT = 10.0  # s
# A rollout has changed what a site in one of these runs, or has tried to.
TOUCHED = ("ok", "failed", "silent")

SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    number   INTEGER PRIMARY KEY,
    rollout  TEXT NOT NULL,
    site     TEXT NOT NULL,            -- '' for the rollout as a whole
    at       INTEGER NOT NULL,         -- ms since 1970, UTC
    who      TEXT NOT NULL,
    old      TEXT NOT NULL,            -- '' for the first entry of a rollout or site
    new      TEXT NOT NULL,
    why      TEXT NOT NULL,
    data     TEXT NOT NULL,            -- JSON: what changes of the record beside its state
    hash     BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS entry_of_site ON entry (rollout, site, number);
CREATE TABLE IF NOT EXISTS rollout (
    name     TEXT PRIMARY KEY,
    state    TEXT NOT NULL,
    since    INTEGER NOT NULL,
    data     TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS site (
    rollout  TEXT NOT NULL,
    site     TEXT NOT NULL,
    state    TEXT NOT NULL,
    since    INTEGER NOT NULL,
    data     TEXT NOT NULL,
    PRIMARY KEY (rollout, site)
) STRICT, WITHOUT ROWID;
"""


class LedgerError(WattfleetError):
    """The ledger cannot be used as it is asked to; one line."""


class LedgerChangedError(LedgerError):
    """Somebody else has written since the ledger was read: read it again, and decide again."""


@dataclass(frozen=True)
class Step:
    """One step of a site, or of the rollout as a whole (`site` is ''). `old` is '' where it begins.

    `data` holds what changes of the record beside its state; a value of None takes a key away.
    """

    rollout: str
    site: str
    old: str
    new: str
    why: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A step as it was written: the `number`-th, at `at` (ms UTC), by `who`."""

    number: int
    at: int
    who: str
    step: Step
    hash: bytes


@dataclass
class Record:
    """What the entries of a site, or of the rollout itself, add up to. `since` is ms UTC."""

    state: str
    since: int
    data: dict[str, Any]


def digest(previous: bytes, number: int, at: int, who: str, step: Step) -> bytes:
    """The hash of an entry, over its content and the hash of the entry before."""
    content = [number, at, who, step.rollout, step.site, step.old, step.new, step.why, step.data]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(previous + text.encode()).digest()


def allowed(step: Step) -> bool:
    """Whether the tables of `states` know this step."""
    if step.site:
        old, new = step.old, SiteState(step.new)
        # A record changes without a change of state, too: progress, a new deadline.
        return (not old and new in (SiteState.PENDING, SiteState.SKIPPED)) or (
            bool(old) and (new in SITE_STEPS[SiteState(old)] or old == new)
        )
    before, after = step.old, RolloutState(step.new)
    return (not before and after is RolloutState.PLANNED) or (
        bool(before) and (after in ROLLOUT_STEPS[RolloutState(before)] or before == after)
    )


class Ledger:
    """The file. `observe` is called just before and just after each commit, for tests that end the process there."""

    def __init__(self, path: Path, observe: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self._observe = observe
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: cannot be opened as a ledger: {error}") from None

    def close(self) -> None:
        self._database.close()

    # Writing.

    def write(self, steps: Iterable[Step], *, at: int, who: str, following: int | None = None) -> None:
        """Write steps, all or none; when this returns they are on the disk.

        `following` is the number of the last entry that was known when they were decided. Raises LedgerChangedError
        when another one was written since, LedgerError when a record is not what a step expects, or for a step that
        does not exist.
        """
        steps = list(steps)
        if not steps:
            return
        for step in steps:
            if not allowed(step):
                raise LedgerError(
                    f"{step.rollout}: {step.site or 'the rollout'} cannot go from {step.old!r} to {step.new!r}"
                )
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            try:
                self._write_all(steps, at, who, following)
                self._observe("before")
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: cannot be written: {error}") from None
        self._observe("after")

    def _write_all(self, steps: Iterable[Step], at: int, who: str, following: int | None) -> None:
        number, previous = self._last()
        if following is not None and number != following:
            raise LedgerChangedError(
                f"{self.path}: entry {number} was written since entry {following} was read: try again"
            )
        for step in steps:
            number += 1
            previous = self._write_one(number, previous, at, who, step)

    def _write_one(self, number: int, previous: bytes, at: int, who: str, step: Step) -> bytes:
        record = self._record(step.rollout, step.site)
        found = record.state if record else ""
        if found != step.old:
            raise LedgerError(
                f"{step.rollout}: {step.site or 'the rollout'} is {found!r} in the ledger, not {step.old!r}: "
                "another controller writes to it"
            )
        hashed = digest(previous, number, at, who, step)
        self._database.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                step.rollout,
                step.site,
                at,
                who,
                step.old,
                step.new,
                step.why,
                _dump(step.data),
                hashed,
            ),
        )
        record = after(record, at, step)
        row = (record.state, record.since, _dump(record.data))
        if step.site:
            self._database.execute(
                "INSERT OR REPLACE INTO site (rollout, site, state, since, data) VALUES (?, ?, ?, ?, ?)",
                (step.rollout, step.site, *row),
            )
        else:
            self._database.execute(
                "INSERT OR REPLACE INTO rollout (name, state, since, data) VALUES (?, ?, ?, ?)",
                (step.rollout, *row),
            )
        return hashed

    def _last(self) -> tuple[int, bytes]:
        row = self._database.execute("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (0, NOTHING)

    def _record(self, rollout: str, site: str) -> Record | None:
        if site:
            query, keys = (
                "SELECT state, since, data FROM site WHERE rollout = ? AND site = ?",
                (rollout, site),
            )
        else:
            query, keys = "SELECT state, since, data FROM rollout WHERE name = ?", (rollout,)  # type: ignore[assignment]  # a tuple of another length
        row = self._database.execute(query, keys).fetchone()
        return Record(row[0], row[1], json.loads(row[2])) if row else None

    # Reading.

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within is of one moment, whoever writes meanwhile."""
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("COMMIT")

    @property
    def number(self) -> int:
        """How many entries there are."""
        return self._last()[0]

    def rollouts(self) -> list[str]:
        """The names of all rollouts, in the order in which they were planned."""
        rows = self._database.execute(
            "SELECT rollout FROM entry WHERE site = '' AND old = '' ORDER BY number"
        )
        return [row[0] for row in rows]

    def rollout(self, name: str) -> Record:
        """Raises LedgerError when there is none of that name."""
        record = self._record(name, "")
        if record is None:
            known = ", ".join(self.rollouts()) or "none"
            raise LedgerError(f"there is no rollout {name!r} in {self.path}; there are: {known}")
        return record

    def sites(self, rollout: str) -> dict[str, Record]:
        """Every site of a rollout, by name."""
        rows = self._database.execute(
            "SELECT site, state, since, data FROM site WHERE rollout = ? ORDER BY site", (rollout,)
        )
        return {row[0]: Record(row[1], row[2], json.loads(row[3])) for row in rows}

    def reasons(self, rollout: str) -> dict[str, str]:
        """Why each site, and the rollout ('') itself, came to be as it is: of the last step that changed the state."""
        rows = self._database.execute(
            "SELECT site, why, max(number) FROM entry WHERE rollout = ? AND old != new GROUP BY site",
            (rollout,),
        )
        return {row[0]: row[1] for row in rows}

    def known(self) -> dict[str, dict[str, Any]]:
        """What rollouts have learned of sites: `rate` in bytes/s, and `version` where the last one left it known."""
        found: dict[str, dict[str, Any]] = {}
        rows = self._database.execute("SELECT site, state, data FROM site ORDER BY since")
        for site, state, text in rows:
            data = json.loads(text)
            one = found.setdefault(site, {})
            if "rate" in data:
                one["rate"] = data["rate"]
            if state in TOUCHED:
                one["version"] = data.get("version")
        return {
            site: {key: value for key, value in one.items() if value is not None}
            for site, one in found.items()
        }

    def versions(self, kind: str) -> dict[str, str]:
        """What the newest rollouts of one kind, firmware or collector, left at the sites, where they left it known."""
        rows = self._database.execute(
            "SELECT s.site, s.state, json_extract(s.data, '$.version') FROM site s JOIN rollout r ON r.name = s.rollout"
            " WHERE json_extract(r.data, '$.release.kind') = ? ORDER BY s.since",
            (kind,),
        )
        newest = {site: version for site, state, version in rows if state in TOUCHED}
        return {site: version for site, version in newest.items() if version is not None}

    def entries(
        self, rollout: str | None = None, site: str | None = None, beyond: int = 0
    ) -> Iterator[Entry]:
        """All entries in their order, or those of one rollout or site, from the one after number `beyond` on."""
        tests = {"number > ?": beyond, "rollout = ?": rollout, "site = ?": site}
        asked = {test: value for test, value in tests.items() if value is not None}
        where, keys = "WHERE " + " AND ".join(asked), tuple(asked.values())
        for row in self._database.execute(
            f"SELECT number, at, who, rollout, site, old, new, why, data, hash FROM entry {where} ORDER BY number",  # noqa: S608  (no input in it)
            keys,
        ):
            step = Step(row[3], row[4], row[5], row[6], row[7], json.loads(row[8]))
            yield Entry(row[0], row[1], row[2], step, row[9])

    def head(self) -> str:
        """Number and hash of the last entry, for whoever keeps it elsewhere: a cut tail shows by nothing else."""
        number, hashed = self._last()
        return f"{number}:{hashed.hex()}"

    def verify(self, head: str | None = None) -> list[str]:
        """What does not add up, a line each; empty when nothing was changed. `head` is an earlier `head()`."""
        faults: list[str] = []
        expected, previous = 1, NOTHING
        told = dict([head.split(":", 1)]) if head else {}
        built: dict[tuple[str, str], Record] = {}
        for entry in self.entries():
            if entry.number != expected:
                faults.append(f"entries {expected} to {entry.number - 1} are missing")
            if digest(previous, entry.number, entry.at, entry.who, entry.step) != entry.hash:
                faults.append(
                    f"entry {entry.number} is not what was written, or the one before it was changed"
                )
            told_hash = told.pop(str(entry.number), None)
            if told_hash is not None and told_hash != entry.hash.hex():
                faults.append(f"entry {entry.number} is another one than when its hash was kept")
            key = (entry.step.rollout, entry.step.site)
            built[key] = after(built.get(key), entry.at, entry.step)
            expected, previous = entry.number + 1, entry.hash
        faults += [
            f"the ledger ends before entry {number}, which it had when its hash was kept" for number in told
        ]
        faults += self._differences(built)
        return faults

    def _differences(self, built: dict[tuple[str, str], Record]) -> list[str]:
        held = {
            (name, site): Record(state, since, json.loads(data))
            for name, site, state, since, data in self._database.execute(
                "SELECT name, '', state, since, data FROM rollout"
                " UNION ALL SELECT rollout, site, state, since, data FROM site"
            )
        }
        return [
            f"{rollout}: the record of {site or 'the rollout'} is not what its entries add up to"
            for rollout, site in sorted(held.keys() | built.keys())
            if held.get((rollout, site)) != built.get((rollout, site))
        ]


def after(record: Record | None, at: int, step: Step) -> Record:
    """A record after one more step."""
    data = {**(record.data if record else {}), **step.data}
    since = record.since if record and record.state == step.new else at
    return Record(step.new, since, {key: value for key, value in data.items() if value is not None})


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

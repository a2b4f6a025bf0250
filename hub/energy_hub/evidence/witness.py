# SPDX-License-Identifier: Apache-2.0
"""What a gateway is given of a checkpoint, so that it can bear witness: its own tree, no other site's, and the proofs
that this is what was signed and that nothing before it has changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from functools import partial

import psycopg

from energy_hub.evidence import merkle
from energy_hub.evidence.checkpoint import Checkpoint, SiteTree, site_leaf
from energy_hub.evidence.leaves import NodeKey, nodes
from energy_hub.evidence.step import latest_sites

# Sites that are looked at together.
SLICE = 100


def newest(connection: psycopg.Connection) -> int:
    """The number of the newest checkpoint, 0 when there is none."""
    row = connection.execute("SELECT coalesce(max(number), 0) FROM checkpoint").fetchone()
    return int(row[0]) if row else 0


def messages(
    connection: psycopg.Connection, shard: psycopg.Connection | None = None
) -> Iterator[tuple[str, bytes]]:
    """(site, payload) for the sites of the newest checkpoint; with `shard`, for those that live in that database."""
    found = newest_round(connection)
    while found is not None and not found.is_over:
        yield from found.next_slice(shard or connection)


def newest_round(connection: psycopg.Connection) -> Round | None:
    """What there is to tell of the newest checkpoint; None when there is none."""
    with connection.transaction():
        # One moment: a checkpoint made meanwhile is told of the next time.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute(
            "SELECT body, signature, key FROM checkpoint ORDER BY number DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        return Round(Checkpoint(row[0], bytes(row[1]), bytes(row[2])), latest_sites(connection))


class Round:
    """The parts of one checkpoint for all of its sites, some of them at a time, so that whoever has other things to do
    can do them between. It holds no transaction: a site's leaves only grow, and what was signed over is there."""

    def __init__(self, checkpoint: Checkpoint, trees: Mapping[str, SiteTree]) -> None:
        self._checkpoint = describe(checkpoint)
        self._sites = sorted(trees.items())
        self._fleet = Fleet(trees)
        self._done = 0

    @property
    def is_over(self) -> bool:
        return self._done >= len(self._sites)

    def next_slice(self, shard: psycopg.Connection) -> list[tuple[str, bytes]]:
        """(site, payload) for the next sites, of those that live in that database, with two statements. Raises
        LookupError for a tree that is not whole, and goes on behind these sites; psycopg.Error, and does not."""
        first = self._done
        part = dict(self._sites[first : first + SLICE])
        held = {
            name: (number, size)
            for number, name, size in shard.execute(
                "SELECT id, name, status->'witness'->'size' FROM site WHERE here AND name = ANY(%s)",
                (list(part),),
            )
        }
        # Which nodes the proofs need does not depend on what is in them.
        wanted: list[NodeKey] = []
        for name, (number, old) in held.items():
            _since(part[name], old, partial(_note, wanted, number))
        try:
            found = nodes(shard, wanted) if wanted else {}
        except LookupError:
            self._done += SLICE
            raise
        self._done += SLICE
        messages = []
        for index, (name, tree) in enumerate(part.items(), first):
            if name not in held:
                continue
            number, old = held[name]
            document = {
                **self._checkpoint,
                "site": name,
                "size": tree.size,
                "root": tree.root.hex(),
                "index": index,
                "path": [one.hex() for one in self._fleet.path(index)],
            }
            path = _since(tree, old, partial(_look_up, found, number))
            if path is not None:
                document["since"] = {"size": old, "path": [one.hex() for one in path]}
            messages.append((name, json.dumps(document).encode()))
        return messages


def _since(tree: SiteTree, old: object, node: merkle.Node) -> list[bytes] | None:
    """The proof that a tree goes on from what a gateway holds; None when it holds none, or as much."""
    if isinstance(old, int) and 0 < old < tree.size:
        return merkle.consistency_path(old, tree.size, node)
    return None


def _note(wanted: list[NodeKey], number: int, level: int, index: int) -> bytes:
    wanted.append((number, level, index))
    return b""


def _look_up(found: Mapping[NodeKey, bytes], number: int, level: int, index: int) -> bytes:
    return found[number, level, index]


def describe(checkpoint: Checkpoint) -> dict[str, object]:
    """A checkpoint as JSON has it."""
    return {
        "checkpoint": checkpoint.text,
        "signature": base64.b64encode(checkpoint.signature).decode(),
        "key": base64.b64encode(checkpoint.key).decode(),
    }


class Fleet:
    """The tree over the sites, of which there are few enough to hold all."""

    def __init__(self, trees: Mapping[str, SiteTree]) -> None:
        self._nodes: dict[tuple[int, int], bytes] = {}
        frontier = merkle.Frontier()
        for number, name in enumerate(sorted(trees)):
            for level, found in enumerate(frontier.append(site_leaf(name, trees[name]))):
                self._nodes[level, number >> level] = found
        self.size = frontier.size

    def path(self, index: int) -> list[bytes]:
        return merkle.inclusion_path(index, self.size, lambda level, at: self._nodes[level, at])

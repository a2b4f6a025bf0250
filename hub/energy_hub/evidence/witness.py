# SPDX-License-Identifier: Apache-2.0
"""What a gateway is given of a checkpoint, so that it can bear witness: its own tree, no other site's, and the proofs
that this is what was signed and that nothing before it has changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping

import psycopg

from energy_hub.evidence import merkle
from energy_hub.evidence.checkpoint import Checkpoint, SiteTree, site_leaf
from energy_hub.evidence.leaves import Nodes
from energy_hub.evidence.step import latest_sites


def newest(connection: psycopg.Connection) -> int:
    """The number of the newest checkpoint, 0 when there is none."""
    row = connection.execute("SELECT coalesce(max(number), 0) FROM checkpoint").fetchone()
    return int(row[0]) if row else 0


def messages(
    connection: psycopg.Connection, shard: psycopg.Connection | None = None
) -> Iterator[tuple[str, bytes]]:
    """(site, payload) for the sites of the newest checkpoint; with `shard`, for those that live in that database."""
    with connection.transaction():
        # One moment: a checkpoint made meanwhile is told of the next time.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute(
            "SELECT body, signature, key FROM checkpoint ORDER BY number DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return
        checkpoint = Checkpoint(row[0], bytes(row[1]), bytes(row[2]))
        trees = dict(sorted(latest_sites(connection).items()))
        # Its leaves only grow: what the checkpoint was signed over is there.
        shard = shard or connection
        numbers: dict[str, int] = {}
        held: dict[int, object] = {}
        for number, name, size in shard.execute(
            "SELECT id, name, status->'witness'->'size' FROM site WHERE here"
        ):
            numbers[name], held[number] = number, size
        fleet = Fleet(trees)
        for index, (name, tree) in enumerate(trees.items()):
            if name not in numbers:
                continue
            number = numbers[name]
            document = {
                **describe(checkpoint),
                "site": name,
                "size": tree.size,
                "root": tree.root.hex(),
                "index": index,
                "path": [one.hex() for one in fleet.path(index)],
            }
            old = held[number]
            if isinstance(old, int) and 0 < old < tree.size:
                path = merkle.consistency_path(old, tree.size, Nodes(shard, number))
                document["since"] = {"size": old, "path": [one.hex() for one in path]}
            yield name, json.dumps(document).encode()


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

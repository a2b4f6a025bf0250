# SPDX-License-Identifier: Apache-2.0
"""The example published in docs/reference/checkpoint-vectors; run this file to write it anew.

It changes only when the format does. The keys are fixed, so that it comes out the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub.evidence import merkle
from energy_hub.evidence.checkpoint import SiteTree, sign, site_leaf
from energy_hub.evidence.keys import key_id, raw
from energy_hub.evidence.leaves import Leaf
from energy_hub.evidence.witness import Fleet, describe

FILE = Path(__file__).parents[3] / "docs" / "reference" / "checkpoint-vectors" / "example.json"
HUB = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GATEWAY = raw(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))).public_key())
START = datetime(2026, 1, 1, tzinfo=UTC)


def leaf(number: int) -> Leaf:
    return Leaf(
        site="plant-a",
        stream=bytes.fromhex("9f0c1122334455aa"),
        sequence=number + 1,
        digest=hashlib.sha256(b"batch %d" % (number + 1)).digest(),
        key=GATEWAY,
        received=START + timedelta(seconds=30 * number, microseconds=number),
        readings=160,
        quarantined=number == 3,
    )


def example() -> dict[str, object]:
    """Two checkpoints: one over 5 leaves of plant-a, the next over 7 and two sites."""
    nodes: dict[tuple[int, int], bytes] = {}
    tree = merkle.Frontier()
    roots = {}
    for number in range(7):
        for level, found in enumerate(tree.append(leaf(number).hash())):
            nodes[level, number >> level] = found
        roots[tree.size] = tree.root()
    first_trees = {"plant-a": SiteTree(5, roots[5])}
    other = SiteTree(1, merkle.leaf_hash(b"another site's only leaf"))
    trees = {"plant-a": SiteTree(7, roots[7]), "plant-b": other}
    first = sign(HUB, 1, START + timedelta(minutes=5), bytes(32), first_trees)
    second = sign(HUB, 2, START + timedelta(minutes=10), first.digest, trees)
    path = merkle.consistency_path(5, 7, lambda level, index: nodes[level, index])
    inclusion = merkle.inclusion_path(3, 7, lambda level, index: nodes[level, index])
    return {
        "hub_key": raw(HUB.public_key()).hex(),
        "hub_key_id": key_id(raw(HUB.public_key())),
        "leaves": [
            {"data": leaf(number).data().hex(), "hash": leaf(number).hash().hex()} for number in range(7)
        ],
        "roots": {str(size): root.hex() for size, root in roots.items()},
        "leaf_3_in_7": [one.hex() for one in inclusion],
        "sites": {name: site_leaf(name, one).hex() for name, one in trees.items()},
        "first": {**describe(first), "digest": first.digest.hex()},
        "second": {**describe(second), "digest": second.digest.hex()},
        "witness": {
            **describe(second),
            "site": "plant-a",
            "size": 7,
            "root": roots[7].hex(),
            "index": 0,
            "path": [one.hex() for one in Fleet(trees).path(0)],
            "since": {"size": 5, "path": [one.hex() for one in path]},
        },
    }


def text() -> str:
    return json.dumps(example(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")

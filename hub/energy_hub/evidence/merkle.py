# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of RFC 9162, section 2.1 (the same as RFC 6962's), over SHA-256.

A node is named by level and index: it covers the leaves from `index << level` on, `1 << level` of them. Only
nodes whose leaves are all there ("complete") are ever kept. They never change once they are made, which is
why a proof needs a few of them and no leaf is read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

Node = Callable[[int, int], bytes]
"""The hash of a complete node, by level and index."""

EMPTY_ROOT = hashlib.sha256().digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the hashes of the largest complete nodes, one for each bit of the size that
    is set, the largest first. Enough to add leaves and to tell the root."""

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.nodes = list(nodes)

    @classmethod
    def at(cls, size: int, node: Node) -> Frontier:
        """The edge of a tree of `size` leaves whose complete nodes are known."""
        return cls(size, (node(level, index) for level, index in edge(0, size)))

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf by its hash; the hashes of all nodes that it completes, from itself upwards."""
        completed = [leaf]
        index = self.size
        while index & 1:
            completed.append(node_hash(self.nodes.pop(), completed[-1]))
            index >>= 1
        self.nodes.append(completed[-1])
        self.size += 1
        return completed

    def root(self) -> bytes:
        return _fold(self.nodes) if self.nodes else EMPTY_ROOT


def root(leaves: Iterable[bytes]) -> bytes:
    """The root over hashes of leaves."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def inclusion_path(number: int, size: int, node: Node) -> list[bytes]:
    """Section 2.1.3.1: proves that a leaf is in the tree of `size` leaves."""
    if not 0 <= number < size:
        raise ValueError(f"leaf {number} of a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if number < middle:
            path.append(_span(middle, end, node))
            end = middle
        else:
            path.append(_span(start, middle, node))
            start = middle
    return path[::-1]


def consistency_path(old: int, size: int, node: Node) -> list[bytes]:
    """Section 2.1.4.1: proves that the tree of `old` leaves is the beginning of the one of `size`."""
    if not 0 < old <= size:
        raise ValueError(f"from a tree of {old} to one of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_span(middle, end, node))
            end = middle
        else:
            path.append(_span(start, middle, node))
            start = middle
    if start:
        path.append(_span(start, end, node))
    return path[::-1]


def root_from_inclusion(leaf: bytes, number: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a path leads to, section 2.1.3.2; None when it has the wrong length for this place."""
    if not 0 <= number < size:
        return None
    place, last, found = number, size - 1, leaf
    for hash_ in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            found = node_hash(hash_, found)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            found = node_hash(found, hash_)
        place >>= 1
        last >>= 1
    return found if last == 0 else None


def is_consistent(old: int, old_root: bytes, size: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a path proves that one tree is the beginning of another, section 2.1.4.2."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not path and old_root == new_root
    hashes = list(path)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    place, last = old - 1, size - 1
    while place & 1:
        place >>= 1
        last >>= 1
    first = second = hashes[0]
    for hash_ in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            first, second = node_hash(hash_, first), node_hash(hash_, second)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            second = node_hash(second, hash_)
        place >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == new_root


def _split(count: int) -> int:
    """The largest power of two below `count`: what goes to the left."""
    return 1 << (count - 1).bit_length() - 1


def edge(start: int, end: int) -> Iterable[tuple[int, int]]:
    """Complete nodes that cover the leaves from `start` to `end`, from the left; `start` must fit the largest."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _span(start: int, end: int, node: Node) -> bytes:
    """The hash over the leaves from `start` to `end`."""
    return _fold([node(level, index) for level, index in edge(start, end)])


def _fold(nodes: Sequence[bytes]) -> bytes:
    found = nodes[-1]
    for left in reversed(nodes[:-1]):
        found = node_hash(left, found)
    return found

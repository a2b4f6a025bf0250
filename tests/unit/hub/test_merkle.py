# SPDX-License-Identifier: Apache-2.0
"""The tree against known roots, and against the recursion that RFC 9162, section 2.1.1 writes down."""

from __future__ import annotations

import pytest
from energy_hub.evidence import merkle
from hypothesis import given
from hypothesis import strategies as st

# Leaves and roots of github.com/transparency-dev/merkle, testonly/constants.go.
LEAVES = [
    bytes.fromhex(one)
    for one in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive(hashes: list[bytes]) -> bytes:
    if not hashes:
        return merkle.EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return merkle.node_hash(naive(hashes[:k]), naive(hashes[k:]))


def naive_proof(old: int, hashes: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.4.1."""
    if old == len(hashes):
        return [] if whole else [naive(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if old <= k:
        return [*naive_proof(old, hashes[:k], whole=whole), naive(hashes[k:])]
    return [*naive_proof(old - k, hashes[k:], whole=False), naive(hashes[:k])]


class Grown:
    """A tree that grew leaf by leaf, and refuses to tell a node that is not complete."""

    def __init__(self, size: int) -> None:
        self.leaves = [merkle.leaf_hash(b"%d" % number) for number in range(size)]
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.frontier = merkle.Frontier()
        for number, leaf in enumerate(self.leaves):
            for level, found in enumerate(self.frontier.append(leaf)):
                self.nodes[level, number >> level] = found

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size: int) -> None:
    assert merkle.root(map(merkle.leaf_hash, LEAVES[:size])).hex() == ROOTS[size]


@given(st.integers(0, 300), st.data())
def test_growing_is_the_same_as_the_recursion(size: int, data: st.DataObject) -> None:
    tree = Grown(size)
    assert tree.frontier.root() == naive(tree.leaves)
    assert len(tree.nodes) < 2 * size or size == 0
    part = data.draw(st.integers(0, size))
    again = merkle.Frontier.at(part, tree.node)
    for leaf in tree.leaves[part:]:
        again.append(leaf)
    assert (again.size, again.nodes) == (tree.frontier.size, tree.frontier.nodes)


@given(st.integers(1, 200), st.data())
def test_inclusion(size: int, data: st.DataObject) -> None:
    tree = Grown(size)
    number = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_path(number, size, tree.node)
    assert merkle.root_from_inclusion(tree.leaves[number], number, size, path) == tree.frontier.root()
    other = data.draw(st.integers(0, size - 1))
    if other != number:
        assert merkle.root_from_inclusion(tree.leaves[other], number, size, path) != tree.frontier.root()
        # The same path at another place.
        assert merkle.root_from_inclusion(tree.leaves[number], other, size, path) != tree.frontier.root()
    if path:
        assert merkle.root_from_inclusion(tree.leaves[number], number, size, path[:-1]) is None
    assert merkle.root_from_inclusion(tree.leaves[number], number, size, [*path, bytes(32)]) is None


@given(st.integers(1, 200), st.data())
def test_consistency(size: int, data: st.DataObject) -> None:
    tree = Grown(size)
    old = data.draw(st.integers(1, size))
    before, now = naive(tree.leaves[:old]), tree.frontier.root()
    path = merkle.consistency_path(old, size, tree.node)
    assert path == naive_proof(old, tree.leaves, whole=True)
    assert merkle.is_consistent(old, before, size, now, path)
    assert not merkle.is_consistent(old, bytes(32), size, now, path)
    assert not merkle.is_consistent(old, before, size, bytes(32), path)
    if path:
        assert not merkle.is_consistent(old, before, size, now, path[:-1])
        spoilt = [*path[:-1], bytes(32)]
        assert not merkle.is_consistent(old, before, size, now, spoilt)
    assert not merkle.is_consistent(old, before, size, now, [*path, bytes(32)])


def test_what_is_no_tree() -> None:
    tree = Grown(4)
    for number, size in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="of a tree"):
            merkle.inclusion_path(number, size, tree.node)
        assert merkle.root_from_inclusion(tree.leaves[0], number, size, []) is None
    for old in (0, 5):
        with pytest.raises(ValueError, match="from a tree"):
            merkle.consistency_path(old, 4, tree.node)
        assert not merkle.is_consistent(old, bytes(32), 4, bytes(32), [])
    assert merkle.is_consistent(4, bytes(32), 4, bytes(32), [])
    assert not merkle.is_consistent(4, bytes(32), 4, bytes(31) + b"\1", [])

"""Shares of a tree: disjoint, contiguous, together everything, and nearly equal."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core.entries import concat
from dataset_store.core.shares import read_share, share_numbers, share_of
from dataset_store.core.tree_writing import build
from dataset_store.testing.trees import MemoryNodes, entries_of

SIZES = st.lists(st.integers(0, 3) | st.integers(0, 10**12), max_size=60)


def table(sizes):
    entries = entries_of({b"d%02d\0f%04d" % (number % 7, number): number for number in range(len(sizes))})
    return replace(entries, sizes=np.array(sizes, np.uint64))


@given(SIZES, st.integers(1, 12))
def test_shares_are_contiguous_and_together_everything(sizes, parts):
    entries = table(sizes)
    shares = [share_of(entries, part, parts) for part in range(parts)]
    assert concat(shares).keys == entries.keys
    numbers = [part for part, share in enumerate(shares) for _ in share.keys]
    assert share_numbers(entries, parts).tolist() == numbers
    most = max(sizes, default=0) + 1
    for share in shares:
        weight = int(share.sizes.sum()) + len(share)
        assert abs(weight - (sum(sizes) + len(sizes)) / parts) <= most


@given(st.integers(0, 6000), st.integers(1, 9) | st.just(10**9), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_share_of_a_tree_is_that_of_its_entries_and_reads_only_its_own_nodes(count, parts, seed):
    entries = entries_of({b"d%02d\0f%06d" % (number % 11, number): number for number in range(count)})
    nodes = MemoryNodes()
    root = build(entries, nodes).root
    rng = np.random.default_rng(seed)
    part = int(rng.integers(parts))
    nodes.read = 0
    found = read_share(root, part, parts, nodes)
    assert found.keys == share_of(entries, part, parts).keys
    if count > 4000 and 4 < parts < 10:
        assert nodes.read < len(nodes.plains) * 0.6

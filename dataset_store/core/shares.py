"""Shares of a tree: contiguous groups of its entries, of nearly equal bytes, for several readers of one version.

Every entry weighs its size and one byte more, so that empty files are dealt out too. With n shares, an entry belongs to
the one in which its first byte falls when all are laid end to end; so shares are disjoint, together they are
everything, and each differs from the mean by less than its largest entry. Reading one reads only the nodes on its way.
"""

from collections.abc import Sequence

from dataset_store.core.arrays import I64, U64, Rows, np
from dataset_store.core.entries import Entries, concat
from dataset_store.core.nodes import Children, Node, NodeRef
from dataset_store.core.paths import ROOT, PathKey
from dataset_store.core.tree import KeyRange, NodeReader, TreeRoot, read_children, require_one_level

__all__ = ["ranges_of", "read_share", "share_numbers", "share_of"]

Weights = U64


def share_of(entries: Entries, part: int, parts: int) -> Entries:
    """One of `parts` shares of a table, counted from 0."""
    low, high = _bounds(int(_weights(entries).sum()), part, parts)
    return _between(entries, 0, low, high)


def read_share(root: TreeRoot, part: int, parts: int, reader: NodeReader) -> Entries:
    """One of `parts` shares of a tree, counted from 0; the same as `share_of` all its entries."""
    nodes = read_children([root.ref], reader)
    low, high = _bounds(int(_weights(nodes[0]).sum()), part, parts)
    if low == high:
        return Entries.empty()
    starts: Sequence[int] = [0]
    while not require_one_level(nodes):
        found = [
            (node.ref(row), start + int(begins[row]))
            for node, start in zip(nodes, starts, strict=True)
            if isinstance(node, Children)
            for begins, weights in [_begins(node)]
            for row in np.flatnonzero((begins + start < high) & (begins + weights + start > low)).tolist()
        ]
        nodes, starts = read_children([ref for ref, _ in found], reader), [start for _, start in found]
    leaves = zip(nodes, starts, strict=True)
    return concat([_between(node, start, low, high) for node, start in leaves if isinstance(node, Entries)])


def share_numbers(entries: Entries, parts: int) -> Rows:
    """Which of `parts` shares each row of a whole table belongs to, shape (n,)."""
    begins, weights = _begins(entries)
    starts = [_bounds(int(weights.sum()), part, parts)[0] for part in range(1, parts)]
    return np.searchsorted(np.array(starts, np.int64), begins, side="right")


def ranges_of(root: TreeRoot, most: int, reader: NodeReader) -> list[KeyRange]:
    """Ranges of keys, in order and together everything, of at most `most` entries each, or else of one leaf.

    Only inner nodes are read, and of these none below a range.
    """
    nodes = read_children([root.ref], reader)
    rows = [(ROOT, root.ref, sum(_entries_of(node) for node in nodes))]
    while large := [ref for _, ref, count in rows if count > most]:
        deeper = dict(zip(large, read_children(large, reader), strict=True))
        if require_one_level(list(deeper.values())):
            break
        rows = [below for row in rows for below in _rows_below(row, deeper.get(row[1]))]
    firsts: list[PathKey] = []
    room = 0
    for key, _, count in rows:
        if not firsts or count > room:
            firsts.append(key)
            room = most
        room -= count
    return list(zip(firsts, [*firsts[1:], None], strict=True))


def _rows_below(row: tuple[PathKey, NodeRef, int], node: Node | None) -> list[tuple[PathKey, NodeRef, int]]:
    """A row, or where its node was read the rows of that; the first begins where the row does."""
    if not isinstance(node, Children):
        return [row]
    keys = [row[0], *node.keys[1:]]
    return list(zip(keys, node.refs(), node.counts.tolist(), strict=True))


def _entries_of(node: Node) -> int:
    return int(node.counts.sum()) if isinstance(node, Children) else len(node)


def _bounds(total: int, part: int, parts: int) -> tuple[int, int]:
    return total * part // parts, total * (part + 1) // parts


def _between(entries: Entries, start: int, low: int, high: int) -> Entries:
    begins = _begins(entries)[0] + start
    return entries.take((begins >= low) & (begins < high))


def _begins(rows: Node) -> tuple[I64, I64]:
    """Where each row begins when they are laid end to end, and its weight; shapes (n,)."""
    weights = _weights(rows).astype(np.int64)
    return np.cumsum(weights) - weights, weights


def _weights(rows: Node) -> Weights:
    counts = rows.counts if isinstance(rows, Children) else np.ones(len(rows), np.uint64)
    weights: Weights = rows.sizes + counts
    return weights

"""Trees: what one is, and reading all or part of one.

A tree is a search tree of nodes whose shape is a function of its keys (see `shape`), so that equal subtrees have equal
digests wherever they came from. Reading fetches one level at a time.

Nodes are read through a small port; nothing here knows where they are.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from dataset_store.core.digest import ContentDigest
from dataset_store.core.entries import Entries, concat
from dataset_store.core.nodes import Children, Node, NodeRef
from dataset_store.core.paths import ROOT, PathKey, check_keys
from dataset_store.errors import CorruptObject

__all__ = [
    "KeyRange",
    "NodeReader",
    "TreeRoot",
    "children_holding",
    "lookup",
    "read_all",
    "read_children",
    "read_range",
    "read_ranges",
    "require_one_level",
]

KeyRange: TypeAlias = tuple[PathKey, PathKey | None]
"""The keys from the first on and before the second; no second means to the end."""


class NodeReader(Protocol):
    """Where nodes are read from."""

    def read_nodes(self, refs: Sequence[NodeRef]) -> list[Node]:
        """The nodes, checked against their node ids, in the order asked. Nobody changes what is given here.

        Raises:
            CorruptObject: One is not what its reference says.
        """


class TreeRoot(Struct, frozen=True):
    """A whole tree: its content digest, and the reference to its root node."""

    digest: ContentDigest
    ref: NodeRef


def read_children(refs: Sequence[NodeRef], reader: NodeReader) -> list[Node]:
    """The nodes behind `refs`, read in one batch: some or all nodes of one level of one tree.

    Raises:
        CorruptObject: A node is damaged, or there twice. As the keys of a tree are different ones, no tree needs that;
            and a forged one cannot make a walk longer than it has nodes.
    """
    if len({ref.node_id for ref in refs}) < len(refs):
        raise CorruptObject("A tree has a node twice.", "Run `dataset-store verify`.")
    return reader.read_nodes(refs)


def require_one_level(nodes: Sequence[Node]) -> bool:
    """Whether the nodes are leaves; mixed levels mean a forged or broken tree."""
    leaves = [isinstance(node, Entries) for node in nodes]
    if any(leaves) != all(leaves):
        raise CorruptObject("A tree has leaves on several levels.", "Run `dataset-store verify`.")
    return all(leaves)


def require_order(nodes: Sequence[Node]) -> None:
    """See that all keys of one node come before those of the next, as within each they are in order already.

    Raises:
        CorruptObject: They do not.
    """
    check_keys([key for node in nodes for key in (*node.keys[:1], *node.keys[1:][-1:])])


def read_all(root: TreeRoot, reader: NodeReader) -> Entries:
    """Every entry of a tree, one batch of reads for each level."""
    return read_range(root, ROOT, None, reader)


def read_range(root: TreeRoot, start: PathKey, stop: PathKey | None, reader: NodeReader) -> Entries:
    """The entries whose keys lie in `[start, stop)`; no stop means to the end."""
    return read_ranges(root, [(start, stop)], reader)


def read_ranges(root: TreeRoot, ranges: Sequence[KeyRange], reader: NodeReader) -> Entries:
    """The entries of all these ranges, which are in order and apart, one batch of nodes a level for all of them."""
    if not ranges:
        return Entries.empty()
    nodes = read_children([root.ref], reader)
    shares: list[Sequence[KeyRange]] = [ranges]
    while not require_one_level(nodes):
        refs: list[NodeRef] = []
        deeper: list[Sequence[KeyRange]] = []
        for node, share in zip(nodes, shares, strict=True):
            if isinstance(node, Children):
                by_child = _ranges_by_child(node.keys, share)
                refs += [node.ref(row) for row in by_child]
                deeper += by_child.values()
        nodes, shares = read_children(refs, reader), deeper
    require_order(nodes)
    pairs = zip(nodes, shares, strict=True)
    return concat([part for node, share in pairs if isinstance(node, Entries) for part in _within(node, share)])


def _ranges_by_child(firsts: Sequence[PathKey], ranges: Sequence[KeyRange]) -> dict[int, list[KeyRange]]:
    """The children that can hold entries of ranges, each with those ranges; keys before the first child go to it."""
    by_child: dict[int, list[KeyRange]] = {}
    for start, stop in ranges:
        first = max(0, bisect_right(firsts, start) - 1)
        last = len(firsts) if stop is None else bisect_left(firsts, stop)
        for child in range(first, max(last, first + 1)):
            by_child.setdefault(child, []).append((start, stop))
    return by_child


def _within(leaf: Entries, ranges: Sequence[KeyRange]) -> Iterable[Entries]:
    """The rows of a leaf that lie in each of the ranges."""
    for start, stop in ranges:
        first, last = leaf.range_between(start, stop)
        yield leaf if (first, last) == (0, len(leaf)) else leaf.rows(first, last)


def lookup(root: TreeRoot, keys: Sequence[PathKey], reader: NodeReader) -> Entries:
    """Those of the sorted `keys` that the tree holds, read through as few nodes as hold them."""
    if not keys:
        return Entries.empty()
    nodes = read_children([root.ref], reader)
    shares: list[Sequence[PathKey]] = [keys]
    while not require_one_level(nodes):
        refs: list[NodeRef] = []
        deeper: list[Sequence[PathKey]] = []
        for node, share in zip(nodes, shares, strict=True):
            if isinstance(node, Children):
                for row, part in children_holding(share, node.keys):
                    refs.append(node.ref(row))
                    deeper.append(part)
        nodes, shares = read_children(refs, reader), deeper
    found = []
    for node, share in zip(nodes, shares, strict=True):
        if isinstance(node, Entries):
            rows = node.find_many(share)
            found.append(node.take(rows[rows >= 0]))
    return concat(found)


def children_holding(keys: Sequence[PathKey], firsts: Sequence[PathKey]) -> Iterable[tuple[int, Sequence[PathKey]]]:
    """Sorted keys by the child that holds them; keys before the first child go to the first."""
    at = 0
    while at < len(keys):
        row = max(0, bisect_right(firsts, keys[at]) - 1)
        end = bisect_left(keys, firsts[row + 1], at) if row + 1 < len(firsts) else len(keys)
        yield row, keys[at:end]
        at = end

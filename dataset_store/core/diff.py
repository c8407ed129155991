"""What differs between two trees, found by walking only subtrees whose content digests differ.

A difference is one of identity (kind, exec bit, size, content id). Time stamps and places are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset_store.core.entries import Changes, Entries, concat, same_identity, sort_rows
from dataset_store.core.nodes import Children, NodeRef, decode_node, node_level
from dataset_store.core.tree import NodeReader, TreeRoot, read_children, require_one_level

__all__ = ["Difference", "diff", "diff_entries"]


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Rows of the old and the new tree that differ. `modified_old` and `modified_new` have equal keys, row by row."""

    removed: Entries
    added: Entries
    modified_old: Entries
    modified_new: Entries

    def __len__(self) -> int:
        return len(self.removed) + len(self.added) + len(self.modified_new)

    def as_changes(self) -> Changes:
        """What turns the old tree into the new one."""
        return Changes(sort_rows(concat([self.added, self.modified_new])), list(self.removed.keys))


def diff_entries(old: Entries, new: Entries) -> Difference:
    """The difference of two tables."""
    at = old.find_many(new.keys)
    common = np.flatnonzero(at >= 0)
    there = at[common]
    changed = ~same_identity(new, common, old, there)
    gone = np.ones(len(old), np.bool_)
    gone[there] = False
    return Difference(old.take(gone), new.take(at < 0), old.take(there[changed]), new.take(common[changed]))


def diff(old: TreeRoot, new: TreeRoot, reader: NodeReader) -> Difference:
    """The difference of two trees, reading nodes in proportion to it, one batch of both sides a level."""
    if old.digest == new.digest:
        return diff_entries(Entries.empty(), Entries.empty())
    plains = reader.read_nodes([old.ref, new.ref])
    heights = [node_level(plain) for plain in plains]
    levels = [[decode_node(plain, "a root node")] for plain in plains]
    while heights != [0, 0]:
        top = max(heights)
        rows = [_children(nodes) if height == top else None for nodes, height in zip(levels, heights, strict=True)]
        shared = _shared_digests(rows)
        for side, children in enumerate(rows):
            if children is not None:
                levels[side] = read_children(_refs_outside(children, shared), reader)
                heights[side] -= 1
    for nodes in levels:
        require_one_level([Entries.empty(), *nodes])
    tables = [concat([node for node in nodes if isinstance(node, Entries)]) for nodes in levels]
    return diff_entries(tables[0], tables[1])


def _children(nodes: Sequence[Entries | Children]) -> list[Children]:
    return [node for node in nodes if isinstance(node, Children)]


def _shared_digests(sides: Sequence[list[Children] | None]) -> set[bytes]:
    """Digests of children on both sides; equal digests are equal subtrees under equal keys."""
    sets = [{row.tobytes() for node in nodes for row in node.digests} for nodes in sides if nodes is not None]
    return sets[0] & sets[1] if len(sets) == 2 else set()


def _refs_outside(nodes: Sequence[Children], shared: set[bytes]) -> list[NodeRef]:
    return [node.ref(row) for node in nodes for row in range(len(node)) if node.digests[row].tobytes() not in shared]

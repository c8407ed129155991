"""What differs between two trees, found by walking only subtrees that differ.

A difference is one of identity (kind, exec bit, size, content id). Time stamps and places are none; where times and
origins matter too, there is `changes_between`.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from dataset_store.core.arrays import I64, U8, Bool, np
from dataset_store.core.entries import Changes, Entries, concat, same_identity, sort_rows
from dataset_store.core.nodes import Children, Node, NodeRef, level_of
from dataset_store.core.tree import NodeReader, TreeRoot, read_children, require_one_level

__all__ = ["Difference", "changes_between", "diff", "diff_entries"]


class Difference(Struct, frozen=True, eq=False):
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
    return _diff_leaves(*_outside_shared(old, new, reader, lambda node: node.digests))


def _diff_leaves(old: Sequence[Entries], new: Sequence[Entries]) -> Difference:
    """The difference of the rows of some leaves, each side's in key order.

    Where an edit added and removed no keys, a leaf has the same rows on both sides, and these are compared as they lie.
    """
    olds = {leaf.keys[0]: leaf for leaf in old if len(leaf)}
    changed: list[tuple[Entries, Entries]] = []
    rest: list[Entries] = []
    for leaf in new:
        before = olds.get(leaf.keys[0]) if len(leaf) else None
        if before is not None and before.keys == leaf.keys:
            rows = np.arange(len(leaf))
            rows = rows[~same_identity(before, rows, leaf, rows)]
            changed.append((before.take(rows), leaf.take(rows)))
            del olds[leaf.keys[0]]
        else:
            rest.append(leaf)
    found = diff_entries(concat(list(olds.values())), concat(rest))
    return Difference(
        found.removed,
        found.added,
        sort_rows(concat([found.modified_old, *(before for before, _ in changed)])),
        sort_rows(concat([found.modified_new, *(after for _, after in changed)])),
    )


def changes_between(old: TreeRoot, new: TreeRoot, reader: NodeReader) -> Changes:
    """What turns the old tree into the new one in every respect but where contents lie: times and origins count.

    Both are trees of one store. Nodes are read in proportion to the changes where one was made from the other.
    """
    if old.ref.node_id == new.ref.node_id:
        return Changes.none()
    before, after = map(concat, _outside_shared(old, new, reader, lambda node: node.node_ids))
    at = before.find_many(after.keys)
    common = np.flatnonzero(at >= 0)
    kept = np.ones(len(after), np.bool_)
    kept[common] = ~_same_rows(after, common, before, at[common])
    gone = np.ones(len(before), np.bool_)
    gone[at[common]] = False
    return Changes(after.take(kept), before.take(gone).keys)


def _same_rows(one: Entries, rows: I64, other: Entries, there: I64) -> Bool:
    """Pair by pair of rows: is it the same thing, of the same time and origin? Shapes (k,)."""
    numbers = {origin: number for number, origin in enumerate(other.origin_ids)}
    origins = np.array([numbers.get(origin, -1) for origin in one.origin_ids], np.int64)
    same = same_identity(one, rows, other, there)
    same &= one.mtimes[rows] == other.mtimes[there]
    same &= origins[one.origins[rows]] == other.origins[there]
    return same


def _outside_shared(
    old: TreeRoot, new: TreeRoot, reader: NodeReader, names: Callable[[Children], U8]
) -> tuple[list[Entries], list[Entries]]:
    """The leaves of both trees that lie below no node whose name both have; one batch of both sides a level."""
    levels: list[list[Node]] = [[node] for node in reader.read_nodes([old.ref, new.ref])]
    heights = [level_of(nodes[0]) for nodes in levels]
    while heights != [0, 0]:
        top = max(heights)
        rows = [_children(nodes) if height == top else None for nodes, height in zip(levels, heights, strict=True)]
        shared = _shared(rows, names)
        for side, children in enumerate(rows):
            if children is not None:
                levels[side] = read_children(_refs_outside(children, shared, names), reader)
                heights[side] -= 1
    for nodes in levels:
        require_one_level([Entries.empty(), *nodes])
    one, other = ([node for node in nodes if isinstance(node, Entries)] for nodes in levels)
    return one, other


def _children(nodes: Sequence[Node]) -> list[Children]:
    return [node for node in nodes if isinstance(node, Children)]


def _shared(sides: Sequence[list[Children] | None], names: Callable[[Children], U8]) -> set[bytes]:
    """Names of children on both sides; equal digests, or ids, are equal subtrees under equal keys."""
    sets = [{name for node in nodes for name in _split(names(node))} for nodes in sides if nodes is not None]
    return sets[0] & sets[1] if len(sets) == 2 else set()


def _refs_outside(nodes: Sequence[Children], shared: set[bytes], names: Callable[[Children], U8]) -> list[NodeRef]:
    found = ((node, row, name) for node in nodes for row, name in enumerate(_split(names(node))))
    return [node.ref(row) for node, row, name in found if name not in shared]


def _split(ids: U8) -> list[bytes]:
    """The rows of a column of ids."""
    raw = ids.tobytes()
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]

"""Folding several parents into one tree, by the rules of docs/format.md §10.

The result is stated as changes to the first parent's tree, so that making a version of several parents costs what
differs between them.
"""

from collections.abc import Container, Iterable, Mapping, Sequence

from dataset_store.core.arrays import Bool, np
from dataset_store.core.diff import diff
from dataset_store.core.entries import Changes, Entries, concat, same_identity, sort_rows
from dataset_store.core.paths import PathKey
from dataset_store.core.tree import NodeReader, TreeRoot, lookup

__all__ = ["ancestors", "common_bases", "merge", "parents_first"]


def merge(one: TreeRoot, other: TreeRoot, bases: Sequence[TreeRoot], reader: NodeReader) -> Changes:
    """Changes to `one` that make it the merge of `one` and the later parent `other`.

    Args:
        one: The result so far.
        other: The parent to fold in; its entries win.
        bases: The maximal common ancestors of both sides; none means that neither side removed anything.
        reader: Where the nodes of all of them are.
    """
    difference = diff(one, other, reader)
    only_one, only_other = difference.removed, difference.added
    added = only_other.take(~_as_in_a_base(only_other, bases, reader))
    gone = _as_in_a_base(only_one, bases, reader)
    removed = {key for key, is_gone in zip(only_one.keys, gone.tolist(), strict=True) if is_gone}
    removed |= _in_the_way(added.keys, only_one.keys)
    return Changes(sort_rows(concat([added, difference.modified_new])), sorted(removed))


def _as_in_a_base(entries: Entries, bases: Sequence[TreeRoot], reader: NodeReader) -> Bool:
    """Which rows stand, with the same identity, in at least one base; shape (n,)."""
    found = np.zeros(len(entries), np.bool_)
    for base in bases:
        there = lookup(base, entries.keys, reader)
        rows = entries.find_many(there.keys)
        found[rows] |= same_identity(entries, rows, there, np.arange(len(there)))
    return found


def _in_the_way(added: Sequence[PathKey], only_one: Sequence[PathKey]) -> set[PathKey]:
    """Keys of the first side that an added row makes impossible: a file where a directory comes, files below a file.

    Only keys that the other side lacks can be in the way of its rows: its own tree holds no such pair.
    """
    held, new = set(only_one), set(added)
    files = {ancestor for key in added for ancestor in _above(key) if ancestor in held}
    return files | {key for key in only_one if any(ancestor in new for ancestor in _above(key))}


def _above(key: PathKey) -> list[PathKey]:
    """The keys of all directories above `key`."""
    parts = key.split(b"\0")
    return [PathKey(b"\0".join(parts[:depth])) for depth in range(1, len(parts))]


def ancestors(versions: Iterable[str], parents: Mapping[str, Sequence[str]]) -> set[str]:
    """These versions and all that they come from. Versions that `parents` lacks have none."""
    seen = set(versions)
    waiting = list(seen)
    while waiting:
        fresh = [parent for parent in parents.get(waiting.pop(), ()) if parent not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return seen


def common_bases(
    one: Sequence[str], other: str, parents: Mapping[str, Sequence[str]], live: Container[str] | None = None
) -> set[str]:
    """The maximal common ancestors of the versions `one`, taken together, and of `other`.

    Args:
        one: Versions.
        other: A version.
        parents: Of each version that is known.
        live: Only these count, and others let their own ancestors through; by default all that are known.
    """
    usable = parents if live is None else live
    common = {version for version in ancestors(one, parents) & ancestors([other], parents) if version in usable}
    above = {parent for version in common for parent in parents.get(version, ()) if parent != version}
    return common - ancestors(above, parents)


def parents_first(versions: Sequence[str], parents: Mapping[str, Sequence[str]]) -> list[str]:
    """The same versions, each after those of its parents that are among them, otherwise in the order given."""
    left = set(versions)
    done: dict[str, None] = {}
    for version in versions:
        waiting = [version]
        while waiting:
            at = waiting[-1]
            above = parents.get(at, ()) if at in left else ()
            left.discard(at)
            fresh = [parent for parent in above if parent in left]
            if not fresh:
                done[waiting.pop()] = None
            waiting.extend(reversed(fresh))
    return list(done)

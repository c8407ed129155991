"""What symbolic links of a version lead to within it."""

from collections.abc import Sequence

from dataset_store.core.arrays import np
from dataset_store.core.entries import KIND_BITS, Changes, Entries, overlay
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import ROOT, PathKey, parent_key, starts_below
from dataset_store.core.tree import TreeRoot, lookup
from dataset_store.dataset.entries.contents import stored_contents
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.entries.selecting import read_below
from dataset_store.dataset.workspace import Workspace

__all__ = ["with_targets"]

_MOST_STEPS = 40
"""Links that lead to links; Linux follows as many."""


def with_targets(workspace: Workspace, root: TreeRoot, entries: Entries) -> Entries:
    """Some entries of a tree, and the files and directories that links among them lead to.

    Not taken is a directory that holds the link itself, nor what a link reaches through another link's name.
    """
    nodes = workspace.store.nodes
    seen: set[PathKey] = set()
    for _ in range(_MOST_STEPS):
        rows = [row for row in _link_rows(entries) if entries.keys[row] not in seen]
        seen.update(entries.keys[row] for row in rows)
        texts = stored_contents(workspace, entries, rows)
        targets = {_target(entries.keys[row], text) for row, text in zip(rows, texts, strict=True)}
        wanted = sorted(key for key in targets if key is not None and entries.find(key) is None)
        if not wanted:
            break
        found = overlay(lookup(root, wanted, nodes), Changes(read_below(root, wanted, nodes), []))
        entries = overlay(entries, Changes(with_lists(found, nodes), []))
    return entries


def _link_rows(entries: Entries) -> Sequence[int]:
    rows: list[int] = np.flatnonzero((entries.kinds & KIND_BITS) == Kind.SYMLINK).tolist()
    return rows


def _target(link: PathKey, text: bytes) -> PathKey | None:
    """The key that a link's text means; None where that is a directory around the link."""
    names = parent_key(link).split(b"\0") if parent_key(link) else []
    for name in text.split(b"/"):
        if name == b"..":
            names = names[:-1]
        elif name not in {b"", b"."}:
            names.append(name)
    key = PathKey(b"\0".join(names))
    return None if key == ROOT or starts_below(link, key) else key

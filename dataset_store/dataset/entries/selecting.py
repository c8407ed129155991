"""Some of a version's entries: by path, directory or wildcard, or a share for one of several readers.

What it costs follows what is selected: named files are looked up, directories and shares are read through the nodes
that hold them, all in one batch a level; only a wildcard that begins with one reads all.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from dataset_store.core.arrays import np
from dataset_store.core.digest import hash32
from dataset_store.core.entries import Changes, Entries, overlay
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.paths import ROOT, PathKey, to_key, to_texts
from dataset_store.core.shares import read_share, share_of
from dataset_store.core.tree import KeyRange, TreeRoot, lookup, read_all, read_ranges
from dataset_store.core.wildcards import is_wildcard, matching
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.errors import InvalidPath, InvalidRequest, PathNotFound
from dataset_store.storage.trees import StoredNodes, root_of

__all__ = [
    "EVERYTHING",
    "Selection",
    "entries_of",
    "holds_below",
    "parts_of",
    "plain_directory",
    "ranges_below",
    "read_at",
    "read_below",
    "selection_of",
]

_PART_BYTES = 512 << 20
"""Bytes of a part where nobody says how many there are; what ClearML puts into one archive by default."""


class Selection(Struct, frozen=True):
    """Which entries are meant. `files` are sorted; of `parts` shares, the one numbered `part` from 0."""

    files: tuple[str, ...] | None = None
    part: int = 0
    parts: int = 1

    @property
    def token(self) -> str:
        """Tells selections apart, in 32 hex digits; empty for everything."""
        if self == EVERYTHING:
            return ""
        return hash32(msgspec.json.encode([self.files, self.part, self.parts])).hex()[:32]


EVERYTHING = Selection()


def selection_of(files: Sequence[str] | str | None, part: int | None, parts: int | None, default: int) -> Selection:
    """What a caller selects; `default` is the number of parts where a part is asked for without one.

    Raises:
        InvalidRequest: There is no such part, or a number of parts without the part that is meant.
    """
    if part is None and parts is not None:
        raise InvalidRequest("A number of parts is given, and no part.", "Say which part is meant, counted from 0.")
    several = 1 if part is None else default if parts is None else parts
    number = part or 0
    if several < 1 or not 0 <= number < several:
        raise InvalidRequest(f"There is no part {number} of {several}.", "Parts are counted from 0.")
    named = [files] if isinstance(files, str) else files
    return Selection(None if named is None else tuple(sorted(set(named))), number, several)


def parts_of(size: int) -> int:
    """Into how many parts that many bytes are divided where nobody says."""
    return max(1, -(-size // _PART_BYTES))


def entries_of(tree: TreeRootRow, selected: Selection, nodes: StoredNodes) -> Entries:
    """The selected entries of a tree, with every segment list expanded.

    Raises:
        PathNotFound: A path that is no wildcard is not in the version.
        InvalidPath: A path is none.
    """
    root = root_of(tree)
    if selected == EVERYTHING:
        found = read_all(root, nodes)
    elif selected.files is None:
        found = read_share(root, selected.part, selected.parts, nodes)
    else:
        found = share_of(_named(root, selected.files, nodes), selected.part, selected.parts)
    return with_lists(found, nodes)


def _named(root: TreeRoot, files: Sequence[str], nodes: StoredNodes) -> Entries:
    """A path means the entry or the directory of that very name; only one that names neither can be a wildcard."""
    named = {to_key(path.strip("/")): path for path in files}
    entries = lookup(root, sorted(named), nodes)
    others = sorted(named.keys() - set(entries.keys))
    inside = read_below(root, others, nodes)
    neither = [named[key] for key in others if not holds_below(inside, key)]
    for path in neither:
        if not is_wildcard(path):
            raise PathNotFound(f"The version has no {path!r}.", "List its files; only a wildcard may find none.")
    meant = _matching(root, neither, nodes)
    return overlay(overlay(entries, Changes(inside, [])), Changes(meant, []))


def _matching(root: TreeRoot, patterns: Sequence[str], nodes: StoredNodes) -> Entries:
    """The entries that any of the wildcards means, read from the directories that they begin with."""
    directories = sorted({plain_directory(pattern) for pattern in patterns})
    rows = read_below(root, directories, nodes)
    texts = to_texts(rows.keys)
    meant = np.zeros(len(texts), np.bool_)
    for pattern in patterns:
        meant |= np.array(matching(texts, pattern), np.bool_)
    return rows.take(meant)


def read_at(root: TreeRoot, key: PathKey, nodes: StoredNodes) -> Entries:
    """The entry of a key, or those below it where it is a directory; all where it is the root."""
    if not key:
        return read_all(root, nodes)
    itself = lookup(root, [key], nodes)
    return itself if len(itself) else read_below(root, [key], nodes)


def read_below(root: TreeRoot, directories: Sequence[PathKey], nodes: StoredNodes) -> Entries:
    """The entries below any of the sorted directories."""
    return read_ranges(root, ranges_below(directories), nodes)


def ranges_below(directories: Sequence[PathKey]) -> list[KeyRange]:
    """The ranges of what lies below sorted directories; one that lies below another is in the other's."""
    if ROOT in directories:
        return [(ROOT, None)]
    ranges: list[tuple[PathKey, PathKey]] = []
    for key in directories:
        if not ranges or key >= ranges[-1][1]:
            ranges.append((PathKey(key + b"\0"), PathKey(key + b"\1")))
    return list(ranges)


def holds_below(entries: Entries, directory: PathKey) -> bool:
    """Whether any of the entries lies below a directory."""
    start, stop = entries.range_of(directory)
    return stop > start


def plain_directory(pattern: str) -> PathKey:
    """The directory that a wildcard begins with, below which all lies that it can mean; the root where it has none."""
    names = str(pattern).strip("/").split("/")[:-1]  # scripts give path objects too
    wild = next((at for at, name in enumerate(names) if is_wildcard(name)), len(names))
    try:
        return to_key("/".join(names[:wild])) if wild else ROOT
    except InvalidPath:
        return ROOT

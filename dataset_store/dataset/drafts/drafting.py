"""The files of a draft: synced, added, removed. Nothing here writes to the store."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from fnmatch import fnmatchcase
from itertools import compress

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.diff import Difference, diff_entries
from dataset_store.core.digest import VersionId
from dataset_store.core.entries import KIND_BITS, Changes, Entries, concat, overlay, same_identity, sort_rows
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import ROOT, PathKey, directory_key, portability_problems, starts_below, to_texts
from dataset_store.core.tree import lookup
from dataset_store.core.wildcards import globbed, matching
from dataset_store.dataset.entries.links import as_fetched, link_rows, links_of
from dataset_store.dataset.entries.selecting import holds_below, plain_directory, ranges_below, read_at, read_below
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.uploads.rechecking import base_is_live, lost_rows
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import InvalidRequest, PathNotFound
from dataset_store.local.draft_records import Lost, Source
from dataset_store.local.drafts import Draft
from dataset_store.local.folder import Folder, Later, Progress, Reading, read_file, read_folder
from dataset_store.local.scan import Scope
from dataset_store.storage.filesystems import scheme_of
from dataset_store.storage.trees import root_of

__all__ = ["Way", "add_path", "below_base", "current_entries", "keys_meant", "put_rows", "remove_paths", "sync"]

_log = logging.getLogger(__name__)


class Way(Struct, frozen=True):
    """How a folder is read: whether links to folders outside are followed, and by whose workers, if not here."""

    follow_links: bool = False
    executor: Executor | None = None


_HERE = Way()


def current_entries(workspace: Workspace, draft: Draft, below: PathKey = ROOT) -> Entries:
    """The entries of a draft as they are now, all or those below a directory (and the entry of that key itself)."""
    base = draft.opened.base
    held = read_at(root_of(base), below, workspace.store.nodes) if base is not None else Entries.empty()
    changes = draft.changes
    if below:
        start, stop = changes.entries.range_of(below)
        own = changes.entries.find(below)
        rows = concat([changes.entries.rows(own, own + 1)] if own is not None else [])
        inside = concat([rows, changes.entries.rows(start, stop)])
        changes = Changes(inside, [key for key in changes.removed if key == below or key.startswith(below + b"\0")])
    return overlay(held, changes)


def sync(
    workspace: Workspace,
    draft: Draft,
    folder: str,
    dataset_path: str | None,
    *,
    dry_run: bool = False,
    how: Way = _HERE,
) -> Difference:
    """Make the draft's entries below `dataset_path` those of a folder; what that changed, or would."""
    below = directory_key(dataset_path)
    if "\0" in folder:
        raise PathNotFound(f"There is nothing at {folder!r}.", "Give an existing folder.")
    with progress_bar("reading", None) as told:
        found = _read_folder(workspace, draft, os.path.abspath(folder), below, told, how)
    held = _as_read(draft, _replaced_by(workspace, draft, found.entries, below), found, below)
    found = replace(found, entries=as_fetched(held, found.entries, draft))
    difference = diff_entries(held, found.entries)
    if dry_run:
        return difference
    anew = _to_store_again(workspace, held, found.entries)
    _record(workspace, draft, _with_rows(difference.as_changes(), anew), found, below)
    _give_up(draft, [key for key in draft.lost if starts_below(key, below)])
    return difference


def _give_up(draft: Draft, keys: Sequence[PathKey]) -> None:
    """No longer wait for lost entries to be added again."""
    if keys:
        draft.append(Lost(sorted(draft.lost.difference(keys))))


def _read_folder(workspace: Workspace, draft: Draft, folder: str, below: PathKey, told: Progress, how: Way) -> Folder:
    """A folder without the store, where that lies in it."""
    scope = Scope(follow_links=how.follow_links, leave_out=workspace.own_folders())
    hands = Reading(how.executor, _later(workspace, draft, below))
    return read_folder(folder, below, workspace.stats, now_ns(), told, scope=scope, how=hands)


def _later(workspace: Workspace, draft: Draft, below: PathKey) -> Later:
    """Which files are read only when they are packed: those that certainly differ from what was there before.

    That is what neither the draft nor what it began with has, or only with another size. A file that was left unread
    before is so again while nobody touches it; one that was touched may be touched again, and is read now. The content
    of a file that is one chunk names that chunk, so it is read now too.
    """

    def may_wait(root: bytes, keys: Sequence[PathKey], sizes: I64, mtimes: I64) -> Bool:
        base, own = draft.opened.base, draft.changes.entries
        began = lookup(root_of(base), sorted(keys), workspace.store.nodes) if base is not None else Entries.empty()
        waits = np.ones(len(keys), np.bool_)
        for held in (began, draft.inherited.entries, own):
            waits &= ~held.have_sizes(keys, sizes.view(np.uint64))
        left, untouched = _left_unread(draft, Source(root, below, {}), keys, sizes, mtimes)
        return (waits & ~left) | untouched

    return Later(workspace.store.chunker.minimum, may_wait)


def _left_unread(draft: Draft, source: Source, keys: Sequence[PathKey], sizes: I64, mtimes: I64) -> tuple[Bool, Bool]:
    """Which of n files of a source the draft has left unread, and which of these nobody has touched since; (n,) each.

    Args:
        draft: The draft.
        source: The folder, and where its files go.
        keys: Of the files.
        sizes: As they are now, bytes.
        mtimes: As they are now, ns since 1970.
    """
    own = draft.changes.entries
    left, untouched = np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.bool_)
    at = own.find_many(keys)
    rows = np.flatnonzero(at >= 0)
    rows = rows[own.unread[at[rows]]]
    rows = rows[_come_from(draft, source, [keys[row] for row in rows.tolist()])]
    left[rows] = True
    at = at[rows]
    untouched[rows] = (own.sizes[at].view(np.int64) == sizes[rows]) & (own.mtimes[at] == mtimes[rows])
    return left, untouched


def _as_read(draft: Draft, held: Entries, found: Folder, below: PathKey) -> Entries:
    """The draft's rows, with the contents of files that it left unread and that somebody has read since, untouched."""
    rows = np.flatnonzero(held.unread)
    at = found.entries.find_many([held.keys[row] for row in rows.tolist()])
    rows, at = rows[at >= 0], at[at >= 0]
    keys = [held.keys[row] for row in rows.tolist()]
    sizes, mtimes = found.entries.sizes[at].view(np.int64), found.entries.mtimes[at]
    _, same = _left_unread(draft, Source(found.root, below, {}), keys, sizes, mtimes)
    if not same.any():
        return held
    content_ids = held.content_ids.copy()
    content_ids[rows[same]] = found.entries.content_ids[at[same]]
    return replace(held, content_ids=content_ids)


def _come_from(draft: Draft, source: Source, keys: Sequence[PathKey]) -> Bool:
    """Which files of a draft are the very files that a source has; shape (n,)."""
    known = draft.known_sources(keys)
    pairs = zip(known, keys, strict=True)
    same = [each is not None and each.path_of(key) == source.path_of(key) for each, key in pairs]
    return np.array(same, np.bool_)


def _replaced_by(workspace: Workspace, draft: Draft, rows: Entries, below: PathKey) -> Entries:
    """The draft's entries whose place `rows` take: those below the directory, and files that stand where it must be."""
    inside = current_entries(workspace, draft, below)
    if not below or not len(rows):
        return inside
    # At most one entry lies above, and its key comes before all keys below it.
    return concat([_entries_at(workspace, draft, _directories_above(below)), inside])


def add_path(
    workspace: Workspace,
    draft: Draft,
    path: str,
    wildcards: Sequence[str],
    dataset_path: str | None,
    *,
    recursive: bool,
    how: Way = _HERE,
) -> tuple[int, Difference]:
    """Add a file, or the files of a folder, to the draft: how many matched, and what that changed.

    Only what is in the way is removed.
    """
    below = directory_key(dataset_path)
    absolute = os.path.abspath(path)
    if os.path.isdir(absolute):
        with progress_bar("reading", None) as told:
            found = _read_folder(workspace, draft, absolute, below, told, how)
        rows = found.entries.take(_selected(found.entries, below, wildcards, recursive=recursive))
    else:
        found = read_file(absolute, below, workspace.stats, now_ns(), Reading(later=_later(workspace, draft, below)))
        rows = found.entries
    return len(rows), put_rows(workspace, draft, replace(found, entries=rows), below)


def put_rows(workspace: Workspace, draft: Draft, found: Folder, below: PathKey) -> Difference:
    """Add or replace entries of the draft; what that changed. Only what is in the way is removed."""
    rows = _without_held_directories(workspace, draft, found.entries)
    held = _as_read(draft, _entries_at(workspace, draft, rows.keys), replace(found, entries=rows), below)
    difference = diff_entries(held, rows)
    blocked = _in_the_way(workspace, draft, difference.added.keys)
    changes = _with_rows(difference.as_changes(), _to_store_again(workspace, held, rows))
    _record(workspace, draft, Changes(changes.entries, sorted(blocked)), found, below)
    return Difference(Entries.empty(), difference.added, difference.modified_old, difference.modified_new)


def _without_held_directories(workspace: Workspace, draft: Draft, rows: Entries) -> Entries:
    """The rows but for empty directories below which the draft holds entries: there they are, and not empty."""
    empty = np.flatnonzero((rows.kinds & KIND_BITS) == Kind.DIRECTORY).tolist()
    below = _held_below(workspace, draft, [rows.keys[row] for row in empty])
    held = {row for row in empty if holds_below(below, rows.keys[row])}
    return rows.take(np.array([row not in held for row in range(len(rows))], np.bool_)) if held else rows


def _selected(entries: Entries, below: PathKey, wildcards: Sequence[str], *, recursive: bool) -> Bool:
    skip = len(below) + 1 if below else 0
    texts = to_texts([PathKey(key[skip:]) for key in entries.keys])
    meant = np.zeros(len(texts), np.bool_) if wildcards else np.ones(len(texts), np.bool_)
    for wildcard in wildcards:
        meant |= np.array(globbed(texts, wildcard, recursive=recursive), np.bool_)
    if not wildcards and not recursive:
        meant &= np.array(["/" not in text for text in texts], np.bool_)
    return meant


def _entries_at(workspace: Workspace, draft: Draft, keys: Sequence[PathKey]) -> Entries:
    """The draft's rows under these sorted keys."""
    base = draft.opened.base
    held = lookup(root_of(base), keys, workspace.store.nodes) if base is not None else Entries.empty()
    at = draft.changes.entries.find_many(keys)
    return overlay(held, Changes(draft.changes.entries.take(at[at >= 0]), draft.changes.removed))


def _in_the_way(workspace: Workspace, draft: Draft, added: Sequence[PathKey]) -> set[PathKey]:
    """Entries that added keys make impossible: files (or empty directories) above them, and entries below them."""
    above = {directory for key in added for directory in _directories_above(key)}
    blocked = set(_entries_at(workspace, draft, sorted(above - set(added))).keys)
    blocked.update(_held_below(workspace, draft, added).keys)
    return blocked - set(added)


def _directories_above(key: PathKey) -> list[PathKey]:
    """The keys of all directories above a key, in order."""
    parts = key.split(b"\0")
    return [PathKey(b"\0".join(parts[:depth])) for depth in range(1, len(parts))]


def _held_below(workspace: Workspace, draft: Draft, keys: Sequence[PathKey]) -> Entries:
    """What the draft holds below any of these sorted keys."""
    base, own = draft.opened.base, draft.changes.entries
    held = read_below(root_of(base), keys, workspace.store.nodes) if base is not None else Entries.empty()
    bounds = [own.range_between(*some) for some in ranges_below(keys)]
    changed = concat([own.rows(start, stop) for start, stop in bounds if stop > start])
    return overlay(held, Changes(changed, draft.changes.removed)) if len(held) or len(changed) else held


def remove_paths(workspace: Workspace, draft: Draft, pattern: str, *, recursive: bool) -> int:
    """Remove the entries that a wildcard or directory means, or the links whose URL one means; how many."""
    below = ROOT if scheme_of(pattern) else plain_directory(pattern)
    (keys,) = keys_meant(workspace, draft, current_entries(workspace, draft, below), [pattern], recursive=recursive)
    if keys:
        _record(workspace, draft, Changes(Entries.empty(), keys), None, ROOT)
    lost = sorted(draft.lost)
    given_up = list(compress(lost, matching(to_texts(lost), pattern, recursive=recursive)))
    _give_up(draft, given_up)
    return len(keys) + len(given_up)


def keys_meant(
    workspace: Workspace, draft: Draft, entries: Entries, patterns: Sequence[str], *, recursive: bool
) -> list[list[PathKey]]:
    """For each wildcard, directory or URL of links the keys of the draft's entries that it means."""
    texts = to_texts(entries.keys)
    rows = link_rows(entries).tolist() if any(map(scheme_of, patterns)) else []
    urls = [link.url for link in links_of(workspace, entries, rows, draft)]

    def meant(pattern: str) -> list[PathKey]:
        if scheme_of(pattern):
            return [entries.keys[row] for row, url in zip(rows, urls, strict=True) if fnmatchcase(url, pattern)]
        return list(compress(entries.keys, matching(texts, pattern, recursive=recursive)))

    return [meant(pattern) for pattern in patterns]


def _record(workspace: Workspace, draft: Draft, changes: Changes, found: Folder | None, below: PathKey) -> None:
    """Add changes to the draft, rows as introduced by it."""
    if not len(changes):
        return
    _warn_of_names(changes.entries.keys)
    rows = changes.entries
    if len(rows):
        rows = _as_in_base(workspace, draft, rows.with_origin(VersionId(bytes.fromhex(draft.opened.id))))
    source = None
    if found is not None:
        links = {key: text for key, text in found.links.items() if rows.find(key) is not None}
        source = Source(found.root, below, links)
    draft.change(Changes(rows, changes.removed), source)


def _to_store_again(workspace: Workspace, held: Entries, rows: Entries) -> Entries:
    """Those of the rows that the draft holds as they are, but of which the store has lost bytes.

    Not links: a folder has the file that a link leads to, and not what is stored of it.
    """
    lost = held.take(lost_rows(workspace, held) & ((held.kinds & KIND_BITS) != Kind.EXTERNAL))
    there = rows.find_many(lost.keys)
    found = np.flatnonzero(there >= 0)
    again = rows.take(np.sort(there[found[same_identity(lost, found, rows, there[found])]]))
    if len(again):
        _log.warning(
            "The store lost bytes of the frames that hold %d unchanged files; these are stored again.", len(again)
        )
    return again


def _with_rows(changes: Changes, more: Entries) -> Changes:
    return Changes(sort_rows(concat([changes.entries, more])), changes.removed) if len(more) else changes


def _as_in_base(workspace: Workspace, draft: Draft, rows: Entries) -> Entries:
    """Rows, where one is again what the base holds, as the base holds it: then it is no change and has its segments."""
    base = draft.opened.base
    if base is None or not len(rows) or not _base_lives(workspace, draft):
        return rows
    held = lookup(root_of(base), rows.keys, workspace.store.nodes)
    at = rows.find_many(held.keys)
    same = same_identity(rows, at, held, np.arange(len(held))) & ~lost_rows(workspace, held)
    if not same.any():
        return rows
    keep = np.ones(len(rows), np.bool_)
    keep[at[same]] = False
    return sort_rows(concat([rows.take(keep), held.take(same)]))


def _base_lives(workspace: Workspace, draft: Draft) -> bool:
    """Whether the base's version lives by what this process knows, or else by what the log says now."""
    if base_is_live(workspace, draft):
        return True
    workspace.refresh()  # a draft is opened by its id without asking the store
    return base_is_live(workspace, draft)


def _warn_of_names(keys: Sequence[PathKey]) -> None:
    problems = portability_problems(keys)
    for problem in problems[:5]:
        _log.warning("Some systems cannot hold these names: %s", problem)
    if len(problems) > 5:
        _log.warning("… and %d more of this kind.", len(problems) - 5)


def below_base(source: str, base: str | None, dataset_path: str | None) -> str | None:
    """The dataset directory of files whose paths are to be relative to `base`."""
    if base is None:
        return dataset_path
    start = source if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
    inside = os.path.relpath(os.path.abspath(start), os.path.abspath(base))
    if inside == os.pardir or inside.startswith(os.pardir + os.sep):
        raise InvalidRequest(f"{source!r} is not inside {base!r}.", "local_base_folder must hold the path.")
    return os.path.normpath(os.path.join((dataset_path or "").strip("/"), inside))

"""External links: their records, what they lead to, and what a folder that holds it says of them.

A link's record (`core/links.py`) is stored like a short file; what it leads to is read only where a folder or a file
object is asked for, and is checked then. Where a row's content id is the hash of its record, the file's own bytes are
not known: then size and etag tell whether it is still the same.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Any

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import Bool, Rows, np
from dataset_store.core.digest import hash32, rows_digest
from dataset_store.core.entries import KIND_BITS, ONE_CHUNK, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.links import Link, decode_link, encode_link
from dataset_store.core.paths import to_text
from dataset_store.core.segments import segments_of
from dataset_store.dataset.entries.contents import stored_contents
from dataset_store.dataset.entries.listing import Described
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import ExternalFileChanged, PathNotFound
from dataset_store.local.drafts import Draft
from dataset_store.storage.remote_objects import describe_object, read_object

__all__ = [
    "LinkEntry",
    "as_fetched",
    "as_linked",
    "as_stored",
    "fetcher",
    "known_content",
    "link_entries",
    "link_rows",
    "links_of",
    "open_link",
    "with_records",
]

_IN_MEMORY_BYTES = 64 << 20


class LinkEntry(Described, Struct, frozen=True):
    """One external link of a version: a value, which cannot be changed.

    It has the attributes of ClearML's `LinkEntry`, and more.

    Attributes:
        link: The URL.
        relative_path: Its path in the version; bytes that are not UTF-8 are surrogate escapes.
        parent_dataset_id: The version that introduced it.
        size: Of the file it leads to, in bytes.
        hash: The content id of the file's bytes in hex; None where they were not read.
        etag: What its source tells its states apart by.
    """

    link: str
    relative_path: str
    parent_dataset_id: str
    size: int
    hash: str | None
    etag: str | None
    _more = ("etag",)

    def as_dict(self) -> dict[str, Any]:
        """What ClearML's `LinkEntry` says of itself, by name."""
        return {
            "link": self.link,
            "relative_path": self.relative_path,
            "parent_dataset_id": self.parent_dataset_id,
            "size": self.size,
            "hash": self.hash,
        }


# --- records ---------------------------------------------------------------------------------------------------------


def link_rows(entries: Entries) -> Rows:
    """The rows that are external links."""
    return np.flatnonzero((entries.kinds & KIND_BITS) == Kind.EXTERNAL)


def links_of(workspace: Workspace, entries: Entries, rows: Sequence[int], draft: Draft | None = None) -> list[Link]:
    """The records of rows that are external links: from the store, or where they are not there yet from the draft.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    counts = entries.segment_counts
    stored = [row for row in rows if counts[row]]
    found = dict(zip(stored, stored_contents(workspace, entries, stored), strict=True))
    pending = [row for row in rows if not counts[row]]
    if draft is not None and pending:
        keys = [entries.keys[row] for row in pending]
        sources = draft.sources_of(keys)
        found.update((row, source.links[key]) for row, key, source in zip(pending, keys, sources, strict=True))
    return [decode_link(found[row], what=f"The link {to_text(entries.keys[row])!r}") for row in rows]


def link_entries(workspace: Workspace, entries: Entries, draft: Draft | None = None) -> list[LinkEntry]:
    """One object for each external link, in the order of the tree."""
    rows = link_rows(entries).tolist()
    links = links_of(workspace, entries, rows, draft)
    return [
        LinkEntry(
            link=link.url,
            relative_path=to_text(entries.keys[row]),
            parent_dataset_id=entries.origin_ids[int(entries.origins[row])].hex(),
            size=link.size,
            hash=content.hex() if (content := known_content(entries, row, link)) else None,
            etag=link.etag,
        )
        for row, link in zip(rows, links, strict=True)
    ]


def known_content(entries: Entries, row: int, link: Link) -> bytes | None:
    """The hash of the file's own bytes, where it was read when the link was added."""
    content = entries.content_ids[row].tobytes()
    return None if content == hash32(encode_link(link)) else content


# --- uploading -------------------------------------------------------------------------------------------------------


def as_stored(pending: Entries, draft: Draft) -> Entries:
    """Pending rows with size and content id of what is stored of them: of a link its record, else unchanged."""
    rows = link_rows(pending).tolist()
    keys = [pending.keys[row] for row in rows]
    records = [source.links[key] for key, source in zip(keys, draft.sources_of(keys), strict=True)] if rows else []
    return with_records(pending, rows, records)


def with_records(entries: Entries, rows: Sequence[int], records: Sequence[bytes]) -> Entries:
    """The same entries, with size and content id of their records in place of those of the links in `rows`."""
    if not rows:
        return entries
    sizes, content_ids = entries.sizes.copy(), entries.content_ids.copy()
    sizes[rows] = [len(record) for record in records]
    content_ids[rows] = np.frombuffer(b"".join(map(hash32, records)), np.uint8).reshape(-1, 32)
    return replace(entries, sizes=sizes, content_ids=content_ids)


def as_linked(stored: Entries, pending: Entries) -> Entries:
    """Rows of `as_stored` that have their segments, with their own sizes and content ids again."""
    rows = link_rows(stored)
    if not len(rows):
        return stored
    segments, kinds = stored.segments, stored.kinds.copy()
    one = rows[(kinds[rows] & ONE_CHUNK) != 0]
    digests = segments.digest.copy()
    for row in one.tolist():
        record = stored.content_ids[row].tobytes()
        digests[stored.segment_ends[row] - 1] = np.frombuffer(rows_digest([record], [int(stored.sizes[row])]), np.uint8)
    kinds[one] &= np.uint8(0xFF ^ ONE_CHUNK)
    sizes, content_ids = stored.sizes.copy(), stored.content_ids.copy()
    sizes[rows], content_ids[rows] = pending.sizes[rows], pending.content_ids[rows]
    return replace(
        stored,
        kinds=kinds,
        sizes=sizes,
        content_ids=content_ids,
        segments=replace(segments, digest=digests),
    )


# --- comparing with folders ------------------------------------------------------------------------------------------


def as_fetched(held: Entries, found: Entries, draft: Draft | None = None) -> Entries:
    """`found` of a folder, with the links of `held` in place of files that are what those lead to, as far as is known.

    A file is that where the link's content id is its own; where that is unknown, if it has the size and the time that
    a copy gives it. `draft` is that of links which are not uploaded yet.
    """
    rows = link_rows(held)
    if not len(rows):
        return found
    there = found.find_many([held.keys[row] for row in rows.tolist()])
    rows, there = rows[there >= 0], there[there >= 0]
    is_file = (found.kinds[there] & KIND_BITS) == Kind.FILE
    same_content = (held.content_ids[rows] == found.content_ids[there]).all(axis=1)
    same = is_file & (held.sizes[rows] == found.sizes[there])
    same &= same_content | (~_contents_known(held, rows, draft) & (held.mtimes[rows] == found.mtimes[there]))
    if not same.any():
        return found
    kinds, content_ids, mtimes = found.kinds.copy(), found.content_ids.copy(), found.mtimes.copy()
    kinds[there[same]] = Kind.EXTERNAL
    content_ids[there[same]] = held.content_ids[rows[same]]
    mtimes[there[same]] = held.mtimes[rows[same]]
    return replace(found, kinds=kinds, content_ids=content_ids, mtimes=mtimes)


def _contents_known(entries: Entries, rows: Rows, draft: Draft | None) -> Bool:
    """Whether content ids of links are those of the files' own bytes."""
    known = np.zeros(len(rows), np.bool_)
    counts = entries.segment_counts
    for at, row in enumerate(rows.tolist()):
        if counts[row]:
            some = segments_of(entries, row)
            record = rows_digest([entries.content_ids[row].tobytes()], [some[0].plain_length])
            known[at] = len(some) > 1 or some[0].digest != record
    pending = [(at, row) for at, row in enumerate(rows.tolist()) if not counts[row]]
    if draft is not None and pending:
        keys = [entries.keys[row] for _, row in pending]
        for (at, row), key, source in zip(pending, keys, draft.sources_of(keys), strict=True):
            known[at] = hash32(source.links[key]) != entries.content_ids[row].tobytes()
    return known


# --- fetching --------------------------------------------------------------------------------------------------------


def fetcher(workspace: Workspace, entries: Entries, done: Bool) -> Callable[[int, Callable[[bytes], object]], None]:
    """A function that hands the file of a row, checked at its end, to a writer; their records are read at once."""
    rows = [row for row in link_rows(entries).tolist() if not done[row]]
    links = dict(zip(rows, links_of(workspace, entries, rows), strict=True))

    def fetch(row: int, write: Callable[[bytes], object]) -> None:
        _fetch(links[row], known_content(entries, row, links[row]), to_text(entries.keys[row]), write)

    return fetch


def open_link(workspace: Workspace, entries: Entries, row: int) -> IO[bytes]:
    """The file of a link, fetched and checked, as a file object: in memory, or if large in a temporary file."""
    (link,) = links_of(workspace, entries, [row])
    file: IO[bytes] = tempfile.TemporaryFile() if link.size > _IN_MEMORY_BYTES else io.BytesIO()  # noqa: SIM115
    _fetch(link, known_content(entries, row, link), to_text(entries.keys[row]), file.write)
    file.seek(0)
    return file


def _fetch(link: Link, content: bytes | None, path: str, write: Callable[[bytes], object]) -> None:
    """Read what a link leads to.

    Raises:
        ExternalFileChanged: It is not what was linked, or is gone.
    """
    whole = blake3()

    def take(piece: bytes) -> None:
        if content is not None:
            whole.update(piece)
        write(piece)

    try:
        size = read_object(link.url, link.size, take)
        if content is not None:
            same = size == link.size and whole.digest() == content
        else:
            # Asked for after the bytes were read: a change before now shows in it.
            now = describe_object(link.url)
            same = (size, now.size, now.etag) == (link.size, link.size, link.etag)
    except PathNotFound as error:
        raise _changed(path, link.url, "is gone") from error
    if not same:
        raise _changed(path, link.url, "is not the file that was linked")


def _changed(path: str, url: str, what: str) -> ExternalFileChanged:
    return ExternalFileChanged(
        f"{path!r} cannot be had: {url} {what}.",
        "Bring the file back, or make a version with a new link; nothing wrong was handed out.",
    )

"""Verifying: is what the store holds of a version sound, and does a folder agree with it?

Nothing that this machine keeps is trusted: neither cached nodes nor the stat cache.
"""

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from threading import local

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import Rows, np
from dataset_store.core.catalog import Version
from dataset_store.core.diff import diff_entries
from dataset_store.core.digest import hash32, rows_digest
from dataset_store.core.entries import KIND_BITS, LISTED, ONE_CHUNK, Entries, make_entries, sort_rows
from dataset_store.core.frames import Frame, FrameCodec, FrameKind, require
from dataset_store.core.kinds import Kind
from dataset_store.core.log_entries import Blob, TreeRootRow
from dataset_store.core.packfile import PackRef, Place, pack_key
from dataset_store.core.paths import ROOT, to_text, to_texts
from dataset_store.core.segments import Segment, decode_segment_list, segments_of
from dataset_store.core.tree import read_all
from dataset_store.dataset.annotations.blobs import read_blob
from dataset_store.dataset.checks.asking import BrokenLink, broken_links
from dataset_store.dataset.checks.surviving import Lost, SurvivingPacks, read_surviving
from dataset_store.dataset.entries.links import as_fetched, link_rows
from dataset_store.dataset.progress import Told, progress_bar
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import Corrupt, CorruptObject, NotFinal
from dataset_store.local.drafts import Draft
from dataset_store.local.folder import read_folder
from dataset_store.local.reading import default_workers
from dataset_store.local.scan import EVERYTHING, Scope, scan
from dataset_store.local.stat_cache import StatCache
from dataset_store.storage.blobs import packs_of
from dataset_store.storage.trees import NoKeeper, StoredNodes, place_of, root_of

__all__ = ["Damage", "FolderReport", "StoreReport", "compare_folder", "verify_folder", "verify_stored"]

_UNIT_BYTES = 4 * 2**20


class Damage(Struct, frozen=True):
    """Something of a version that the store does not hold as it must.

    Attributes:
        path: The entry; empty where it is none, such as a pack.
        problem: What is wrong.
        kind: Of the error, a stable name.
    """

    path: str
    problem: str
    kind: str


class StoreReport(Struct, frozen=True):
    """What was checked of a version, and what is wrong with it.

    Attributes:
        entries: Those that could be listed.
        bytes: That they hold in the store: what external links lead to does not count.
        packs: Those in which their contents lie.
        damaged: By path.
        lost: What could not be listed.
        links: How many of the entries are external links.
        broken: Links whose files are not what they were; None where no source was asked.
    """

    entries: int
    bytes: int
    packs: int
    damaged: tuple[Damage, ...]
    lost: tuple[Lost, ...]
    links: int
    broken: tuple[BrokenLink, ...] | None

    @property
    def sound(self) -> bool:
        """Whether the store holds the whole version."""
        return not (self.damaged or self.lost)


class FolderReport(Struct, frozen=True):
    """How a folder differs from a version: paths, sorted. `entries` is what the version holds."""

    entries: int
    missing: tuple[str, ...]
    modified: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether the folder holds exactly the version."""
        return not (self.missing or self.modified or self.extra)


# --- verifying a folder ------------------------------------------------------------------------------------------


def verify_folder(workspace: Workspace, version_id: str, folder: str, *, sizes_only: bool = False) -> FolderReport:
    """Compare what a folder holds with a version, by kind, size and content id; the exec bit does not count.

    Every file is read, whatever this machine remembers of it; with `sizes_only` none is.

    Raises:
        DatasetNotFound, NotFinal: There is no such final version.
        PathNotFound, AccessDenied, FileChanged: The folder cannot be read.
    """
    wanted = _contents(_entries(workspace, version_id))
    found = _scan_folder(folder) if sizes_only else _contents(_read_folder(folder))
    if sizes_only:
        links = (wanted.kinds == Kind.EXTERNAL).astype(np.uint8)
        kinds = np.where(links, np.uint8(Kind.FILE), wanted.kinds)
        return _report(replace(wanted, kinds=kinds, content_ids=np.zeros_like(wanted.content_ids)), found)
    return _report(wanted, as_fetched(wanted, found))


def compare_folder(workspace: Workspace, entries: Entries, folder: str, draft: Draft | None = None) -> FolderReport:
    """What a folder changes in some entries, as a sync would see it: files known to this machine are not opened.

    Raises:
        PathNotFound, AccessDenied, FileChanged: The folder cannot be read.
    """
    with progress_bar("reading", None) as told:
        scope = Scope(leave_out=workspace.own_folders())
        found = read_folder(os.path.abspath(folder), ROOT, workspace.stats, now_ns(), told, scope=scope).entries
    return _report(entries, as_fetched(entries, found, draft))


def _report(wanted: Entries, found: Entries) -> FolderReport:
    difference = diff_entries(wanted, found)
    return FolderReport(
        entries=len(wanted),
        missing=_paths(difference.removed),
        modified=_paths(difference.modified_new),
        extra=_paths(difference.added),
    )


def _entries(workspace: Workspace, version_id: str) -> Entries:
    return read_all(root_of(_final(workspace, version_id).entry.tree), workspace.store.nodes)


def _final(workspace: Workspace, version_id: str) -> Version:
    version = workspace.catalog.version(version_id)
    if version is None and workspace.draft(version_id) is not None:
        raise NotFinal(f"The version {version_id} is not final.", "Upload and finalize it first.")
    return workspace.version(version_id)


def _contents(entries: Entries) -> Entries:
    """The same rows without bits that say nothing of the content."""
    return replace(entries, kinds=entries.kinds & np.uint8(KIND_BITS))


def _paths(entries: Entries) -> tuple[str, ...]:
    return tuple(to_texts(entries.keys))


def _read_folder(folder: str) -> Entries:
    """The rows of a folder, every file read, as by a machine that remembers nothing."""
    with tempfile.TemporaryDirectory(prefix="dataset-store-") as blank, progress_bar("reading", None) as told:
        return read_folder(os.path.abspath(folder), ROOT, StatCache(blank), now_ns(), told, scope=EVERYTHING).entries


def _scan_folder(folder: str) -> Entries:
    """The rows of a folder, no file opened: without content ids."""
    blocks = list(scan(os.path.abspath(folder)))
    if not blocks:
        return Entries.empty()
    kinds = np.concatenate([block.kind for block in blocks])
    sizes = np.where(kinds == Kind.DIRECTORY, 0, np.concatenate([block.size for block in blocks]))
    keys = list(chain.from_iterable(block.keys() for block in blocks))
    return sort_rows(make_entries(keys, kinds, sizes.astype(np.uint64)))


# --- verifying what the store holds ------------------------------------------------------------------------------


def verify_stored(
    workspace: Workspace, version_id: str, *, ask_links: bool = False, show_progress: bool = False
) -> StoreReport:
    """Read every byte that a version needs from the store, and check it against its hash.

    Nodes, segment lists, chunks, whole files, and the footers of the packs are checked; caches are passed by. What is
    damaged or lost is told, and does not end the check.

    Args:
        workspace: The store.
        version_id: A final version.
        ask_links: Ask the sources of external links whether what these lead to is what it was.
        show_progress: Show bars.

    Raises:
        DatasetNotFound, NotFinal: There is no such final version.
        HistoryRewound: The log lacks its last entry that this machine has seen, or has another there.
        StorageFailed: The store cannot be read now; nothing is known to be damaged.
    """
    workspace.store.catalog.require_standing()
    version = _final(workspace, version_id)
    packs, tree, stats = SurvivingPacks(workspace.store), version.entry.tree, version.entry.stats
    nodes = StoredNodes(workspace.store.packs, NoKeeper())
    left = read_surviving(root_of(tree), stats.files, stats.bytes, nodes, packs)
    entries = left.entries
    total = int(entries.sizes[(entries.kinds & KIND_BITS) != Kind.EXTERNAL].sum(dtype=np.uint64))
    files = int(((entries.kinds & KIND_BITS) != Kind.DIRECTORY).sum())
    with progress_bar("verifying", total, files, show=show_progress) as told:
        check = _Check(packs, entries, told)
        check.census(tree)
        check.contents()
        named = check.footers()
        for name, piece in version.metadata.items():
            if isinstance(piece, Blob):
                check.blob(name, piece, workspace)
    damaged = tuple(sorted(set(check.damaged), key=lambda one: (one.path, one.problem)))
    return StoreReport(
        entries=len(entries),
        bytes=total,
        packs=named,
        damaged=damaged,
        lost=left.lost,
        links=len(link_rows(entries)),
        broken=_ask(workspace, entries, damaged, show_progress=show_progress) if ask_links else None,
    )


def _ask(
    workspace: Workspace, entries: Entries, damaged: Sequence[Damage], *, show_progress: bool
) -> tuple[BrokenLink, ...]:
    """The links that lead astray; those whose own records are damaged lead nowhere."""
    paths = {one.path for one in damaged}
    rows = [row for row in link_rows(entries).tolist() if to_text(entries.keys[row]) not in paths]
    return broken_links(workspace, entries, rows, show_progress=show_progress)


Unit = Callable[[], list[Damage]]


class _Check:
    """One version being checked. Units may run in any thread; each tells what it found damaged and goes on."""

    def __init__(self, packs: SurvivingPacks, entries: Entries, told: Told) -> None:
        self.packs = packs
        self.entries = entries
        self.told = told
        self.damaged: list[Damage] = []
        self.listed: set[PackRef] = set()
        self.threads = _Codecs()

    def census(self, tree: TreeRootRow) -> None:
        """The frame that tells where the nodes are."""
        place, digest = place_of(tree.census.place), bytes.fromhex(tree.census.id)
        read = self.packs.store.packs.read_whole
        self._note("", self.packs.each([(place, digest)], lambda one: one[0].pack, partial(read, FrameKind.CENSUS)))

    def contents(self) -> None:
        """What every entry holds."""
        with ThreadPoolExecutor(default_workers(), "verify") as pool:
            try:
                for found in pool.map(lambda unit: unit(), self.units()):
                    self.damaged += found
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def footers(self) -> int:
        """The footers of all packs that the version names, lists included once these are read; how many packs."""
        table = self.entries.segments.packs
        named = self.listed.union(table[row] for row in np.unique(self.entries.segments.pack).tolist())
        read = self.packs.store.packs.read_footers
        self._note("", self.packs.each(sorted(named), lambda pack: pack, read))
        return len(named)

    def blob(self, name: str, piece: Blob, workspace: Workspace) -> None:
        """A piece of metadata that is kept in packs."""
        pack = min(packs_of(piece))
        found = self.packs.each([piece], lambda _: pack, lambda some: [read_blob(workspace, one) for one in some])
        self._note(f"metadata {name!r}", found)

    def _note(self, path: str, found: Sequence[object]) -> None:
        self.damaged += [_damage(path, one) for one in found if isinstance(one, Corrupt)]

    def units(self) -> Iterator[Unit]:
        """Work that covers every entry."""
        kinds = self.entries.kinds & KIND_BITS
        has_content = kinds != Kind.DIRECTORY
        one_chunk = (self.entries.kinds & ONE_CHUNK) != 0
        for rows in self._by_frame(np.flatnonzero(has_content & one_chunk)):
            yield partial(self.check_small, rows)
        for row in np.flatnonzero(has_content & ~one_chunk).tolist():
            yield partial(self.check_large, row)

    def _by_frame(self, rows: Rows) -> Iterator[list[int]]:
        """Rows of one-chunk contents in the order of their places, some MiB at a time."""
        firsts = self.entries.segment_ends[rows] - 1
        segments = self.entries.segments
        rows = rows[np.lexsort((segments.offset[firsts], segments.pack[firsts]))]
        unit = np.cumsum(self.entries.sizes[rows]) // _UNIT_BYTES
        for part in np.split(rows, np.flatnonzero(np.diff(unit)) + 1):
            if len(part):
                yield part.tolist()

    def check_small(self, rows: Sequence[int]) -> list[Damage]:
        """Contents of one chunk: each frame is read and decoded once."""
        by_frame: defaultdict[Place, list[tuple[int, Segment]]] = defaultdict(list)
        for row in rows:
            segment = segments_of(self.entries, row)[0]
            by_frame[segment.place].append((row, segment))
        damaged: list[Damage] = []
        for (place, pieces), data in zip(by_frame.items(), self.packs.read_frames(list(by_frame)), strict=True):
            damaged += self._check_frame(place, pieces, data)
        self.told(len(rows), int(self.entries.sizes[list(rows)].sum()))
        return damaged

    def _check_frame(
        self, place: Place, pieces: Sequence[tuple[int, Segment]], stored: memoryview | Corrupt
    ) -> list[Damage]:
        try:
            frame = self.threads.codec.decode_frame(_whole(stored), what=_named(place))
        except Corrupt as error:
            return [_damage(self._path(row), error) for row, _ in pieces]
        return [damage for row, segment in pieces for damage in self._check_piece(frame, row, segment)]

    def _check_piece(self, frame: Frame, row: int, segment: Segment) -> list[Damage]:
        content = frame.plain[segment.plain_offset : segment.plain_offset + segment.plain_length]
        if len(content) == self.entries.sizes[row] and hash32(content) == self._content_id(row):
            return []
        problem = f"It is not what pack {segment.pack.name.hex()} holds at {segment.offset}."
        return [Damage(self._path(row), problem, CorruptObject.kind)]

    def check_large(self, row: int) -> list[Damage]:
        """A content of several chunks, or of none: its segments one after another, and the hash of the whole."""
        try:
            self._check_large(row)
        except Corrupt as error:
            return [_damage(self._path(row), error)]
        finally:
            self.told(1, 0)
        return []

    def _check_large(self, row: int) -> None:
        whole = blake3()
        is_link = (self.entries.kinds[row] & KIND_BITS) == Kind.EXTERNAL
        for segment in self._segments(row):
            self._check_segment(segment, whole)
            self.told(0, 0 if is_link else segment.plain_length)
        if is_link:
            return  # what is stored is its record, and the digests of its segments pin that
        require(whole.digest() == self._content_id(row), "The file", "does not have its content id")

    def _segments(self, row: int) -> list[Segment]:
        rows = segments_of(self.entries, row)
        if not self.entries.kinds[row] & LISTED:
            return rows
        place = Place(rows[0].pack, rows[0].offset, rows[0].stored, rows[0].plain_length)
        data = self._stored(place)
        plain = self.threads.codec.decode_whole(data, FrameKind.LIST, rows[0].digest, what=_named(place))
        listed = decode_segment_list(plain, int(self.entries.sizes[row]), what=_named(place))
        self.listed.update(listed.packs)
        ends = np.array([len(listed)], np.int64)
        one = replace(self.entries.rows(row, row + 1), segments=listed, segment_ends=ends)
        return segments_of(one, 0)

    def _check_segment(self, segment: Segment, whole: blake3) -> None:
        """Hash one run of chunks, a frame at a time; `whole` is told of its bytes."""
        place = segment.place
        frames = self.threads.codec.decode_frames(self._stored(place), what=_named(place))
        ids, lengths, at = [], [], 0
        for chunk in (chunk for frame in frames for chunk in frame.chunks()):
            if segment.plain_offset <= at < segment.plain_offset + segment.plain_length:
                whole.update(chunk)
                ids.append(hash32(chunk))
                lengths.append(len(chunk))
            at += len(chunk)
        same = sum(lengths) == segment.plain_length and rows_digest(ids, lengths) == segment.digest
        require(same, _named(place), "holds other bytes than the segment's digest says")

    def _stored(self, place: Place) -> memoryview:
        return _whole(self.packs.read_frames([place])[0])

    def _path(self, row: int) -> str:
        return to_text(self.entries.keys[row])

    def _content_id(self, row: int) -> bytes:
        return bytes(self.entries.content_ids[row])


class _Codecs(local):
    """A codec for each thread."""

    def __init__(self) -> None:
        self.codec = FrameCodec()


def _whole(found: memoryview | Corrupt) -> memoryview:
    if isinstance(found, Corrupt):
        raise found
    return found


def _damage(path: str, error: Corrupt) -> Damage:
    return Damage(path, error.what, error.kind)


def _named(place: Place) -> str:
    return f"The frame at {place.offset} of {pack_key(place.pack.name)}"

"""Repair: what a store has lost is put back from wherever its bytes still are, and what stays lost is told exactly.

Each lost or damaged pack is taken in turn. Its intact frames are copied; of the others every chunk is looked for in
the local copies and caches of this machine, in folders and in another store that are named. A frame comes back only
with exactly the chunks that it had: ids and digests that live versions hold decide, or the pack's footer; so of a block
of small files all are needed. Memory: the
frames of one pack, and the rows of the entries that are affected.

Never: changes what any version holds, or writes anything unless it is applied.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dataset_store.core.catalog import Catalog
from dataset_store.core.census import encode_census
from dataset_store.core.chunking import cut_ends
from dataset_store.core.digest import ChunkId, hash32, rows_digest
from dataset_store.core.entries import Entries
from dataset_store.core.extents import Extents, extents_of_places, extents_of_segments, unite, without
from dataset_store.core.frames import PLAIN_LIMITS, EncodedFrame, FrameCodec, FrameKind
from dataset_store.core.nodes import Children, NodeRef
from dataset_store.core.packfile import Footer, PackRef, Place, pack_key
from dataset_store.core.segments import Segment, segment_chunks, segments_of
from dataset_store.dataset.lost_contents import ContentSource, Folders, OtherStore, first_of
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.store_check import (
    EVERY_BYTE,
    AffectedVersion,
    Depth,
    Surveyed,
    affected_versions,
    survey_store,
)
from dataset_store.dataset.surviving import SurvivingPacks
from dataset_store.dataset.walking import LiveTrees, census_ref
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import Corrupt, CorruptObject
from dataset_store.storage.blobs import packs_of
from dataset_store.storage.findings import Finding, in_order
from dataset_store.storage.pack_check import scan_frames
from dataset_store.storage.restoring import restore
from dataset_store.storage.trees import root_of

__all__ = ["Repair", "RepairedPack", "repair_store"]


@dataclass(frozen=True, slots=True)
class RepairedPack:
    """What of a lost or damaged pack was restored, or would be.

    Attributes:
        pack: Which.
        frames: Intact ones and others that are put into a new pack.
        recovered: Of these, those whose bytes came from elsewhere.
        left: Live bytes of the pack that are nowhere.
        slot: Of the entry that tells where the frames are; None where there is none.
        condemned: Whether nothing needs the old pack any more.
    """

    pack: PackRef
    frames: int
    recovered: int
    left: int
    slot: int | None
    condemned: bool


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair found, did, and could not do.

    Attributes:
        findings: What was wrong before.
        packs: Those that were taken in hand.
        affected: The versions and files that stay damaged.
        left_alone: Packs with lists or tables that the log itself needs; only a backup of the object helps.
    """

    findings: tuple[Finding, ...]
    packs: tuple[RepairedPack, ...]
    affected: tuple[AffectedVersion, ...]
    left_alone: tuple[PackRef, ...]


@dataclass(frozen=True, slots=True)
class _Lost:
    """A segment that lies, at least in part, in what is lost: from `start` on, of a content of `size` bytes."""

    segment: Segment
    content_id: bytes
    size: int
    start: int


_FRAMES_AT_ONCE = 256

_Chunks = list[tuple[bytes, bytes]]


def repair_store(
    workspace: Workspace,
    *,
    folders: Sequence[str] = (),
    other: Workspace | None = None,
    depth: Depth = EVERY_BYTE,
    apply: bool = False,
    show_progress: bool = False,
) -> Repair:
    """Restore what a store has lost, or tell what could be.

    Args:
        workspace: The store.
        folders: Where files may be found besides this machine's local copies, whatever they are called there.
        other: Another store that may have the same contents.
        depth: How damage is looked for.
        apply: Do it; otherwise nothing is written.
        show_progress: Show bars.

    Raises:
        CommitOutcomeUnknown: Run it again.
        StorageFailed: A storage refused.
    """
    if apply:
        workspace.refresh().require("write")
    found = survey_store(workspace, depth, show_progress=show_progress)
    work = _Repair(workspace, found)
    work.look_for(folders, other)
    done: list[RepairedPack] = []
    with progress_bar("repairing", None, len(work.victims), show=show_progress) as told:
        for pack in work.victims:
            done.append(work.pack(pack, apply=apply))
            told(1, 0)
    return Repair(in_order(found.findings), tuple(done), affected_versions(found, workspace), work.left_alone)


class _Repair:
    """One repair under way. `found.bad` shrinks by what is restored."""

    def __init__(self, workspace: Workspace, found: Surveyed) -> None:
        self.workspace = workspace
        self.found = found
        self.codec = FrameCodec()
        self.sources: list[ContentSource] = []
        ledger = found.catalog.packs
        folded = {ref for blob in (*ledger.lists, *(one for _, one in ledger.relocations)) for ref in packs_of(blob)}
        unsound = {
            ref for ref, pack in found.packs.items() if pack.footer_problem or pack.header_problem or pack.damaged
        }
        hurt = found.bad.named() | (unsound & found.live.named())
        gone = folded - (found.listed.packs.keys() if found.listed else set())
        self.left_alone = tuple(sorted((hurt | gone) & folded))
        self.victims = sorted(hurt - folded)
        self.footers = {pack: self._footer(pack) for pack in self.victims}
        self.lost = self._lost_segments()
        self.nodes = self._lost_nodes()

    # --- what is lost ---

    def _footer(self, pack: PackRef) -> Footer | None:
        """What is known of a pack's frames: by itself, or by what this machine remembers of it."""
        there = self.found.packs.get(pack)
        return (there.footer if there else None) or self.workspace.chunks.footer(pack)

    def _lost_segments(self) -> dict[PackRef, list[_Lost]]:
        """The segments of live entries that touch what is bad, by the pack in which they are now."""
        relocations = self.found.standing.relocations
        named = relocations.named(self.found.bad)
        lost: defaultdict[PackRef, dict[_Lost, None]] = defaultdict(dict)
        rows, _ = self.found.touched()
        for leaf in rows.values():
            entries = self.found.trees.with_lists(leaf)
            if not extents_of_segments(entries.segments).touched_by(named).any():
                continue
            for row in range(len(entries)):
                for one in _segments_with_starts(entries, row):
                    place = Place(one.segment.pack, one.segment.offset, one.segment.stored, 0)
                    for now in relocations.places(place) or [place]:
                        if extents_of_places([now]).touched_by(self.found.bad).any():
                            lost[now.pack][one] = None
        return {pack: list(found) for pack, found in lost.items()}

    def _lost_nodes(self) -> dict[Place, tuple[FrameKind, bytes]]:
        """Nodes, lists and censuses that the store lacks and this machine has or can make, by where they are now."""
        found: dict[Place, tuple[FrameKind, bytes]] = {}
        unread = self.found.trees.unread
        kept = self.found.trees.keeper.get_many(list(unread))
        for one, plain in zip(unread.values(), kept, strict=True):
            if plain is not None:
                found[self._now(one.ref.place)] = (one.kind, plain)
        for version in self.found.versions():
            ref = census_ref(version)
            if ref.node_id in unread and self._now(ref.place) not in found:
                plain = self._census(root_of(version.entry.tree).ref)
                if plain is not None and hash32(plain) == ref.node_id:
                    found[self._now(ref.place)] = (FrameKind.CENSUS, plain)
        return found

    def _census(self, top: NodeRef) -> bytes | None:
        """The census of a tree, counted anew; None where nodes are lost."""
        if any(not one.known and one.kind is FrameKind.NODE for one in self.found.trees.unread.values()):
            return None
        census = Counter({top.place.pack: top.place.stored})
        for _, node in self.found.trees.nodes([top]):
            if isinstance(node, Children):
                for ref in node.refs():
                    census[ref.place.pack] += ref.place.stored
        return encode_census(dict(census))

    def _now(self, place: Place) -> Place:
        now = (self.found.standing.relocations.places(place) or [place])[0]
        return Place(now.pack, now.offset, now.stored, 0)

    # --- where it may be ---

    def look_for(self, folders: Sequence[str], other: Workspace | None) -> None:
        """Find out which of the lost contents are in folders, local copies and another store."""
        wanted = {one.content_id: one.size for lost in self.lost.values() for one in lost}
        for pack, footer in self.footers.items():
            if footer is not None:
                bad = [rows for ref, rows in self.found.bad.by_pack() if ref == pack]
                wanted = dict(_chunks_in(footer, pack, unite(bad))) | wanted
        if not wanted:
            return
        copies = [copy.path for copy in self.workspace.copies.all()]
        self.sources.append(Folders([*copies, *folders], wanted))
        if other is not None:
            self.sources.append(OtherStore(other, wanted))

    # --- what comes of it ---

    def pack(self, pack: PackRef, *, apply: bool) -> RepairedPack:
        """Take one pack in hand."""
        intact = self._intact(pack)
        bad = unite([rows for ref, rows in self.found.bad.by_pack() if ref == pack])
        frames = intact | {
            place: frame
            for place, frame in self._recovered(pack, bad)
            if place.pack == pack and place not in intact and len(frame.data) == place.stored
        }
        left = without(bad, unite([extents_of_places(list(frames))]))
        slot, condemned = None, False
        worth = len(left) == 0 or left.total() < bad.total()
        if apply and frames and worth:
            done = restore(self.workspace.repository, pack, frames, self._live, now_ns)
            slot, condemned = done.slot, done.condemned
        if worth:
            self._count_as_restored(pack, frames)
        return RepairedPack(pack, len(frames), len(frames) - len(intact), left.total(), slot, condemned)

    def _count_as_restored(self, pack: PackRef, frames: Mapping[Place, EncodedFrame]) -> None:
        self.found.bad = without(self.found.bad, unite([extents_of_places(list(frames))]))
        unread = self.found.trees.unread
        for node_id, one in list(unread.items()):
            if self._now(one.ref.place) in frames:
                del unread[node_id]

    def _live(self, catalog: Catalog) -> Extents | None:
        """What is live at a state, where it is now; None where a tree cannot be walked."""
        repository = self.workspace.repository
        trees = LiveTrees(SurvivingPacks(repository), repository.nodes.keeper)
        now, lost = repository.standings.now().extents(trees.reach(catalog))
        return unite([now, lost]) if trees.complete and self.found.whole else None

    def _intact(self, pack: PackRef) -> dict[Place, EncodedFrame]:
        """The frames of a pack that are what they must be: by its footer, or else by what live versions say."""
        there = self.found.packs.get(pack)
        if there is None:
            return {}
        backend, footer = self.workspace.repository.storages[pack.storage], self.footers[pack]
        if footer is None:
            starts = [start for ref, rows in self.found.live.by_pack() if ref == pack for start in rows.start.tolist()]
            scanned = scan_frames(backend, there, self.codec, starts)
            places = [Place(pack, offset, length, 0) for offset, length, problem in scanned if not problem]
        else:
            columns = zip(footer.offsets.tolist(), footer.stored.tolist(), strict=True)
            places = [Place(pack, offset, stored, 0) for offset, stored in columns]
        rows = extents_of_places(places)
        needed = rows.touched_by(self.found.live) & ~rows.touched_by(self.found.bad)
        if footer is not None or not self.found.whole:
            # Dead ones too: others may be about to use them, and this way nothing depends on what is live just now.
            needed = ~rows.touched_by(self.found.bad)
        moved = self.found.standing.relocations.extents(unite([rows]))[1] if len(rows) else rows
        if pack in self.found.standing.relocations:
            needed &= rows.touched_by(moved)
        asked = [place for place, yes in zip(places, needed.tolist(), strict=True) if yes]
        found = dict(self._read_intact(pack, asked))
        # Where damage was looked for in the structure only, it shows here.
        failed = extents_of_places([place for place in asked if place not in found])
        live = failed.take(np.flatnonzero(failed.touched_by(self.found.live)))
        self.found.bad = unite([self.found.bad, live])
        return found

    def _read_intact(self, pack: PackRef, places: Sequence[Place]) -> Iterator[tuple[Place, EncodedFrame]]:
        footer = self.footers[pack]
        ids = {} if footer is None else dict(_ids_of_frames(footer))
        reader = SurvivingPacks(self.found.repository)
        for at in range(0, len(places), _FRAMES_AT_ONCE):
            some = places[at : at + _FRAMES_AT_ONCE]
            for place, data in zip(some, reader.read_frames(some), strict=True):
                frame = self._whole_frame(data, pack)
                if frame is not None and (footer is None or ids[place.offset] == b"".join(frame.ids)):
                    yield place, frame

    def _whole_frame(self, data: memoryview | Corrupt, pack: PackRef) -> EncodedFrame | None:
        if isinstance(data, Corrupt):
            return None
        try:
            (frame,) = self.codec.stored_frames(data, what=pack_key(pack.name))
        except CorruptObject:
            return None
        return frame

    def _recovered(self, pack: PackRef, bad: Extents) -> Iterator[tuple[Place, EncodedFrame]]:
        """Frames in what is bad of a pack, made anew."""
        for place, (kind, plain) in self.nodes.items():
            if place.pack == pack:
                yield place, self.codec.encode_frame(kind, [plain], [ChunkId(hash32(plain))])
        footer = self.footers[pack]
        found = [(one, self._chunks(one, footer)) for one in self.lost.get(pack, ())]
        made: dict[Place, EncodedFrame] = {}
        if footer is not None:
            made = dict(self._by_footer(pack, footer, bad, {chunk[0]: chunk[1] for _, some in found for chunk in some}))
            yield from made.items()
        known = unite([extents_of_places(list(made))])
        shared: defaultdict[Place, dict[int, bytes]] = defaultdict(dict)
        for one, chunks in found:
            named = Place(one.segment.pack, one.segment.offset, one.segment.stored, 0)
            place = self._now(named)
            if not chunks or extents_of_places([place]).touched_by(known).any():
                continue
            alone = [] if one.segment.plain_offset else self._alone(named, chunks)
            yield from ((self._now(old), frame) for old, frame in alone)
            if not alone:
                shared[place][one.segment.plain_offset] = b"".join(chunk for _, chunk in chunks)
        for place, parts in shared.items():
            yield from self._block(place, parts)

    def _chunks(self, one: _Lost, footer: Footer | None) -> _Chunks:
        """The chunks of a lost segment with their ids, in order; none where nobody has the right bytes."""
        segment = one.segment
        for data in first_of(self.sources, one.content_id, one.start, segment.plain_length):
            ends: list[int] = []
            if footer is not None:
                for _, hit in segment_chunks(segment, footer):
                    ends.append((ends[-1] if ends else 0) + hit.plain_length)
            ways = [ends, cut_ends(data, self.workspace.repository.chunker, final=True).tolist(), [len(data)]]
            for way in ways:
                pieces = [data[start:end] for start, end in pairwise((0, *way))]
                ids = [hash32(piece) for piece in pieces]
                if pieces and rows_digest(ids, [len(piece) for piece in pieces]) == segment.digest:
                    return list(zip(ids, pieces, strict=True))
        return []

    def _alone(self, place: Place, chunks: _Chunks) -> list[tuple[Place, EncodedFrame]]:
        """Each chunk in a frame of its own, if that makes up the run of frames, as named, to the byte."""
        at, found = place.offset, []
        for chunk_id, chunk in chunks:
            frame = self.codec.encode_frame(FrameKind.DATA, [chunk], [ChunkId(chunk_id)])
            found.append((Place(place.pack, at, len(frame.data), 0), frame))
            at += len(frame.data)
        return found if at == place.offset + place.stored else []

    def _block(self, place: Place, parts: Mapping[int, bytes]) -> Iterator[tuple[Place, EncodedFrame]]:
        """A frame of several contents, if these follow one another and make up its length to the byte."""
        at, chunks = 0, []
        for start, chunk in sorted(parts.items()):
            if start != at:
                return
            chunks.append(chunk)
            at += len(chunk)
        if at > PLAIN_LIMITS[FrameKind.DATA]:
            return
        ids = [ChunkId(hash32(chunk)) for chunk in chunks]
        frame = self.codec.encode_frame(FrameKind.DATA, chunks, ids)
        if len(frame.data) == place.stored:
            yield place, frame

    def _by_footer(
        self, pack: PackRef, footer: Footer, bad: Extents, chunks: dict[bytes, bytes]
    ) -> Iterator[tuple[Place, EncodedFrame]]:
        """Data frames in what is bad, of which all chunks are there; those of dead contents are looked for too."""
        firsts = footer.chunk_starts()
        for row in range(len(footer.offsets)):
            place = Place(pack, int(footer.offsets[row]), int(footer.stored[row]), 0)
            if footer.kinds[row] != FrameKind.DATA or not extents_of_places([place]).touched_by(bad).any():
                continue
            rows = range(int(firsts[row]), int(firsts[row]) + int(footer.chunk_counts[row]))
            wanted = [(footer.ids[at].tobytes(), int(footer.lengths[at])) for at in rows]
            found = [chunks.get(one) or self._whole(one, length) for one, length in wanted]
            if all(found):
                ids = [ChunkId(one) for one, _ in wanted]
                yield place, self.codec.encode_frame(FrameKind.DATA, [one or b"" for one in found], ids)

    def _whole(self, content_id: bytes, length: int) -> bytes | None:
        """A chunk that is a whole content."""
        found = first_of(self.sources, content_id, 0, length)
        return next((data for data in found if hash32(data) == content_id), None)


def _segments_with_starts(entries: Entries, row: int) -> Iterator[_Lost]:
    content_id, at = entries.content_ids[row].tobytes(), 0
    for segment in segments_of(entries, row):
        yield _Lost(segment, content_id, int(entries.sizes[row]), at)
        at += segment.plain_length


def _chunks_in(footer: Footer, pack: PackRef, bad: Extents) -> Iterator[tuple[bytes, int]]:
    """The ids and lengths of the chunks in what is bad of a pack."""
    for at, frame in enumerate(footer.frame_of_chunk().tolist()):
        place = Place(pack, int(footer.offsets[frame]), int(footer.stored[frame]), 0)
        if footer.chunk_counts[frame] > 1 and extents_of_places([place]).touched_by(bad).any():
            yield footer.ids[at].tobytes(), int(footer.lengths[at])


def _ids_of_frames(footer: Footer) -> Iterator[tuple[int, bytes]]:
    for offset, first, count in zip(footer.offsets, footer.chunk_starts(), footer.chunk_counts, strict=True):
        yield int(offset), footer.ids[int(first) : int(first) + int(count)].tobytes()

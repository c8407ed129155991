"""Repair: what a store has lost is put back from wherever its bytes still are, and what stays lost is told exactly.

Each lost or damaged pack is taken in turn. Its intact frames are copied; of the others every chunk is looked for in
the local copies and caches of this machine, in folders and in another store that are named. Where some chunks of a
frame are nowhere the others come back, and the log tells that nobody may begin to use it. Memory: the frames of one
pack, and the rows of the entries that are affected.

Never: changes what any version holds, or writes anything unless it is applied.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate

from msgspec import Struct

from dataset_store.core.arrays import Bool, np
from dataset_store.core.catalog import Catalog
from dataset_store.core.chunking import cut_ends
from dataset_store.core.digest import ChunkId, hash32
from dataset_store.core.entries import Entries
from dataset_store.core.extents import Extents, extents_of_places, unite, without
from dataset_store.core.frames import PLAIN_LIMITS, EncodedFrame, Frame, FrameCodec, FrameKind, take_segment
from dataset_store.core.packfile import Footer, PackRef, Place, pack_key
from dataset_store.core.segments import Segment, segment_chunks
from dataset_store.dataset.checks.losses import LostSegment, lost_nodes, lost_segments, now_at
from dataset_store.dataset.checks.lost_contents import (
    ContentSource,
    Folders,
    StoredContents,
    contents_of_other,
    first_of,
)
from dataset_store.dataset.checks.remaking import (
    Chunks,
    Remade,
    RemadeFrame,
    chunks_in,
    cut_as,
    data_frame,
    remake_block,
    remake_by_footer,
    remake_runs,
)
from dataset_store.dataset.checks.store_check import AffectedVersion, affected_versions
from dataset_store.dataset.checks.surveying import EVERY_BYTE, Depth, Surveyed, decoded_frames, survey_store
from dataset_store.dataset.checks.surviving import SurvivingPacks
from dataset_store.dataset.checks.walking import LiveTrees
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import Corrupt, CorruptObject
from dataset_store.storage.blobs import packs_of
from dataset_store.storage.findings import Finding, in_order
from dataset_store.storage.liveness import blobs_of_contents
from dataset_store.storage.pack_check import scan_frames
from dataset_store.storage.restoring import Found, Restored, restore

__all__ = ["Repair", "RepairedPack", "repair_store"]


class RepairedPack(Struct, frozen=True):
    """What of a lost or damaged pack was restored, or would be.

    Attributes:
        pack: Which.
        frames: Intact ones and others that are put into a new pack.
        recovered: Of these, those whose bytes came from elsewhere.
        left: Live bytes of the pack that are nowhere.
        slot: Of the entry that tells where the frames are; None where there is none.
        condemned: Whether nothing needs the old pack any more.
        superseded: Whether another repaired or repacked the pack meanwhile, so that nothing was done; run it again.
    """

    pack: PackRef
    frames: int
    recovered: int
    left: int
    slot: int | None
    condemned: bool
    superseded: bool = False


class Repair(Struct, frozen=True):
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


_FRAMES_AT_ONCE = 256


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
        self.last: tuple[Place, Sequence[Frame] | Corrupt] | None = None
        ledger = found.catalog.packs
        folded = {ref for blob in (*ledger.lists, *(one for _, one in ledger.relocations)) for ref in packs_of(blob)}
        unsound = {
            ref for ref, pack in found.packs.items() if pack.footer_problem or pack.header_problem or pack.damaged
        }
        hurt = found.bad.named() | (unsound & found.live.named())
        gone = folded - (found.listed.packs.keys() if found.listed else set())
        self.left_alone = tuple(sorted((hurt | gone) & folded))
        hurt |= {one.pack for one in found.hollow}
        # One that came back is restored in whole, as nobody may begin to use it where it is.
        returned = found.standing.relocations.maimed() & found.packs.keys()
        self.victims = sorted((hurt | returned) - folded)
        self.footers = {pack: self._footer(pack) for pack in self.victims}
        self.lost = lost_segments(found)
        self.nodes = lost_nodes(found)

    def _footer(self, pack: PackRef) -> Footer | None:
        """What is known of a pack's frames: by itself, or by what this machine remembers of it."""
        there = self.found.packs.get(pack)
        return (there.footer if there else None) or self.workspace.chunks.footer(pack)

    # --- where it may be ---

    def look_for(self, folders: Sequence[str], other: Workspace | None) -> None:
        """Find out where the lost contents are: in folders, local copies, elsewhere in the store, in another store."""
        wanted = {one.content_id: one.size for lost in self.lost.values() for one in lost}
        for pack, footer in self.footers.items():
            if footer is not None:
                wanted = dict(chunks_in(footer, pack, self._bad_of(pack))) | wanted
        if not wanted:
            return
        copies = [copy.path for copy in self.workspace.copies.all()]
        self.sources.append(Folders([*copies, *folders], wanted))
        self.sources.append(self._stored_again(wanted))
        if other is not None:
            self.sources.append(contents_of_other(other, wanted))

    def _stored_again(self, wanted: Container[bytes]) -> StoredContents:
        """The contents by all entries that have them: one that was added since it was lost was stored again."""
        lost = self.found.standing.relocations.named(self.found.bad)
        found = StoredContents(self.workspace.store, lost, frozenset(self.found.hollow))
        found.add_blobs(blobs_of_contents(self.found.catalog), wanted)

        def have(leaf: Entries) -> Bool:
            return np.array([content_id.tobytes() in wanted for content_id in leaf.content_ids], np.bool_)

        rows, _ = self.found.trees.touched(self.found.versions(), have)
        for entries in rows.values():
            found.add(entries, wanted)
        return found

    # --- what comes of it ---

    def pack(self, pack: PackRef, *, apply: bool) -> RepairedPack:
        """Take one pack in hand."""
        intact = self._intact(pack)
        remade = self._remade(pack, intact)
        lost = [one for one in self.lost.get(pack, ()) if not self._is_whole(pack, one, remade)]
        bad = unite([rows for ref, rows in self.found.bad.by_pack() if ref == pack])
        left = without(bad, unite([extents_of_places(list(remade.frames))]))
        hollow = {one.segment for one in lost if self._is_hollow(pack, one, remade)}
        nowhere = left.total() + sum(one.plain_length for one in hollow)
        recovered = len(remade.frames.keys() - intact.keys())
        if nowhere and not recovered and len(lost) == len(self.lost.get(pack, ())):
            remade, left = Remade(), bad  # what is intact serves as well where it is
        # Without a footer a frame may seem intact, and only what is named in it tells that it is not.
        for one in lost:
            remade.count_as_holed([part for part in self._parts_in(pack, one) if remade.makes_up(part)])
        places = frozenset(Place(pack, start, stop - start, 0) for start, stop in _ranges(left))
        told = self.found.standing.relocations.moved(pack)
        found = Found(remade.frames, frozenset(remade.holed), places, complete=not nowhere, told=told)
        done = Restored(None, is_told=True, condemned=False)
        if apply:
            done = restore(self.workspace.store, pack, found, self._live, now_ns)
        if not done.is_told:
            return RepairedPack(pack, 0, 0, self._bad_of(pack).total(), None, condemned=False, superseded=True)
        self._count_as_restored(remade.frames)
        self.found.hollow -= {one.segment for one in self.lost.get(pack, ())}
        self.found.hollow |= hollow
        return RepairedPack(pack, len(remade.frames), recovered, nowhere, done.slot, done.condemned)

    def _bad_of(self, pack: PackRef) -> Extents:
        """What is lost of a pack, be it that the frame which holds the rest of it is elsewhere."""
        hollow = extents_of_places([one.place for one in self.found.hollow if one.pack == pack])
        return unite([*(rows for ref, rows in self.found.bad.by_pack() if ref == pack), hollow])

    def _parts_in(self, pack: PackRef, one: LostSegment) -> list[Place]:
        """The places of a lost segment in the pack at hand: as it is named, or where that is now."""
        place = one.segment.place
        if place.pack == pack:
            return [place]
        return [now for now in self.found.standing.relocations.places(place) or () if now.pack == pack]

    def _is_whole(self, pack: PackRef, one: LostSegment, remade: Remade) -> bool:
        """Whether the frames hold a segment again, as far as it lies in the pack at hand."""
        parts = self._parts_in(pack, one)
        if any(remade.holds(part, one.segment) for part in parts):
            return True
        relocations = self.found.standing.relocations
        if relocations.is_holed(one.segment.place) or (self.footers[pack] is None and one.segment.pack == pack):
            return False
        there = unite([remade.whole(), relocations.elsewhere(pack)])
        return not len(without(unite([extents_of_places(parts)]), there))

    def _is_hollow(self, pack: PackRef, one: LostSegment, remade: Remade) -> bool:
        """Whether there are frames in the place of a segment that is not whole."""
        return one.segment in self.found.hollow or any(map(remade.touches, self._parts_in(pack, one)))

    def _count_as_restored(self, frames: Mapping[Place, EncodedFrame]) -> None:
        self.found.bad = without(self.found.bad, unite([extents_of_places(list(frames))]))
        trees = self.found.trees
        trees.restored |= {
            node_id for node_id, one in trees.unread.items() if now_at(self.found, one.ref.place) in frames
        }
        for node_id in trees.restored & trees.unread.keys():
            del trees.unread[node_id]

    def _live(self, catalog: Catalog) -> Extents | None:
        """What is live at a state, where it is now; None where a tree cannot be walked."""
        store = self.workspace.store
        trees = LiveTrees(SurvivingPacks(store), store.nodes.keeper)
        now, lost = store.standings.now().extents(trees.reach(catalog))
        return unite([now, lost]) if trees.complete and self.found.whole else None

    def _intact(self, pack: PackRef) -> dict[Place, EncodedFrame]:
        """The frames of a pack that are what they must be: by its footer, or else by what live versions say."""
        there = self.found.packs.get(pack)
        if there is None:
            return {}
        backend, footer = self.workspace.store.storages[pack.storage], self.footers[pack]
        if footer is None:
            scanned = scan_frames(backend, there, self.codec, self.found.starts_in(pack))
            places = [Place(pack, offset, length, 0) for offset, length, problem in scanned if not problem]
        else:
            columns = zip(footer.offsets.tolist(), footer.stored.tolist(), strict=True)
            places = [Place(pack, offset, stored, 0) for offset, stored in columns]
        rows = extents_of_places(places)
        hollow = unite([extents_of_places([one.place for one in self.found.hollow])])
        needed = (rows.touched_by(self.found.live) | rows.touched_by(hollow)) & ~rows.touched_by(self.found.bad)
        if footer is not None or not self.found.whole:
            # Dead ones too: others may be about to use them, and this way nothing depends on what is live just now.
            needed = ~rows.touched_by(self.found.bad)
        # Of a pack that came back, frames that were restored in part are better than what they were restored to.
        needed &= ~rows.touched_by(self.found.standing.relocations.elsewhere(pack)) | rows.touched_by(hollow)
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
        reader = self.found.trees.packs
        for at in range(0, len(places), _FRAMES_AT_ONCE):
            some = places[at : at + _FRAMES_AT_ONCE]
            found = reader.each(some, lambda place: place.pack, self.found.store.packs.read_where_named)
            for place, data in zip(some, found, strict=True):
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

    def _remade(self, pack: PackRef, intact: Mapping[Place, EncodedFrame]) -> Remade:
        """The intact frames of a pack, and those in what is bad of it made anew."""
        remade = Remade()
        remade.take(self._worth_it(pack, ((place, frame, False) for place, frame in intact.items())))
        remade.take(
            (place, self.codec.encode_frame(kind, [plain], [ChunkId(hash32(plain))]), False)
            for place, (kind, plain) in self.nodes.items()
            if place.pack == pack
        )
        footer = self.footers[pack]
        found = {one: self._chunks(one, footer) for one in self.lost.get(pack, ())}
        if footer is not None:
            known = {hash32(chunk): chunk for chunks in found.values() for chunk in chunks}
            made = remake_by_footer(
                self.codec,
                footer,
                pack,
                self._bad_of(pack),
                lambda chunk_id, length: known.get(chunk_id) or self._whole(chunk_id, length),
            )
            remade.take(self._worth_it(pack, made))
        made = self._made_of_segments(pack, {one: chunks for one, chunks in found.items() if chunks})
        remade.take(self._worth_it(pack, made))
        return remade

    def _worth_it(self, pack: PackRef, made: Iterable[RemadeFrame]) -> Iterator[RemadeFrame]:
        """Frames but for those that an earlier repair has put already, unless now there is more in them."""
        elsewhere = self.found.standing.relocations.elsewhere(pack)
        named: defaultdict[Place, set[Segment]] = defaultdict(set)
        for lost in self.lost.get(pack, ()):
            named[lost.segment.place].add(lost.segment)
        for one in made:
            alone = Remade()
            alone.take([one])
            place = one[0]
            held = {segment for segment in named[place] if alone.holds(place, segment)}
            is_better = held > named[place] - self.found.hollow
            if is_better or not extents_of_places([place]).touched_by(elsewhere).any():
                yield one

    def _made_of_segments(self, pack: PackRef, found: Mapping[LostSegment, Chunks]) -> Iterator[RemadeFrame]:
        """Frames that only the segments in them tell of."""
        blocks: defaultdict[Place, dict[int, Chunks]] = defaultdict(dict)
        for one, chunks in found.items():
            frames = self.found.standing.relocations.frames(one.segment.place)
            if one.segment.pack != pack and frames is not None and len(frames) == len(chunks) > 1:
                pairs = zip(frames, chunks, strict=True)
                yield from ((now, data_frame(self.codec, [chunk]), False) for now, chunk in pairs if now.pack == pack)
            else:
                for part in self._parts_in(pack, one)[:1]:
                    blocks[part].setdefault(one.segment.plain_offset, chunks)
        others = [one.segment for one in self.lost.get(pack, ())]
        runs = {
            place: parts[0]
            for place, parts in blocks.items()
            if parts.keys() == {0} and self._is_run(place, parts[0], others)
        }
        yield from remake_runs(self.codec, runs, others)
        for place, parts in blocks.items():
            if place not in runs:
                yield from remake_block(self.codec, place, parts)

    def _is_run(self, place: Place, chunks: Chunks, others: Sequence[Segment]) -> bool:
        """Whether chunks that begin at the plain offset 0 of a place had frames of their own there."""
        if sum(map(len, chunks)) > PLAIN_LIMITS[FrameKind.DATA] or any(_overlaps(one, place) for one in others):
            return True
        return place.stored == sum(len(data_frame(self.codec, [chunk]).data) for chunk in chunks)

    def _chunks(self, one: LostSegment, footer: Footer | None) -> Chunks:
        """The chunks of a lost segment with their ids, in order; none where nobody has the right bytes."""
        segment = one.segment
        told = [] if footer is None else [hit.plain_length for _, hit in segment_chunks(segment, footer)]
        for data in self._candidates(one):
            cuts = cut_ends(data, self.workspace.store.chunker, final=True).tolist()
            chunks = cut_as(data, ([*accumulate(told)], cuts, [len(data)]), segment.digest)
            if chunks:
                return chunks
        return []

    def _frames_at(self, place: Place) -> Sequence[Frame] | Corrupt:
        """What the store has at a place, read once for all segments in it that are asked for one after another."""
        if self.last is None or self.last[0] != place:
            (data,) = self.found.trees.packs.read_frames([place])
            self.last = place, data if isinstance(data, Corrupt) else decoded_frames(self.codec, data)
        return self.last[1]

    def _candidates(self, one: LostSegment) -> Iterator[bytes | memoryview]:
        """What the sources have of a segment; of a frame that is lost in part the store itself may have it."""
        segment = one.segment
        parts = self.found.standing.relocations.places(segment.place) or [segment.place]
        if self.found.packs.keys() >= {part.pack for part in parts}:
            frames = self._frames_at(segment.place)
            if not isinstance(frames, Corrupt):
                with suppress(CorruptObject):
                    plain = (segment.plain_offset, segment.plain_length, segment.digest)
                    yield take_segment(frames, *plain, what=pack_key(segment.pack.name))
        yield from first_of(self.sources, one.content_id, one.start, segment.plain_length)

    def _whole(self, content_id: bytes, length: int) -> bytes | None:
        """A chunk that is a whole content."""
        found = first_of(self.sources, content_id, 0, length)
        return next((data for data in found if hash32(data) == content_id), None)


def _overlaps(segment: Segment, place: Place) -> bool:
    """Whether a segment names a part of a place, or more of the pack than that: so the place is no single frame."""
    start, stop = segment.offset, segment.offset + segment.stored
    shares = start < place.offset + place.stored and place.offset < stop
    return segment.pack == place.pack and shares and (start, stop) != (place.offset, place.offset + place.stored)


def _ranges(extents: Extents) -> Iterator[tuple[int, int]]:
    return zip(extents.start.tolist(), extents.stop.tolist(), strict=True)


def _ids_of_frames(footer: Footer) -> Iterator[tuple[int, bytes]]:
    for offset, first, count in zip(footer.offsets, footer.chunk_starts(), footer.chunk_counts, strict=True):
        yield int(offset), footer.ids[int(first) : int(first) + int(count)].tobytes()

"""Surveying a whole store: its log, every live tree, and every frame of every pack, or a share of them.

Damage is told and does not end the survey; a storage that does not answer does, and is no damage. Memory: a few MiB of
frames, the state of the log, and the bytes that live trees name, as ranges.

Nothing that this machine keeps is trusted. Where the store has lost a node that the machine's cache has, it tells what
lies below.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import local

from msgspec import Struct, field

from dataset_store.core.arrays import Bool, np
from dataset_store.core.catalog import Catalog, Version
from dataset_store.core.digest import NodeId
from dataset_store.core.entries import Entries
from dataset_store.core.envelope import encode_config
from dataset_store.core.extents import Extents, extents_of_places, extents_of_segments, unite, without
from dataset_store.core.frames import Frame, FrameCodec, FrameKind, frame_offsets, take_segment
from dataset_store.core.packfile import Footer, PackRef, Place, pack_key
from dataset_store.core.relocation import Relocations
from dataset_store.core.segments import Segment, segments_of
from dataset_store.core.standing import Standing
from dataset_store.dataset.checks.surviving import SurvivingPacks
from dataset_store.dataset.checks.walking import LiveTrees
from dataset_store.dataset.progress import Told, progress_bar
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Corrupt, InvalidRequest, ObjectMissing
from dataset_store.storage.collecting import ListedPacks, list_packs
from dataset_store.storage.findings import Finding
from dataset_store.storage.log_check import check_log
from dataset_store.storage.log_reader import slot_key
from dataset_store.storage.pack_check import CheckedPack, FrameDamage, check_frames, check_pack_ends, scan_frames
from dataset_store.storage.store import Store, open_store
from dataset_store.storage.trees import NoKeeper

__all__ = ["EVERY_BYTE", "STRUCTURE", "Depth", "Surveyed", "decoded_frames", "segment_problem", "survey_store"]

_WORKERS = 2
_PACKS_AHEAD = 2
_MORE_ATTEMPTS = 2


class Depth(Struct, frozen=True):
    """How much of the data frames is read: a share from 0 to 1, or about so many bytes; `seed` chooses which.

    Everything else is always read.
    """

    share: float = 1.0
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or (self.size is not None and self.size <= 0):
            raise InvalidRequest("A sample is of some bytes, or of 0 to 100 %.", "Give such a number.")


STRUCTURE = Depth(0.0)
EVERY_BYTE = Depth()


class Surveyed(Struct):
    """A store as it was found: what reports and repairs are made of.

    Attributes:
        store: The store, read without this machine's caches.
        trees: Its live trees.
        standing: Its packs, as of the state that was checked.
        packs: What is known of each.
        live: The bytes that something live needs, where they are now.
        bad: Of these, what is damaged or missing.
        hollow: Segments in frames that a repair restored in part, of whose own bytes something is lost.
        whole: Whether the log and all trees could be read, so that nothing else is live.
        starts: See `starts_in`; None until it is asked.
    """

    store: Store
    trees: LiveTrees
    standing: Standing
    packs: dict[PackRef, CheckedPack] = field(default_factory=dict)
    live: Extents = field(default_factory=Extents.none)
    bad: Extents = field(default_factory=Extents.none)
    hollow: set[Segment] = field(default_factory=set)
    whole: bool = True
    findings: list[Finding] = field(default_factory=list)
    listed: ListedPacks | None = None
    frames: int = 0
    frames_read: int = 0
    starts: Mapping[PackRef, list[int]] | None = None

    @property
    def catalog(self) -> Catalog:
        """The fold that was checked."""
        return self.store.catalog.catalog

    def versions(self) -> list[Version]:
        """The live ones."""
        return list(self.catalog.live_versions())

    def starts_in(self, pack: PackRef) -> list[int]:
        """Offsets, ascending, at which frames are known to begin: what is live, and each segment of it, does.

        The trees are read for it once, when a footer is found damaged; `live` must be known by then.
        """
        if self.starts is None:
            self.starts = self._starts()
        return self.starts.get(pack, [])

    def _starts(self) -> Mapping[PackRef, list[int]]:
        starts: defaultdict[PackRef, set[int]] = defaultdict(set)
        for ref, rows in self.live.by_pack():
            starts[ref].update(rows.start.tolist())
        for one in self.trees.segments(self.catalog):
            for part in self.standing.relocations.places(one.place) or [one.place]:
                starts[part.pack].add(part.offset)
        return {ref: sorted(some) for ref, some in starts.items()}

    def touched(self, also: Extents | None = None) -> tuple[dict[NodeId, Entries], Mapping[str, frozenset[NodeId]]]:
        """See `LiveTrees.touched`: of what is bad or hollow, and what names other united extents."""
        named = unite([self.standing.relocations.named(self.bad), also or Extents.none()])
        hollow = self.hollow
        return self.trees.touched(self.versions(), lambda leaf: _rows_touched(leaf, named) | _rows_of(leaf, hollow))


def survey_store(workspace: Workspace, depth: Depth, *, show_progress: bool = False) -> Surveyed:
    """As `verify_store`; again where the store moved on while damage was found, as what is gone may be so by right."""
    found = _survey_once(workspace, depth, show_progress=show_progress)
    for _ in range(_MORE_ATTEMPTS):
        if not len(found.bad) or not _moved_on(found.store):
            break
        found = _survey_once(workspace, depth, show_progress=show_progress)
    return found


def _moved_on(store: Store) -> bool:
    try:
        return store.catalog.refresh() > 0
    except Corrupt:
        return False  # the log is damaged, and told as such


def _survey_once(workspace: Workspace, depth: Depth, *, show_progress: bool) -> Surveyed:
    own = workspace.store
    config = encode_config(own.config)
    log = check_log(own.backend, config, own.catalog.position)
    fresh = open_store(own.backend, config, None, NoKeeper())
    fresh.catalog.take(log.records)
    fresh.catalog.catalog.require("read")
    trees = LiveTrees(SurvivingPacks(fresh), own.nodes.keeper)
    found = Surveyed(fresh, trees, Standing(0, frozenset(), Relocations()))
    found.findings += log.findings
    found.findings += [
        Finding("version-invalid", slot_key("catalog", one.slot), f"The version {one.commit}: {one.why}.")
        for one in fresh.catalog.catalog.invalid
    ]
    found.whole = not any(one.id in {"log-hole", "entry-damaged", "log-cut"} for one in log.findings)
    found.listed = _listed(fresh)
    try:
        found.standing = fresh.standings.now()
    except Corrupt as error:
        found.findings.append(Finding("table-damaged", "log", error.what))
        found.whole = False
        return found
    _Survey(found, depth).run(show_progress=show_progress)
    return found


def _listed(store: Store) -> ListedPacks:
    listed = list_packs(store)
    for error in listed.silent.values():
        raise error
    return listed


class _Begun(Struct, frozen=True):
    """A pack whose frames are being read and compared."""

    pack: CheckedPack
    units: list[Future[list[FrameDamage]]]


class _Survey:
    """One check under way."""

    def __init__(self, found: Surveyed, depth: Depth) -> None:
        assert found.listed is not None  # noqa: S101
        self.found = found
        self.listed = found.listed
        self.depth = depth
        self.rng = random.Random(depth.seed)  # noqa: S311  (a sample that can be drawn again)
        total = sum(info.size for info in self.listed.packs.values())
        self.share = depth.share if depth.size is None else min(1.0, depth.size / max(total, 1))
        self.codecs = _Codecs()
        self.bad: list[Extents] = []

    def run(self, *, show_progress: bool) -> None:
        """Everything, each into `found`."""
        found = self.found
        live, lost = found.standing.extents(found.trees.reach(found.catalog))
        found.live = unite([live, lost])
        for ref, rows in lost.by_pack():
            for start, stop in _ranges(rows):
                self._tell("frame-condemned", ref, "It was condemned, and no table says where it went.", start, stop)
            if ref not in self.listed.packs:
                self.bad.append(rows)
        found.whole = found.whole and found.trees.complete
        needed = dict(found.live.by_pack())
        total = sum(info.size for info in self.listed.packs.values())
        with progress_bar("verifying", total, len(self.listed.packs), show=show_progress) as told:
            self._check_packs(needed, told)
        for ref in sorted(needed.keys() - found.packs.keys()):
            self.bad.append(needed[ref])
            if ref not in found.standing.condemned:
                self._tell("pack-missing", ref, "It is not there, though something live needs it.")
        self._compare_by_digest()
        found.bad = unite(self.bad)
        self._tell_nodes()

    def _tell(self, kind: str, ref: PackRef, problem: str, start: int | None = None, stop: int | None = None) -> None:
        length = None if start is None or stop is None else stop - start
        self.found.findings.append(Finding(kind, pack_key(ref.name), problem, ref, start, length))

    def _check_packs(self, needed: Mapping[PackRef, Extents], told: Told) -> None:
        """Every pack, one after another; frames of the next ones are read while one is ended."""
        begun: deque[_Begun] = deque()
        with ThreadPoolExecutor(max(_WORKERS, self.found.store.packs.at_once), "verify") as pool:
            try:
                for ref in sorted(self.listed.packs):
                    with suppress(ObjectMissing):  # deleted since it was listed
                        begun.append(self._begin_pack(ref, pool))
                    if len(begun) > _PACKS_AHEAD:
                        self._end_pack(begun.popleft(), needed, told)
                while begun:
                    self._end_pack(begun.popleft(), needed, told)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _begin_pack(self, ref: PackRef, pool: ThreadPoolExecutor) -> _Begun:
        backend, size = self.found.store.storages[ref.storage], self.listed.packs[ref].size
        pack = check_pack_ends(backend, self.found.store.store_id, ref, size)
        units = () if pack.footer is None else check_frames(backend, pack, pack.footer, self._chosen(pack.footer))
        return _Begun(pack, [pool.submit(self._run, unit) for unit in units])

    def _end_pack(self, begun: _Begun, needed: Mapping[PackRef, Extents], told: Told) -> None:
        pack, ref = begun.pack, begun.pack.ref
        live = needed.get(ref, Extents.none())
        try:
            for unit in begun.units:
                pack.damaged += unit.result()
            if pack.footer is None and self.share:
                pack.damaged += self._scanned(pack, live)
        except ObjectMissing:
            return  # deleted meanwhile
        self.found.packs[ref] = pack
        told(1, pack.size)
        if pack.header_problem:
            self._tell("pack-header-damaged", ref, pack.header_problem, 0, 40)
        if pack.footer_problem:
            self._tell("pack-footer-damaged", ref, pack.footer_problem)
        if ref in self.found.standing.condemned:
            self._tell("pack-condemned", ref, "It was condemned and is still there.")
        elif not len(live):
            self._tell("pack-unnamed", ref, "Nothing that could be read needs it.")
        damaged_places = extents_of_places([Place(ref, one.offset, one.length, 0) for one in pack.damaged])
        damaged = unite([damaged_places])
        matters = damaged_places.touched_by(live)
        for one, is_needed in zip(pack.damaged, matters.tolist(), strict=True):
            kind = "frame-damaged" if is_needed else "dead-frame-damaged"
            self._tell(kind, ref, one.problem, one.offset, one.offset + one.length)
        self.bad.append(without(live, without(live, damaged)))
        self._check_edges(pack, live, damaged)

    def _scanned(self, pack: CheckedPack, live: Extents) -> list[FrameDamage]:
        """What of the frames of a pack without footer is damaged, as far as they tell by themselves."""
        backend, end = self.found.store.storages[pack.ref.storage], max(live.stop.tolist(), default=0)
        frames = scan_frames(backend, pack, self.codecs.codec, self.found.starts_in(pack.ref), end)
        return [FrameDamage(offset, length, problem) for offset, length, problem in frames if problem]

    def _run(self, unit: Callable[[FrameCodec], list[FrameDamage]]) -> list[FrameDamage]:
        return unit(self.codecs.codec)

    def _chosen(self, footer: Footer) -> Bool:
        """The frames that are read: of data a share, else all. They are counted."""
        is_data: Bool = footer.kinds == FrameKind.DATA
        chosen: Bool = ~is_data
        if self.share >= 1:
            chosen = np.ones(len(chosen), np.bool_)
        elif self.share > 0:
            drawn = np.array([self.rng.random() < self.share for _ in range(len(chosen))], np.bool_)
            chosen = chosen | drawn
        self.found.frames += int(is_data.sum())
        self.found.frames_read += int((is_data & chosen).sum())
        return chosen

    def _check_edges(self, pack: CheckedPack, live: Extents, damaged: Extents) -> None:
        """What is live begins and ends where frames do, and within the pack."""
        for start, stop in _ranges(live):
            footer = pack.footer
            fits: bool
            if footer is None:
                fits = stop <= pack.size
            else:
                ends = footer.offsets.astype(np.int64) + footer.stored
                fits = bool(np.isin(start, footer.offsets)) and bool(np.isin(stop, ends))
            if not fits:
                rows = extents_of_places([Place(pack.ref, start, stop - start, 0)])
                if not rows.touched_by(damaged).any():
                    self._tell("frame-missing", pack.ref, "It is no run of whole frames.", start, stop)
                self.bad.append(rows)

    def _compare_by_digest(self) -> None:
        """Contents of which only trees tell if they are right: in packs without footer, and frames restored in part."""
        suspect = {ref for ref, pack in self.found.packs.items() if pack.footer is None} if self.share else set()
        relocations, bad = self.found.standing.relocations, unite(self.bad)
        restored = relocations.with_losses
        by_place: defaultdict[Place, dict[Segment, None]] = defaultdict(dict)
        for one in self.found.trees.segments(self.found.catalog) if suspect or restored else ():
            place = one.place
            in_part = one.pack in restored and relocations.is_lost(place)
            if in_part or not suspect.isdisjoint(part.pack for part in relocations.places(place) or [place]):
                by_place[place][one] = None
        unverified: list[Extents] = []
        compared: list[Extents] = []
        for place, segments in by_place.items():
            now = relocations.places(place) or [place]
            rows = extents_of_places(now)
            if rows.touched_by(bad).any():
                unverified.append(rows)
            else:
                in_part = place.pack in restored and relocations.is_lost(place)
                self._compare_segments(list(segments), now, in_part=in_part)
                compared.append(rows)
        told = unite([*self.bad, *compared])
        self._tell_unverified(without(unite(unverified), told), suspect)

    def _tell_unverified(self, rows: Extents, suspect: AbstractSet[PackRef]) -> None:
        """What of runs that are damaged elsewhere nothing tells about, as the footer is damaged too."""
        for ref, some in rows.by_pack():
            for start, stop in _ranges(some) if ref in suspect else ():
                self._tell("frame-unverified", ref, "Its run is damaged elsewhere, and the footer too.", start, stop)

    def _compare_segments(self, segments: Sequence[Segment], now: Sequence[Place], *, in_part: bool) -> None:
        """The segments of one place, which is read and decoded once."""
        (data,) = self.found.trees.packs.read_frames([segments[0].place])
        frames = data if isinstance(data, Corrupt) else decoded_frames(self.codecs.codec, data)
        for one in segments:
            problem = segment_problem(frames, one)
            if problem is not None and in_part:
                self.found.hollow.add(one)
                self._tell("content-lost", one.pack, problem, one.offset, one.offset + one.stored)
            elif problem is not None:
                self.bad.append(extents_of_places(now))
                for part in now:
                    self._tell("frame-damaged", part.pack, problem, part.offset, part.offset + part.stored)

    def _tell_nodes(self) -> None:
        """Nodes, lists and censuses that the store lacks, where no damaged frame says so already."""
        for one in self.found.trees.unread.values():
            place = one.ref.place
            now = (self.found.standing.relocations.places(place) or [place])[0]
            rows = extents_of_places([now])
            if rows.touched_by(self.found.bad).any():
                continue
            kind = "census-damaged" if one.kind is FrameKind.CENSUS else "node-damaged"
            self._tell(kind, now.pack, one.problem, now.offset, now.offset + now.stored)
            self.found.bad = unite([self.found.bad, rows])


def decoded_frames(codec: FrameCodec, data: memoryview) -> list[Frame] | Corrupt:
    """The frames of a run, or what is wrong with it."""
    try:
        return [codec.decode_frame(data[at : at + size], what="It") for at, size in frame_offsets(data, 0, what="It")]
    except Corrupt as error:
        return error


def segment_problem(frames: Sequence[Frame] | Corrupt, one: Segment) -> str | None:
    """What is wrong with the bytes of a segment; None where nothing is."""
    if isinstance(frames, Corrupt):
        return frames.what
    try:
        take_segment(frames, one.plain_offset, one.plain_length, one.digest, what="It")
    except Corrupt as error:
        return error.what
    return None


class _Codecs(local):
    """A codec for each thread."""

    def __init__(self) -> None:
        self.codec = FrameCodec()


def _ranges(rows: Extents) -> Iterator[tuple[int, int]]:
    return zip(rows.start.tolist(), rows.stop.tolist(), strict=True)


def _rows_of(leaf: Entries, chosen: frozenset[Segment] | set[Segment]) -> Bool:
    """The rows of a leaf that have one of some segments."""
    packs = {one.pack for one in chosen}
    near = (
        leaf.segment_sums(np.array([pack in packs for pack in leaf.segments.packs], np.bool_)[leaf.segments.pack]) > 0
    )
    for row in np.flatnonzero(near).tolist():
        near[row] = not chosen.isdisjoint(segments_of(leaf, row))
    return near


def _rows_touched(leaf: Entries, bad: Extents) -> Bool:
    """The rows of a leaf of whose segments one touches what is bad."""
    return leaf.segment_sums(extents_of_segments(leaf.segments).touched_by(bad)) > 0

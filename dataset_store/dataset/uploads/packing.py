"""Packing: contents into packs, and where each came to lie; here, or as jobs of an executor's workers.

A worker finds its share of the contents under the paths that the caller sees, puts what is new into packs of its own,
and tells where everything lies. It writes nothing to the store's log, so what it has put counts only once the caller
commits, and a job that is lost, or done twice, leaves packs that nothing names.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from itertools import islice

from msgspec import Struct

from dataset_store.core.arrays import I64
from dataset_store.core.digest import ChunkId, ContentId
from dataset_store.core.packfile import Footer, PackRef, Place
from dataset_store.core.segments import ChunkHit, FileSegments
from dataset_store.dataset.uploads.finding import finder
from dataset_store.dataset.uploads.sending import Sender
from dataset_store.dataset.uploads.unread import ReadFiles
from dataset_store.dataset.workspace import StoreAddress, opened_at
from dataset_store.errors import ObjectMissing, StorageFailed, WorkerFailed
from dataset_store.local.ingest import Ingested, SegmentAssembler, SourceFile, ingest
from dataset_store.local.jobs import cut_by_size, require_seen, results_in_order

__all__ = ["Packed", "pack", "pack_by"]

_JOB_BYTES = 256 << 20
_JOB_FILES = 16_384

Advance = Callable[[int, int], object]
"""Told of files and bytes that were packed since the last call."""


class Packed(Struct, frozen=True):
    """Where contents lie, each told by the index of its source.

    Attributes:
        blocks: Frames of contents of one chunk each: the place, and the index and length of each content, in order.
        several: Contents of several chunks.
        read: What the sources turned out to be that nobody had read, also those whose content lies elsewhere.
    """

    blocks: list[tuple[Place, Sequence[int], Sequence[int]]]
    several: list[tuple[int, FileSegments]]
    read: ReadFiles


def pack(
    sources: Iterable[SourceFile],
    earlier: Mapping[ChunkId, ChunkHit],
    sender: Sender,
    advance: Advance,
    stored: Iterable[ContentId] = (),
) -> Packed:
    """Append what the store lacks of contents to a sender's packs.

    Args:
        sources: In the order of their keys.
        earlier: Where chunks lie that are looked for first.
        sender: Its packs; what is told holds once they are flushed.
        advance: Told of each unit.
        stored: As of `ingest`.

    Raises:
        FileChanged, AccessDenied, StorageFailed: As `ingest`, or the store refused.
    """
    workspace = sender.workspace
    assembler = SegmentAssembler()
    packed = Packed([], [], ReadFiles())
    find = finder(workspace, earlier, sender.standing)
    for unit in ingest(sources, workspace.store.chunker, find, stored=stored):
        _append(unit, sender, assembler, packed)
        advance(len(unit.complete), unit.plain)
    # Lists follow all data, as the order of frames in a pack asks.
    several = [(index, sender.finish_list(found)) for index, found in packed.several]
    return Packed(packed.blocks, several, packed.read)


def _append(unit: Ingested, sender: Sender, assembler: SegmentAssembler, packed: Packed) -> None:
    """One unit: its short files become columns in the end, the others are assembled over several units."""
    places = sender.writer.append(unit.frames)
    sender.new_bytes += sum(frame.plain for frame in unit.frames)
    for block in unit.blocks:
        packed.blocks.append((places[block.frame], block.sources, unit.frames[block.frame].lengths))
    short = {index for block in unit.blocks for index in block.sources}
    complete = [index for index in unit.complete if index not in short]
    assembled = Ingested(unit.frames, [], unit.pieces, complete, repeated=unit.repeated)
    packed.several.extend(assembler.add(assembled, places))
    packed.read.add(unit.read)


class _Job(Struct, frozen=True):
    """Contents for one worker, the store and the number of its storage that they go to, and the state of its log."""

    store: StoreAddress
    slot: int
    storage: int
    sources: list[SourceFile]
    earlier: Mapping[ChunkId, ChunkHit]


class _Done(Struct, frozen=True):
    """What a worker has done: of how much, in which packs, and the plain bytes in these."""

    packed: Packed
    files: int
    size: int
    packs: list[PackRef]
    new_bytes: int


def pack_by(
    executor: Executor,
    sources: Iterator[SourceFile],
    sizes: I64,
    earlier: Callable[[Sequence[int]], Mapping[ChunkId, ChunkHit]],
    sender: Sender,
    advance: Advance,
) -> Generator[Packed, None, None]:
    """As `pack`, by the workers of an executor; yields what each job has done.

    Args:
        executor: Where they run.
        sources: In the order of their keys; made when they are asked for.
        sizes: Of each, shape (n,).
        earlier: Where chunks lie that are looked for first, for the sources of some indices.
        sender: Takes note of the packs, which lie in its storage.
        advance: Told of each job.
    """
    store = StoreAddress.of(sender.workspace)
    cuts = cut_by_size(sizes, _JOB_BYTES, _JOB_FILES)
    parts = (list(islice(sources, cut.stop - cut.start)) for cut in cuts)
    slot = sender.standing.slot
    jobs = (_Job(store, slot, sender.storage, part, earlier([one.index for one in part])) for part in parts)
    with closing(results_in_order(executor, _pack_job, jobs)) as results:
        for done in results:
            for ref, footer in zip(done.packs, _footers_put(done.packs, sender), strict=True):
                sender.note(ref, footer)
            sender.new_bytes += done.new_bytes
            advance(done.files, done.size)
            yield done.packed


def _footers_put(packs: Sequence[PackRef], sender: Sender) -> list[Footer]:
    """The footers of packs that a worker says it has put, as they lie in the caller's own storage.

    Raises:
        WorkerFailed: They are not there: the worker has another store, such as a copy on its own disk.
    """
    try:
        return sender.workspace.store.packs.read_footers(packs)
    except ObjectMissing as error:
        raise WorkerFailed(
            f"What a worker has put is not in {StoreAddress.of(sender.workspace).url} as it is seen from here.",
            "Workers must reach the same store under its URL, not a copy of it, and not one in memory.",
        ) from error


def _pack_job(job: _Job) -> _Done:
    first = next((source for source in job.sources if source.content is None), None)
    if first is not None:
        require_seen(os.path.dirname(first.path))
    workspace = opened_at(job.store)
    workspace.refresh()
    standing = workspace.store.standings.now()
    if standing.slot < job.slot:
        raise StorageFailed(
            f"The worker on {os.uname().nodename} sees an older state of {job.store.url} than the caller.",
            "Nothing was committed; repeat.",
        )
    sender = Sender(workspace, standing, job.storage)
    packed = pack(job.sources, job.earlier, sender, lambda _files, _bytes: None)
    sender.writer.flush()
    size = sum(one.size for one in job.sources)
    return _Done(packed, len(job.sources), size, sender.packs, sender.new_bytes)

"""A version's entries written into a folder: taken from copies that are like it, and fetched where none has them.

With an executor its workers fetch, check and write the files that no copy has. They must see the folder under the same
path.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import islice
from threading import Lock

from msgspec import Struct

from dataset_store.core.arrays import U64, Bool, Rows, np
from dataset_store.core.catalog import Version
from dataset_store.core.entries import KIND_BITS, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.paths import parent_key
from dataset_store.core.tree import lookup, read_all
from dataset_store.dataset.catalog.lineage import nearest_ancestors
from dataset_store.dataset.copies.symlinks import with_targets
from dataset_store.dataset.entries.links import fetcher
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.entries.selecting import Selection, entries_of
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.workspace import StoreAddress, Workspace, now_ns, opened_at
from dataset_store.errors import Corrupt, StorageFailed
from dataset_store.local.durable import flush_file_system
from dataset_store.local.folder import remember_folder
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.jobs import cut_by_size, require_seen, results_in_order
from dataset_store.local.materialise import Progress, Reuse, materialise
from dataset_store.local.os_errors import naming_writes
from dataset_store.local.removal import remove_tree
from dataset_store.local.seeds import ChunkReuse, Seed, copy_unchanged, link_unchanged
from dataset_store.local.stat_cache import SETTLE_NS
from dataset_store.storage.trees import root_of

__all__ = ["fill", "remember_copy"]

_MOST_SEEDS = 2
_NEAR = 256
_JOB_BYTES = 64 << 20
_JOB_FILES = 16_384
_TRIES, _PAUSE = 100, 0.05  # seconds


def fill(
    workspace: Workspace,
    version: Version,
    selected: Selection,
    folder: str,
    *,
    read_only: bool,
    left: str | None = None,
    executor: Executor | None = None,
) -> Entries:
    """Write the selected entries into an empty folder; what was written.

    Args:
        workspace: The store.
        version: Of which.
        selected: Which of its entries.
        folder: The folder.
        read_only: Whether its files may be shared, and so not be changed.
        left: A folder where that was begun.
        executor: Whose workers fetch and write what is not on this machine; by default this process does.
    """
    with workspace.reading(version.id), ExitStack() as stack:
        entries = _selected(workspace, version, selected)
        done: Bool = np.zeros(len(entries), np.bool_)
        writer = stack.enter_context(FolderWriter(folder, read_only=read_only))
        seeds = [Seed(os.fsencode(left), entries)] if left else []
        seeds += _seeds(workspace, version, entries, stack)
        for seed in seeds:
            take = link_unchanged if read_only else copy_unchanged
            done = take(entries, seed, writer, done)
        wanted = int(entries.sizes[~done].sum()), int((~done).sum())
        with progress_bar("fetching", *wanted, show=True) as told:
            if executor is not None:
                scratch = os.path.join(os.fsencode(folder), b"." + os.urandom(16).hex().encode())
                target = _Target(StoreAddress.of(workspace), version.id, os.fsencode(folder), scratch, read_only)
                done = _filled_by(executor, target, entries, writer, done, told)
            materialise(
                entries,
                writer,
                workspace.store.packs,
                done=done,
                external=fetcher(workspace, entries, done),
                reuse=_reuse(workspace, entries, seeds),
                progress=told,
            )
        if read_only:
            writer.seal()
    return entries


def _selected(workspace: Workspace, version: Version, selected: Selection) -> Entries:
    entries = entries_of(version.entry.tree, selected, workspace.store.nodes)
    if selected.files is not None and selected.parts == 1:
        return with_targets(workspace, root_of(version.entry.tree), entries)
    return entries


class _Target(Struct, frozen=True):
    """The folder that workers fill, and the version that they fill it with.

    Each run of a job writes into a folder of its own in `scratch`, and moves whole files from there: so two runs of one
    job leave the same at every moment. `scratch` is of a random name and is there while the call lasts: a run that is
    late finds it no more, and ends.
    """

    store: StoreAddress
    version_id: str
    folder: bytes
    scratch: bytes
    read_only: bool


def _filled_by(
    executor: Executor, target: _Target, entries: Entries, writer: FolderWriter, done: Bool, told: Progress
) -> Bool:
    """Let the workers of an executor write the files that are not done yet; the rows that are done then.

    Directories are made here, and links later, when all files stand.
    """
    kinds = entries.kinds & KIND_BITS
    theirs: Bool = ~done & (((kinds == Kind.FILE) & (entries.sizes > 0)) | (kinds == Kind.EXTERNAL))
    rows = _by_place(entries, np.flatnonzero(theirs))
    for directory in sorted({parent_key(entries.keys[row]) for row in rows.tolist()}):
        writer.make_directory(directory)
    cuts = cut_by_size(entries.sizes[rows].astype(np.int64), _JOB_BYTES, _JOB_FILES)
    jobs = (entries.take(np.sort(rows[cut])) for cut in cuts)
    revoke = partial(_remove_used, target.scratch)
    os.mkdir(target.scratch, 0o700)
    try:
        with closing(results_in_order(executor, partial(_fill_job, target), jobs, revoke)) as results:
            for written in results:
                told(len(written), int(written.sum()))
    finally:
        revoke()
    now_done: Bool = done | theirs
    return now_done


def _by_place(entries: Entries, rows: Rows) -> Rows:
    """Rows in the order in which their contents lie in packs, so that few frames are read for two jobs."""
    segments, firsts = entries.segments, (entries.segment_ends - entries.segment_counts)[rows]
    return rows[np.lexsort((segments.plain_offset[firsts], segments.offset[firsts], segments.pack[firsts]))]


def _remove_used(folder: bytes) -> None:
    """Remove a folder that others may be writing into, who end when they notice."""
    for _ in range(_TRIES):
        with suppress(StorageFailed):
            remove_tree(folder)
            return
        time.sleep(_PAUSE)
    remove_tree(folder)


def _fill_job(target: _Target, entries: Entries) -> U64:
    """Write some of the files; their sizes."""
    require_seen(target.scratch)
    workspace = opened_at(target.store)
    workspace.version(target.version_id)  # now the log is known as far as that
    own = os.path.join(target.scratch, os.urandom(8).hex().encode())
    none = np.zeros(len(entries), np.bool_)
    with naming_writes(own):
        os.mkdir(own, 0o700)
        with FolderWriter(own, read_only=target.read_only) as writer, FolderWriter(target.folder) as whole:
            external = fetcher(workspace, entries, none)
            materialise(entries, writer, workspace.store.packs, done=none, external=external)
            whole.take_over(writer, entries.keys)
        remove_tree(own)
        flush_file_system(os.fsdecode(target.folder))  # another machine cannot do it
    return entries.sizes


def _seeds(workspace: Workspace, version: Version, entries: Entries, stack: ExitStack) -> list[Seed]:
    """The copies most like this version: itself, then near ancestors, then its series; locked until the stack ends.

    A copy whose version cannot be read any more is no seed. Of a seed's entries those are read that can help: all, or
    where few are wanted those under the same paths.
    """
    copies = workspace.copies.all()
    lineage = islice(nearest_ancestors(workspace.catalog, version), _NEAR if copies else 0)
    nearness = {one.id: at for at, one in enumerate(lineage)}
    near = [copy for copy in copies if copy.version_id in nearness]
    near.sort(key=lambda copy: (not copy.is_whole, nearness[copy.version_id]))
    series = [copy for copy in copies if copy not in near and _series(workspace, copy.version_id) == version.series]
    found = []
    few = len(entries) * 16 < version.entry.stats.files
    nodes = workspace.store.nodes
    for copy in (near + series)[:_MOST_SEEDS]:
        held = stack.enter_context(workspace.copies.using(copy.copy_id))
        if held is not None and held.stamp.tree is not None:
            with suppress(Corrupt):
                tree = root_of(held.stamp.tree)
                rows = lookup(tree, entries.keys, nodes) if few else read_all(tree, nodes)
                found.append(Seed(os.fsencode(held.path), with_lists(rows, nodes)))
    return found


def _series(workspace: Workspace, version_id: str) -> str | None:
    version = workspace.catalog.version(version_id)
    return version.series if version else None


def _reuse(workspace: Workspace, entries: Entries, seeds: Sequence[Seed]) -> Reuse:
    footers: dict[PackRef, Footer] = {}
    asking = Lock()  # of two segments that need one footer, one fetches it

    def footer(pack: PackRef) -> Footer:
        with asking:
            if pack not in footers:
                footers[pack] = workspace.footers([pack])[pack]
        return footers[pack]

    sources = [ChunkReuse(entries, seed, footer) for seed in seeds]
    return lambda row, segment, opened, target: any(one(row, segment, opened, target) for one in sources)


def remember_copy(workspace: Workspace, entries: Entries, folder: str) -> None:
    """Remember the copy's files, so that the next sync opens only what was changed."""
    time.sleep(SETTLE_NS / 1e9)
    remember_folder(folder, entries, workspace.stats, now_ns())

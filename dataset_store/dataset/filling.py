"""A version's entries written into a folder: taken from copies that are like it, and fetched where none has them."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from dataset_store.core.arrays import Bool, np
from dataset_store.core.catalog import Version
from dataset_store.core.entries import Entries
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.tree import lookup, read_all
from dataset_store.dataset.lineage import dependency_graph
from dataset_store.dataset.links import fetcher
from dataset_store.dataset.lists import with_lists
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.selecting import Selection, entries_of
from dataset_store.dataset.symlinks import with_targets
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import Corrupt
from dataset_store.local.folder import remember_folder
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.materialise import Reuse, materialise
from dataset_store.local.seeds import ChunkReuse, Seed, copy_unchanged, link_unchanged
from dataset_store.local.stat_cache import SETTLE_NS
from dataset_store.storage.trees import root_of

__all__ = ["fill", "remember_copy"]

_MOST_SEEDS = 2


def fill(
    workspace: Workspace,
    version: Version,
    selected: Selection,
    folder: str,
    *,
    read_only: bool,
    left: str | None = None,
) -> Entries:
    """Write the selected entries into an empty folder; what was written. `left` is a folder where that was begun."""
    with workspace.reading(version.id):
        return _written(workspace, version, selected, folder, read_only=read_only, left=left)


def _written(
    workspace: Workspace,
    version: Version,
    selected: Selection,
    folder: str,
    *,
    read_only: bool,
    left: str | None,
) -> Entries:
    entries = entries_of(version.entry.tree, selected, workspace.repository.nodes)
    if selected.files is not None and selected.parts == 1:
        entries = with_targets(workspace, root_of(version.entry.tree), entries)
    done: Bool = np.zeros(len(entries), np.bool_)
    with ExitStack() as stack:
        writer = stack.enter_context(FolderWriter(folder, read_only=read_only))
        seeds = [Seed(os.fsencode(left), entries)] if left else []
        seeds += _seeds(workspace, version, entries, stack)
        for seed in seeds:
            take = link_unchanged if read_only else copy_unchanged
            done = take(entries, seed, writer, done)
        wanted = int(entries.sizes[~done].sum()), int((~done).sum())
        with progress_bar("fetching", *wanted, show=True) as told:
            materialise(
                entries,
                writer,
                workspace.repository.packs,
                done=done,
                external=fetcher(workspace, entries, done),
                reuse=_reuse(workspace, entries, seeds),
                progress=told,
            )
        if read_only:
            writer.seal()
    return entries


def _seeds(workspace: Workspace, version: Version, entries: Entries, stack: ExitStack) -> list[Seed]:
    """The copies most like this version: itself, then its ancestors, then its series; locked until the stack ends.

    A copy whose version cannot be read any more is no seed. Of a seed's entries those are read that can help: all, or
    where few are wanted those under the same paths.
    """
    lineage = dependency_graph(workspace.catalog, version.id, version.entry.parents)
    nearness = {version_id: at for at, version_id in enumerate(lineage)}
    copies = workspace.copies.all()
    near = [copy for copy in copies if copy.version_id in nearness]
    near.sort(key=lambda copy: (not copy.is_whole, nearness[copy.version_id]))
    series = [copy for copy in copies if copy not in near and _series(workspace, copy.version_id) == version.series]
    found = []
    few = len(entries) * 16 < version.entry.stats.files
    nodes = workspace.repository.nodes
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

    def footer(pack: PackRef) -> Footer:
        if pack not in footers:
            footers[pack] = workspace.footers([pack])[pack]
        return footers[pack]

    sources = [ChunkReuse(entries, seed, footer) for seed in seeds]
    return lambda row, segment, opened, target: any(one(row, segment, opened, target) for one in sources)


def remember_copy(workspace: Workspace, entries: Entries, folder: str) -> None:
    """Remember the copy's files, so that the next sync opens only what was changed."""
    time.sleep(SETTLE_NS / 1e9)
    remember_folder(folder, entries, workspace.stats, now_ns())

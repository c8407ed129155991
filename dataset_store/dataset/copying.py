"""Versions as folders: read-only local copies from the cache, and mutable copies of the caller's own."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from dataset_store.core.catalog import Version
from dataset_store.core.entries import Bool, Entries
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.tree import read_all
from dataset_store.dataset.lineage import dependency_graph
from dataset_store.dataset.lists import with_lists
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import Corrupt, DatasetNotFound, InvalidRequest, TargetNotEmpty
from dataset_store.local.folder import remember_folder
from dataset_store.local.folder_writer import FolderWriter, remove_tree
from dataset_store.local.local_copies import LocalCopy, Stamp
from dataset_store.local.materialise import Reuse, materialise
from dataset_store.local.os_errors import writing_error
from dataset_store.local.seeds import ChunkReuse, Seed, copy_unchanged, link_unchanged
from dataset_store.local.stat_cache import SETTLE_NS
from dataset_store.storage.trees import root_of

__all__ = ["local_copy", "mutable_copy", "version_entries"]

_MOST_SEEDS = 2


def local_copy(workspace: Workspace, version: Version) -> LocalCopy:
    """The local copy of a version, made if it is not there."""
    held = workspace.copies.find(version.id)
    if held is not None:
        return held
    if version.deleted:
        raise DatasetNotFound(f"The version {version.id} was deleted.", "Its children can still be read.")
    stamp = Stamp(version.entry.tree, version.entry.stats.bytes)
    with _naming(workspace.copies.directory):
        return workspace.copies.make(
            version.id, stamp, lambda folder: _fill(workspace, version, folder, read_only=True)
        )


def mutable_copy(workspace: Workspace, version: Version, target: str, *, overwrite: bool) -> str:
    """A folder of the caller's own that holds a version.

    It is written beside the target and then renamed, so the target is whole or what it was.
    """
    target = os.path.abspath(target)
    if "\0" in target:
        raise InvalidRequest(f"{target!r} cannot be a folder.", "Give the path of a folder.")
    with _naming(target):
        occupied = os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target))
        if occupied and not overwrite:
            raise TargetNotEmpty(f"The folder {target!r} is not empty.", "Choose another, or pass overwrite=True.")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        private = f"{target}.{secrets.token_hex(4)}.part"
        os.mkdir(private, 0o777)
        try:
            _fill(workspace, version, private, read_only=False)
            _put_in_place(private, target)
        except BaseException:
            remove_tree(private)
            raise
    _prime_stat_cache(workspace, version, target)
    return target


@contextmanager
def _naming(folder: str) -> Iterator[None]:
    """Turns an error of the operating system into one of this package that names the folder."""
    try:
        yield
    except OSError as error:
        raise writing_error(error, folder) from error


def _put_in_place(private: str, target: str) -> None:
    if not os.path.lexists(target):
        os.rename(private, target)
        return
    old = f"{private}.old"
    os.rename(target, old)
    try:
        os.rename(private, target)
    except BaseException:
        os.rename(old, target)
        raise
    remove_tree(old)


def _fill(workspace: Workspace, version: Version, folder: str, *, read_only: bool) -> None:
    entries = version_entries(workspace, version.entry.tree)
    done: Bool = np.zeros(len(entries), np.bool_)
    with ExitStack() as stack:
        writer = stack.enter_context(FolderWriter(folder, read_only=read_only))
        seeds = _seeds(workspace, version, stack)
        for seed in seeds:
            take = link_unchanged if read_only else copy_unchanged
            done = take(entries, seed, writer, done)
        materialise(
            entries, writer, workspace.repository.packs.read_ranges, done=done, reuse=_reuse(workspace, entries, seeds)
        )


def _seeds(workspace: Workspace, version: Version, stack: ExitStack) -> list[Seed]:
    """The copies most like this version: itself, then its ancestors, then its series; locked until the stack ends.

    A copy whose version cannot be read any more is no seed.
    """
    lineage = dependency_graph(workspace.catalog, version.id, version.entry.parents)
    nearness = {version_id: at for at, version_id in enumerate(lineage)}
    copies = workspace.copies.all()
    near = sorted((copy for copy in copies if copy.version_id in nearness), key=lambda c: nearness[c.version_id])
    series = [copy for copy in copies if copy not in near and _series(workspace, copy.version_id) == version.series]
    found = []
    for copy in (near + series)[:_MOST_SEEDS]:
        held = stack.enter_context(workspace.copies.using(copy.version_id))
        if held is not None:
            with suppress(Corrupt):
                found.append(Seed(os.fsencode(held.path), version_entries(workspace, held.stamp.tree)))
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


def version_entries(workspace: Workspace, tree: TreeRootRow) -> Entries:
    """All entries of a tree, with every segment list expanded."""
    nodes = workspace.repository.nodes
    return with_lists(read_all(root_of(tree), nodes), nodes)


def _prime_stat_cache(workspace: Workspace, version: Version, folder: str) -> None:
    """Remember the copy's files, so that the next sync opens only what was changed."""
    time.sleep(SETTLE_NS / 1e9)
    entries = read_all(root_of(version.entry.tree), workspace.repository.nodes)
    remember_folder(folder, entries, workspace.stats, now_ns())

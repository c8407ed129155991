"""Versions as folders: read-only local copies from the cache, and mutable copies of the caller's own."""

import os
import secrets
import stat
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
from dataset_store.dataset.progress import progress_bar, waiting
from dataset_store.dataset.selecting import EVERYTHING, Selection, entries_of
from dataset_store.dataset.symlinks import with_targets
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import Corrupt, InvalidRequest, TargetNotEmpty
from dataset_store.local.folder import remember_folder
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.local_copies import LocalCopy, Stamp, copy_id_of
from dataset_store.local.materialise import Reuse, materialise
from dataset_store.local.os_errors import naming_writes
from dataset_store.local.removal import remove_tree
from dataset_store.local.seeds import ChunkReuse, Seed, copy_unchanged, link_unchanged
from dataset_store.local.stat_cache import SETTLE_NS
from dataset_store.storage.trees import root_of

__all__ = ["local_copy", "mutable_copy"]

_MOST_SEEDS = 2


def local_copy(workspace: Workspace, version: Version, selected: Selection = EVERYTHING) -> LocalCopy:
    """The local copy of a version, or of some of its entries, made if it is not there."""
    copy_id = copy_id_of(version.id, selected.token)
    with waiting("waiting for another process that makes this copy", show=True):
        held = workspace.copies.find(copy_id)
    if held is not None:
        return held
    workspace.live_version(version.id)

    def fill(folder: str, left: str | None) -> Stamp:
        entries = _fill(workspace, version, selected, folder, read_only=True, left=left)
        return Stamp(int(entries.sizes.sum()), version.entry.tree)

    with naming_writes(workspace.copies.directory):
        return workspace.copies.make(copy_id, fill)


def mutable_copy(
    workspace: Workspace, version: Version, target: str, *, overwrite: bool, selected: Selection = EVERYTHING
) -> str:
    """A folder of the caller's own that holds a version, or some of its entries.

    It is written beside the target and then renamed, so the target is whole or what it was. A folder that cannot be
    replaced (a mount point, one whose parent may not be written, the one that the caller stands in) is filled from a
    folder inside it once that is whole.
    """
    if not target or "\0" in target:
        raise InvalidRequest(f"{target!r} cannot be a folder.", "Give the path of a folder.")
    wanted = os.path.abspath(target)
    folder = os.path.realpath(wanted)  # a link to a folder means the folder
    with naming_writes(wanted):
        own = [os.path.realpath(path) for path in workspace.own_paths()]
        _require_apart(wanted, folder, own)
        if _require_vacant(wanted, folder, overwrite=overwrite):
            _require_replaceable(wanted, folder, own)
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        stays = os.path.isdir(folder) and _must_stay(folder)
        private = _beside(os.path.join(folder, ".new") if stays else folder)
        os.mkdir(private, 0o777)
        try:
            entries = _fill(workspace, version, selected, private, read_only=False)
            if stays:
                _move_up(private, folder)
            else:
                _put_in_place(private, folder)
        except BaseException:
            remove_tree(private)
            raise
    _prime_stat_cache(workspace, entries, wanted)
    return wanted


def _beside(path: str) -> str:
    return f"{path}.{secrets.token_hex(4)}.part"


def _require_vacant(wanted: str, folder: str, *, overwrite: bool) -> bool:
    """See to it that a copy may be put there; whether there is something that it replaces.

    Raises:
        TargetNotEmpty: There is a file, or a folder that holds something and is not to be overwritten.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise TargetNotEmpty(f"{wanted!r} is a file and no folder.", "Choose another place; it was left as it is.")
    occupied = os.path.isdir(folder) and bool(os.listdir(folder))
    if occupied and not overwrite:
        raise TargetNotEmpty(f"The folder {wanted!r} is not empty.", "Choose another, or pass overwrite=True.")
    return occupied


def _require_apart(wanted: str, folder: str, own: Sequence[str]) -> None:
    """See to it that a copy does not come to lie in the store or the cache, such as behind a link to a local copy.

    Raises:
        TargetNotEmpty: It would.
    """
    for path in own:
        if folder.startswith(f"{path}/"):
            raise TargetNotEmpty(f"{wanted!r} lies in {path}.", "Choose another folder; nothing was changed.")


def _require_replaceable(wanted: str, folder: str, own: Sequence[str]) -> None:
    """See to it that what a folder holds can be no more than an older copy.

    Raises:
        TargetNotEmpty: It is somebody's home or the root of a file system, or the store lies in it.
    """
    if folder in {"/", os.path.realpath(os.path.expanduser("~"))}:
        raise TargetNotEmpty(f"{wanted!r} is no folder to replace.", "Choose another; nothing was changed.")
    for path in own:
        if f"{path}/".startswith(f"{folder}/"):
            raise TargetNotEmpty(f"The folder {wanted!r} holds {path}.", "Choose another; nothing was changed.")


def _must_stay(folder: str) -> bool:
    """Whether a folder cannot be renamed, or somebody would be left standing in what was renamed away."""
    writable = os.access(os.path.dirname(folder), os.W_OK | os.X_OK)
    return os.path.ismount(folder) or not writable or f"{os.path.realpath('.')}/".startswith(f"{folder}/")


def _move_up(private: str, folder: str) -> None:
    """Replace what a folder holds by what a folder inside it holds."""
    own = os.path.basename(private)
    for name in os.listdir(folder):
        if name != own:
            remove_tree(os.path.join(folder, name))
    for name in os.listdir(private):
        os.rename(os.path.join(private, name), os.path.join(folder, name))
    os.rmdir(private)


def _put_in_place(private: str, target: str) -> None:
    if not os.path.lexists(target):
        os.rename(private, target)
        return
    os.chmod(private, stat.S_IMODE(os.stat(target).st_mode))
    old = f"{private}.old"
    os.rename(target, old)
    try:
        os.rename(private, target)
    except BaseException:
        os.rename(old, target)
        raise
    remove_tree(old)


def _fill(
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


def _prime_stat_cache(workspace: Workspace, entries: Entries, folder: str) -> None:
    """Remember the copy's files, so that the next sync opens only what was changed."""
    time.sleep(SETTLE_NS / 1e9)
    remember_folder(folder, entries, workspace.stats, now_ns())

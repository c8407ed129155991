"""Versions as folders: read-only local copies from the cache, and mutable copies of the caller's own.

A copy that is there is found by this module alone: what writes one is loaded by the first that is made.
"""

import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataset_store.core.catalog import Version
from dataset_store.dataset.entries.selecting import EVERYTHING, Selection
from dataset_store.dataset.progress import waiting
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import InvalidRequest, TargetNotEmpty
from dataset_store.local.local_copies import LocalCopy, Stamp, copy_id_of
from dataset_store.local.os_errors import naming_writes
from dataset_store.local.removal import remove_tree

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["local_copy", "mutable_copy"]


def local_copy(
    workspace: Workspace, version: Version, selected: Selection = EVERYTHING, executor: "Executor | None" = None
) -> LocalCopy:
    """The local copy of a version, or of some of its entries, made if it is not there (by an executor's workers)."""
    copy_id = copy_id_of(version.id, selected.token)
    with waiting("waiting for another process that makes this copy", show=True):
        held = workspace.copies.find(copy_id)
    if held is not None:
        return held
    workspace.live_version(version.id)
    from dataset_store.dataset.copies.filling import fill

    def filled(folder: str, left: str | None) -> Stamp:
        entries = fill(workspace, version, selected, folder, read_only=True, left=left, executor=executor)
        return Stamp(int(entries.sizes.sum()), version.entry.tree)

    with naming_writes(workspace.copies.directory):
        return workspace.copies.make(copy_id, filled)


def mutable_copy(
    workspace: Workspace,
    version: Version,
    target: str,
    *,
    overwrite: bool,
    selected: Selection = EVERYTHING,
    executor: "Executor | None" = None,
) -> str:
    """A folder of the caller's own that holds a version, or some of its entries.

    It is written beside the target and then renamed, so the target is whole or what it was. A folder that cannot be
    replaced (a mount point, one whose parent may not be written, the one that the caller stands in) is filled from a
    folder inside it once that is whole.
    """
    from dataset_store.dataset.copies.filling import fill, remember_copy

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
            entries = fill(workspace, version, selected, private, read_only=False, executor=executor)
            if stays:
                _move_up(private, folder)
            else:
                _put_in_place(private, folder)
        except BaseException:
            remove_tree(private)
            raise
    remember_copy(workspace, entries, wanted)
    return wanted


def _beside(path: str) -> str:
    return f"{path}.{os.urandom(4).hex()}.part"


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

"""Local copies: read-only folders of versions, kept in a bounded cache.

A copy is written into a private folder, renamed into place, and stamped last, so a stamp says that the folder is
whole. Whoever was given a copy's path holds a shared kernel lock on it until its process ends; a copy is removed only
under the exclusive lock, so never while in use, and a killed process leaves nothing locked.

What a user does to a copy's files is not watched: they are read-only, and verify finds changes.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from dataset_store.core.log_entries import TreeRootRow
from dataset_store.local.folder_writer import remove_tree

__all__ = ["LocalCopies", "LocalCopy", "Stamp"]


class Stamp(msgspec.Struct, frozen=True):
    """What a finished copy says of itself: its tree, and the sum of its entries' sizes in bytes."""

    tree: TreeRootRow
    size: int


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """One finished copy."""

    version_id: str
    path: str
    stamp: Stamp


class LocalCopies:
    """The local copies of one store's versions.

    Args:
        directory: Their folder.
        byte_limit: Copies not in use are removed, least recently used first, while their sizes exceed this together.
    """

    def __init__(self, directory: str, byte_limit: int) -> None:
        self.directory = directory
        self.byte_limit = byte_limit
        self._held: dict[str, int] = {}

    def find(self, version_id: str) -> LocalCopy | None:
        """The finished copy of a version, now in use by this process; None where there is none."""
        if version_id not in self._held:
            if self._stamp(version_id) is None:
                return None
            self._held[version_id] = self._lock(version_id, fcntl.LOCK_SH)
        stamp = self._stamp(version_id)
        path = self._path(version_id)
        if stamp is None or not os.path.isdir(path):
            self._release(version_id)
            return None
        os.utime(self._stamp_path(version_id))
        return LocalCopy(version_id, path, stamp)

    def make(self, version_id: str, stamp: Stamp, fill: Callable[[str], object]) -> LocalCopy:
        """The copy of a version, made by `fill` (given an empty private folder) unless another process just did.

        Several callers may ask for one version at once: one makes it, the others wait and share it.
        """
        self._release(version_id)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        descriptor = self._lock(version_id, fcntl.LOCK_EX)
        try:
            if self._stamp(version_id) is None:
                self._fill(version_id, stamp, fill)
        except BaseException:
            os.close(descriptor)
            raise
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._held[version_id] = descriptor
        self.evict()
        made = self.find(version_id)
        return made if made is not None else self.make(version_id, stamp, fill)

    def all(self) -> list[LocalCopy]:
        """Every finished copy, the most recently used first. None is in use because of this call."""
        found = []
        for version_id in self._ids():
            stamp = self._stamp(version_id)
            if stamp is not None:
                used = _mtime(self._stamp_path(version_id))
                found.append((used, LocalCopy(version_id, self._path(version_id), stamp)))
        return [copy for _, copy in sorted(found, key=lambda row: -row[0])]

    @contextmanager
    def using(self, version_id: str) -> Iterator[LocalCopy | None]:
        """A finished copy that is not removed within the block; None where it is gone or is being removed."""
        if version_id in self._held:
            yield self.find(version_id)
            return
        descriptor = self._lock(version_id, fcntl.LOCK_SH)
        try:
            stamp = self._stamp(version_id)
            yield LocalCopy(version_id, self._path(version_id), stamp) if stamp else None
        finally:
            os.close(descriptor)

    def evict(self) -> list[str]:
        """Remove copies over the byte limit that nobody uses; their version ids."""
        copies = self.all()
        total = sum(copy.stamp.size for copy in copies)
        removed = []
        for copy in reversed(copies):
            if total <= self.byte_limit:
                break
            if self.remove(copy.version_id):
                total -= copy.stamp.size
                removed.append(copy.version_id)
        return removed

    def remove(self, version_id: str) -> bool:
        """Remove one copy unless it is in use; whether it is gone."""
        if version_id in self._held:
            return False
        try:
            descriptor = self._lock(version_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            _unlink(self._stamp_path(version_id))
            remove_tree(os.fsencode(self._path(version_id)))
        finally:
            os.close(descriptor)
        return True

    def _fill(self, version_id: str, stamp: Stamp, fill: Callable[[str], object]) -> None:
        private = self._path(version_id) + ".making"
        # Both are left by a process that died here; the exclusive lock says that it is gone.
        for leftover in (private, self._path(version_id)):
            remove_tree(os.fsencode(leftover))
        os.mkdir(private, 0o700)
        try:
            fill(private)
        except BaseException:
            remove_tree(os.fsencode(private))
            raise
        os.chmod(private, 0o755)  # noqa: S103  (its parent is 0700)
        os.rename(private, self._path(version_id))
        temporary = self._stamp_path(version_id) + ".new"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(stamp))
        os.rename(temporary, self._stamp_path(version_id))

    def _ids(self) -> list[str]:
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        return [name.removesuffix(".stamp") for name in names if name.endswith(".stamp")]

    def _stamp(self, version_id: str) -> Stamp | None:
        try:
            with open(self._stamp_path(version_id), "rb") as file:
                return msgspec.json.decode(file.read(), type=Stamp)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _path(self, version_id: str) -> str:
        return os.path.join(self.directory, version_id)

    def _stamp_path(self, version_id: str) -> str:
        return self._path(version_id) + ".stamp"

    def _lock(self, version_id: str, operation: int) -> int:
        """Lock a version's copy; the descriptor that holds the lock. Lock files are never removed."""
        path = self._path(version_id) + ".lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _release(self, version_id: str) -> None:
        descriptor = self._held.pop(version_id, None)
        if descriptor is not None:
            os.close(descriptor)


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

"""Local copies: read-only folders of versions, or of downloaded files, kept in a bounded cache.

A copy is written into a private folder, flushed, renamed into place, and stamped last, so a stamp says that the folder
is whole, also after a power cut. Whoever was given a copy's path holds a shared kernel lock on it until its process
ends; a copy is removed only under the exclusive lock, so never while in use, and a killed process leaves nothing
locked.

What a making that was broken off has written is handed to the next one, which takes from it what it can check. It is
kept until the machine is started anew: after a power failure a file's size and time may stand where its bytes do not.

What a user does to a copy is not watched: its files and folders are read-only, and verify finds changes.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import msgspec
from msgspec import Struct

from dataset_store.core.digest import hash32
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.errors import AccessDenied, Conflict, DiskFull, StorageFailed
from dataset_store.local.durable import flush_tree
from dataset_store.local.private import make_private
from dataset_store.local.removal import remove_tree

__all__ = ["LocalCopies", "LocalCopy", "Stamp", "copy_id_of"]

_MAKING = ".making"
_LEFT = ".left"
_PIN = ".pin"
_OF_SOME = "-"
_LOOK_AGAIN = 64
"""Copies that a process makes before it looks again at what all have made."""

_TRIES = 200
_PAUSE = 0.05  # seconds


class Stamp(msgspec.Struct, frozen=True):
    """What a finished copy says of itself: the sum of its entries' sizes in bytes, and of a version its tree.

    `source` tells what it was made from, for whoever cannot ask for the state that its id is made of.
    """

    size: int
    tree: TreeRootRow | None = None
    source: str | None = None


class LocalCopy(Struct, frozen=True):
    """One finished copy, of a whole version or of some of its entries."""

    copy_id: str
    path: str
    stamp: Stamp

    @property
    def version_id(self) -> str:
        """The version that it is a copy of."""
        return self.copy_id.partition(_OF_SOME)[0]

    @property
    def is_whole(self) -> bool:
        """Whether it has all entries of the version."""
        return _OF_SOME not in self.copy_id


def copy_id_of(version_id: str, selection: str) -> str:
    """The id of the copy of some entries of a version; `selection` tells selections apart, the empty one is all."""
    return f"{version_id}{_OF_SOME}{selection}" if selection else version_id


Fill = Callable[[str, str | None], Stamp]
"""Writes a copy into an empty private folder; is also given the folder of a making that was broken off, if there is."""


class LocalCopies:
    """The local copies of one store's versions, or of one kind of files.

    Args:
        directory: Their folder.
        byte_limit: Copies not in use are removed, least recently used first, while their sizes exceed this together.
        count_limit: The same while there are more copies than this; none is no limit.
    """

    def __init__(self, directory: str, byte_limit: int, count_limit: int | None = None) -> None:
        self.directory = directory
        self.byte_limit = byte_limit
        self.count_limit = count_limit
        self._held: dict[str, int] = {}
        # What this process may still add before it looks at all copies again; others add too.
        self._room, self._places = -1, -1

    def find(self, copy_id: str) -> LocalCopy | None:
        """The finished copy of a version, now in use by this process; None where there is none.

        One that is being made is waited for.
        """
        if copy_id not in self._held:
            if not os.path.lexists(self._lock_path(copy_id)):
                return None
            self._hold(copy_id, self._lock(copy_id, fcntl.LOCK_SH))
        stamp = self._stamp(copy_id)
        if stamp is None or not self._is_whole(copy_id):
            self._release(copy_id)
            return None
        os.utime(self._stamp_path(copy_id))
        return LocalCopy(copy_id, self._path(copy_id), stamp)

    def make(self, copy_id: str, fill: Fill) -> LocalCopy:
        """The copy of a version, made by `fill` unless another process just did.

        Several callers may ask for one version at once: one makes it, the others wait and share it.
        """
        make_private(self.directory)
        for _ in range(_TRIES):
            made = self.find(copy_id) or self._make(copy_id, fill)
            if made is not None:
                return made
            time.sleep(_PAUSE)
        raise Conflict(
            f"The local copy {self._path(copy_id)} was removed while another process uses it.",
            "End that process, then repeat.",
        )

    def _make(self, copy_id: str, fill: Fill) -> LocalCopy | None:
        """As `make`; None where another process makes the copy, or uses one: look for that one then.

        Nobody waits for the exclusive lock: whoever is given a copy keeps a shared lock until its process ends.
        """
        try:
            descriptor = self._lock(copy_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        try:
            if not self._is_whole(copy_id):
                self._fill(copy_id, fill)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except BaseException:
            os.close(descriptor)
            raise
        self._hold(copy_id, descriptor)
        self._make_room(copy_id)
        # Between the two locks the copy was nobody's for a moment.
        return self.find(copy_id)

    def all(self) -> list[LocalCopy]:
        """Every finished copy, the most recently used first. None is in use because of this call."""
        found = []
        for copy_id in self._ids():
            stamp = self._stamp(copy_id)
            if stamp is not None and os.path.isdir(self._path(copy_id)):
                used = _mtime(self._stamp_path(copy_id))
                found.append((used, LocalCopy(copy_id, self._path(copy_id), stamp)))
        return [copy for _, copy in sorted(found, key=lambda row: -row[0])]

    @contextmanager
    def using(self, copy_id: str) -> Iterator[LocalCopy | None]:
        """A finished copy that is not removed within the block; None where it is gone or is being removed."""
        if copy_id in self._held:
            yield self.find(copy_id)
            return
        descriptor = self._lock(copy_id, fcntl.LOCK_SH)
        try:
            stamp = self._stamp(copy_id)
            yield LocalCopy(copy_id, self._path(copy_id), stamp) if stamp else None
        finally:
            os.close(descriptor)

    def pin(self, copy_id: str, link: str) -> None:
        """Keep a copy as long as a symbolic link leads to it, whoever made the link and whatever the limits say."""
        name = f"{self._path(copy_id)}.{hash32(os.fsencode(link)).hex()[:16]}{_PIN}"
        with open(name, "wb") as file:
            file.write(os.fsencode(link))

    def _pinned(self) -> set[str]:
        """The copies that links lead to; pins of links that lead elsewhere, or are gone, are removed."""
        pinned = set()
        for name in self._names():
            if name.endswith(_PIN):
                copy_id = name.partition(".")[0]
                if self._is_linked(copy_id, os.path.join(self.directory, name)):
                    pinned.add(copy_id)
                else:
                    _unlink(os.path.join(self.directory, name))
        return pinned

    def _is_linked(self, copy_id: str, pin: str) -> bool:
        try:
            with open(pin, "rb") as file:
                return os.readlink(file.read()) == os.fsencode(self._path(copy_id))
        except (OSError, ValueError):
            return False

    def _make_room(self, copy_id: str) -> None:
        """Evict where the bound may be passed: all copies are looked at now and then, not for each that is made."""
        stamp = self._stamp(copy_id)
        self._room -= stamp.size if stamp else 0
        self._places -= 1
        if self._room < 0 or self._places < 0:
            self.evict()

    def evict(self) -> list[str]:
        """Remove copies over the limits that nobody uses, and what dead processes left; ids of the former."""
        copies = self.all()
        total = sum(copy.stamp.size for copy in copies)
        kept = self._worth_keeping() if total <= self.byte_limit else None
        for copy_id in self._unfinished() - {kept}:
            self.remove(copy_id)
        removed: list[str] = []
        pinned = self._pinned()
        for copy in [copy for copy in reversed(copies) if copy.copy_id not in pinned]:
            too_many = self.count_limit is not None and len(copies) - len(removed) > self.count_limit
            if total <= self.byte_limit and not too_many:
                break
            if self.remove(copy.copy_id):
                total -= copy.stamp.size
                removed.append(copy.copy_id)
        places = _LOOK_AGAIN if self.count_limit is None else self.count_limit - (len(copies) - len(removed))
        self._room, self._places = self.byte_limit - total, min(places, _LOOK_AGAIN)
        return removed

    def remove(self, copy_id: str) -> bool:
        """Remove one copy unless it is in use; whether it is gone."""
        if copy_id in self._held:
            return False
        try:
            descriptor = self._lock(copy_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True  # not even their folder is there
        try:
            _unlink(self._stamp_path(copy_id))
            self._remove_folders(copy_id)
        finally:
            os.close(descriptor)
        return True

    def _fill(self, copy_id: str, fill: Fill) -> None:
        private = f"{self._path(copy_id)}.{_boot_id()}{_MAKING}"
        # Left by a process that died here, or by whoever removed the folder; the exclusive lock says that it is gone.
        _unlink(self._stamp_path(copy_id))
        left = self._left_of(copy_id, private)
        os.mkdir(private, 0o700)
        try:
            stamp = fill(private, left)
        except BaseException as error:
            if not _can_go_on_after(error):
                remove_tree(os.fsencode(private))
            raise
        os.chmod(private, 0o555)  # noqa: S103  (its parent is 0700)
        flush_tree(private)  # the stamp must not outlive what it speaks of
        os.rename(private, self._path(copy_id))
        temporary = self._stamp_path(copy_id) + ".new"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(stamp))
        os.rename(temporary, self._stamp_path(copy_id))
        if left is not None:
            remove_tree(os.fsencode(left))

    def _left_of(self, copy_id: str, private: str) -> str | None:
        """The folder that a making which was broken off has left; every other folder of the copy is removed."""
        left = private.removesuffix(_MAKING) + _LEFT
        if os.path.lexists(private):
            remove_tree(os.fsencode(left))
            os.rename(private, left)
        self._remove_folders(copy_id, but=left)
        return left if os.path.lexists(left) else None

    def _remove_folders(self, copy_id: str, but: str | None = None) -> None:
        for name in self._names():
            folder = os.path.join(self.directory, name)
            if folder != but and _is_folder_of(name, copy_id):
                remove_tree(os.fsencode(folder))

    def _ids(self) -> list[str]:
        return [name.removesuffix(".stamp") for name in self._names() if name.endswith(".stamp")]

    def _unfinished(self) -> set[str]:
        """Versions that have a folder and no stamp: being made or removed, or left so."""
        folders = {name.partition(".")[0] for name in self._names() if _is_folder_of(name, name.partition(".")[0])}
        return folders.difference(self._ids())

    def _worth_keeping(self) -> str | None:
        """Of the versions whose making was broken off, the last one."""
        begun = [name for name in self._names() if name.endswith((_MAKING, _LEFT))]
        latest = max(begun, key=lambda name: _mtime(os.path.join(self.directory, name)), default=None)
        return None if latest is None else latest.partition(".")[0]

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []

    def _stamp(self, copy_id: str) -> Stamp | None:
        try:
            with open(self._stamp_path(copy_id), "rb") as file:
                return msgspec.json.decode(file.read(), type=Stamp)
        except (FileNotFoundError, ValueError, RecursionError):  # of JSON, or of UTF-8 in it
            return None

    def _is_whole(self, copy_id: str) -> bool:
        return self._stamp(copy_id) is not None and os.path.isdir(self._path(copy_id))

    def _path(self, copy_id: str) -> str:
        return os.path.join(self.directory, copy_id)

    def _stamp_path(self, copy_id: str) -> str:
        return self._path(copy_id) + ".stamp"

    def _lock_path(self, copy_id: str) -> str:
        return self._path(copy_id) + ".lock"

    def _lock(self, copy_id: str, operation: int) -> int:
        """Lock a version's copy; the descriptor that holds the lock. Lock files are never removed."""
        descriptor = os.open(self._lock_path(copy_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _hold(self, copy_id: str, descriptor: int) -> None:
        """Keep a shared lock until this process ends; one is enough for all threads."""
        if self._held.setdefault(copy_id, descriptor) != descriptor:
            os.close(descriptor)

    def _release(self, copy_id: str) -> None:
        descriptor = self._held.pop(copy_id, None)
        if descriptor is not None:
            os.close(descriptor)


def _can_go_on_after(error: BaseException) -> bool:
    """Whether what was written before an error is right, and worth its place on the disk."""
    broken_off = isinstance(error, KeyboardInterrupt | SystemExit | StorageFailed)
    return broken_off and not isinstance(error, DiskFull | AccessDenied)


def _is_folder_of(name: str, copy_id: str) -> bool:
    """Whether a name is that of a copy's folder, whole or not."""
    return name == copy_id or (name.startswith(f"{copy_id}.") and name.endswith((_MAKING, _LEFT)))


@cache
def _boot_id() -> str:
    """Tells the times between two starts of this machine apart; where it does not say, each process from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(8)
    except OSError:
        return os.urandom(4).hex()


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

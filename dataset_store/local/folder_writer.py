"""Writing entries into a private folder without ever leaving it.

Promises:

- Whatever the entries say and whatever anyone does to the folder meanwhile, nothing is made outside it: every
  directory is reached from the root's descriptor one name at a time, and no step follows a link.
- A file is made once and never overwritten. A link is made only if it cannot leave the folder, and no entry can
  come to lie below a link.
- Any depth that a key can express works, with a bounded number of descriptors.
- A `FolderWriter` may be used by several threads for different files.

The writer never flushes to disk: a copy counts only once its owner has flushed and stamped it, and what a power failure
left without a stamp is thrown away. It never verifies content; that is done before bytes come here. After an error
the folder is incomplete, and the owner removes it.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Final, Self

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.paths import PathKey, link_stays_inside, parent_key, to_path
from dataset_store.errors import (
    DatasetStoreError,
    PathNotFound,
    TargetNotEmpty,
    UnsupportedFileType,
)
from dataset_store.local.batches import clone_files, link_files, write_files
from dataset_store.local.open_directories import OPEN_DIRECTORY, Cursor, OpenDirectories
from dataset_store.local.os_errors import shown, writing_error

__all__ = ["FolderWriter"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_TIME_UNITS: Final = (100, 1_000, 1_000_000, 10**9, 2 * 10**9)
"""Of times of modification on file systems, in ns."""

# A link that the file system, the kernel's protection of links or the place of the source does not allow.
_NO_LINK: Final = frozenset(
    [errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOENT, errno.ELOOP]
)
_FICLONE: Final = 0x40049409
"""The request by which a file takes over all blocks of another (linux/fs.h); it fails where blocks can't be shared."""

_NEVER_CLONES: Final = frozenset([errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV])
"""What it fails with for all files of a cache, or for none."""


class FolderWriter:
    """Makes files, directories and links below one folder.

    Args:
        root: An existing folder, private to the caller until the work is done.
        read_only: Files get mode 0444 or 0555, else 0644 or 0755; all less the umask. Directories get 0755, and 0555
            by `seal`.

    Raises:
        PathNotFound: There is no such folder.
        AccessDenied: It cannot be opened.
    """

    def __init__(self, root: bytes | str, *, read_only: bool = False) -> None:
        self._root = os.fsencode(root)
        self._modes = (0o444, 0o555) if read_only else (0o644, 0o755)
        self.may_clone = True  # until the file system says that it can't
        try:
            self._directories = OpenDirectories(os.open(self._root, OPEN_DIRECTORY))
        except FileNotFoundError as error:
            raise PathNotFound(f"There is no folder {shown(self._root)}.", "Make it first.") from error
        except OSError as error:
            raise writing_error(error, self._root) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all descriptors back. Nothing may be in progress."""
        self._directories.close()

    def seal(self) -> None:
        """Take from every directory below the root the right to be changed, once all is written.

        Raises:
            StorageFailed: The disk refused.
        """
        for key in self._directories.made:
            with self._naming(key), self._directories.borrowed(key) as opened:
                os.fchmod(opened, 0o555)

    def write_small(
        self,
        keys: Sequence[PathKey],
        contents: Sequence[bytes | memoryview],
        executable: Sequence[bool],
        mtimes_ns: Sequence[int],
    ) -> None:
        """Make many small files; fastest where keys ascend.

        Args:
            keys: n files.
            contents: Their whole content.
            executable: Their exec bits.
            mtimes_ns: Their times of modification, ns since 1970.

        Raises:
            TargetNotEmpty: Something of that name is there.
            DiskFull, AccessDenied, StorageFailed: The disk refused.
        """
        modes = [self._modes[run] for run in executable]
        names = [key.rpartition(b"\0")[2] for key in keys]
        times = np.array(mtimes_ns, np.int64)
        with Cursor(self._directories) as cursor:
            for start, stop in _runs_in_one_directory(keys):
                with self._naming(keys[start]):
                    directory = cursor.at(keys[start])
                rows = slice(start, stop)
                made = write_files(directory, names[rows], contents[rows], modes[rows], times[rows])
                # From the first that could not be made so one by one, which tells what is wrong.
                for at in range(start + made, stop):
                    with self._naming(keys[at]):
                        _write_one(directory, names[at], contents[at], modes[at], mtimes_ns[at])

    def create_file(self, key: PathKey, *, executable: bool) -> int:
        """Make an empty file and open it for writing; `close_file` ends it once it is whole.

        Raises:
            TargetNotEmpty: Something of that name is there.
            DiskFull, AccessDenied, StorageFailed: The disk refused.
        """
        with self._naming(key), Cursor(self._directories) as cursor:
            return os.open(key.rpartition(b"\0")[2], _CREATE, self._modes[executable], dir_fd=cursor.at(key))

    def write_at(self, opened: int, key: PathKey, data: memoryview, offset: int) -> None:
        """Write all of `data` into a file that `create_file` opened.

        Raises:
            DiskFull, StorageFailed: The disk refused; the file is of no use.
        """
        with self._naming(key):
            while data:
                written = os.pwrite(opened, data, offset)
                data = data[written:]
                offset += written

    def close_file(self, opened: int, key: PathKey, mtime_ns: int) -> None:
        """Set a file's time of modification (ns since 1970) and close it, whatever happens.

        Raises:
            DiskFull, StorageFailed: What was written could not be kept.
        """
        with self._naming(key):
            try:
                os.utime(opened, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(opened)

    @contextmanager
    def writing(
        self, key: PathKey, *, executable: bool, mtime_ns: int
    ) -> Iterator[Callable[[bytes | memoryview], None]]:
        """Make a file piece by piece: yields what takes the next one. Raises as `create_file` and `write_at`."""
        opened = self.create_file(key, executable=executable)
        at = 0

        def write(piece: bytes | memoryview) -> None:
            nonlocal at
            self.write_at(opened, key, memoryview(piece), at)
            at += len(piece)

        try:
            yield write
        except BaseException:
            os.close(opened)  # without its time, by which whole files are known
            raise
        self.close_file(opened, key, mtime_ns)

    def hard_links(self, sources: Sequence[bytes], keys: Sequence[PathKey], expected: I64) -> Bool:
        """Let files of the folder be other names of files that lie outside it; fastest where keys ascend.

        Args:
            sources: n paths.
            keys: The name that each gets.
            expected: The size of each, and the time of modification that it was given, in ns; shape (n, 2).

        Returns:
            For each False if that is not possible (too many names, another file system, forbidden, no such source, or
            not of this size and time, as finely as its file system keeps times): the caller makes the file in another
            way. Nothing was made then. Shape (n,).

        Raises:
            TargetNotEmpty: Something of that name is there.
            DiskFull, StorageFailed: The disk refused.
        """
        linked: Bool = np.zeros(len(keys), np.bool_)
        names = [key.rpartition(b"\0")[2] for key in keys]
        with Cursor(self._directories) as cursor:
            for start, stop in _runs_in_one_directory(keys):
                with self._naming(keys[start]):
                    directory = cursor.at(keys[start])
                rows = slice(start, stop)
                linked[rows] = np.frombuffer(
                    link_files(directory, names[rows], sources[rows], expected[rows]), np.bool_
                )
                for at in (start + np.flatnonzero(~linked[rows])).tolist():
                    with self._naming(keys[at]):
                        size, mtime_ns = expected[at].tolist()
                        linked[at] = _is_as_made(sources[at], size, mtime_ns) and _link(
                            sources[at], names[at], directory
                        )
        return linked

    def clones(
        self, sources: Sequence[bytes], keys: Sequence[PathKey], executables: Sequence[bool], expected: I64
    ) -> Bool:
        """Make files that share all blocks of others that lie outside the folder, until either is changed.

        Args:
            sources: The paths of n files.
            keys: The names of the new ones.
            executables: Their exec bits.
            expected: The size of each source, and the time of modification that it was given, in ns; shape (n, 2).

        Returns:
            What was made, shape (n,). The rest is not possible (a file system that can't, or not now, or another one,
            a source that can't be read or is not of this size and time): the caller makes these in another way.

        Raises:
            TargetNotEmpty: Something of that name is there.
            DiskFull, AccessDenied, StorageFailed: The disk refused.
        """
        made: Bool = np.zeros(len(keys), np.bool_)
        names = [key.rpartition(b"\0")[2] for key in keys]
        modes = [self._modes[one] for one in executables]
        with Cursor(self._directories) as cursor:
            for start, stop in _runs_in_one_directory(keys) if self.may_clone else ():
                with self._naming(keys[start]):
                    directory = cursor.at(keys[start])
                rows = slice(start, stop)
                some = clone_files(directory, names[rows], sources[rows], modes[rows], expected[rows])
                made[rows] = np.frombuffer(some, np.bool_)
                for at in (start + np.flatnonzero(~made[rows])).tolist():
                    made[at] = self._clone_one(sources[at], keys[at], directory, modes[at], expected[at].tolist())
        return made

    def _clone_one(self, source: bytes, key: PathKey, directory: int, mode: int, expected: Sequence[int]) -> bool:
        if not self.may_clone:
            return False
        with self._naming(key), _opened_as_made(source, *expected) as opened:
            if opened is None:
                return False
            refused = _clone(opened, directory, key.rpartition(b"\0")[2], mode, expected)
        if refused in _NEVER_CLONES:
            self.may_clone = False
        return refused is None

    def make_directory(self, key: PathKey) -> None:
        """Make an empty directory, and those above it, where missing.

        Raises:
            DiskFull, AccessDenied, StorageFailed: The disk refused, or something else has that name.
        """
        with self._naming(key), self._directories.borrowed(key):
            pass

    def take_over(self, other: "FolderWriter", keys: Sequence[PathKey]) -> None:
        """Move files of another writer's folder here, each at once, in place of what has its name.

        Raises:
            AccessDenied, StorageFailed: The disk refused; some may have been moved.
        """
        with Cursor(other._directories) as theirs, Cursor(self._directories) as ours:
            for key in keys:
                name = key.rpartition(b"\0")[2]
                with self._naming(key):
                    os.rename(name, name, src_dir_fd=theirs.at(key), dst_dir_fd=ours.at(key))

    def symlinks(self, keys: Sequence[PathKey], targets: Sequence[bytes]) -> None:
        """Make links: the last thing to do, once all files and directories stand.

        Args:
            keys: n links.
            targets: Their texts.

        Raises:
            UnsupportedFileType: A link could leave the folder; none was made.
            TargetNotEmpty: Something of that name is there.
            DiskFull, AccessDenied, StorageFailed: The disk refused.
        """
        for key, target in zip(keys, targets, strict=True):
            if not link_stays_inside(key.count(b"\0"), target):
                raise UnsupportedFileType(
                    f"The link {shown(to_path(key))} leads to {shown(target)}, which may lie outside the folder.",
                    "It was not made; remove it from the dataset.",
                )
        with Cursor(self._directories) as cursor:
            for key, target in zip(keys, targets, strict=True):
                with self._naming(key):
                    os.symlink(target, key.rpartition(b"\0")[2], dir_fd=cursor.at(key))

    def _path(self, key: PathKey) -> bytes:
        return os.path.join(self._root, to_path(key))

    def _naming(self, key: PathKey) -> "_Naming":
        return _Naming(self._root, key)


def _is_as_made(path: bytes, size: int, mtime_ns: int) -> bool:
    """Whether a file still has the size and time that it was given, as finely as its file system keeps times."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return _is_like(found, size, mtime_ns)


def _is_like(found: os.stat_result, size: int, mtime_ns: int) -> bool:
    if found.st_size != size or not stat.S_ISREG(found.st_mode):
        return False
    return found.st_mtime_ns == mtime_ns or found.st_mtime_ns in [mtime_ns - mtime_ns % unit for unit in _TIME_UNITS]


def _link(source: bytes, name: bytes, directory: int) -> bool:
    try:
        os.link(source, name, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


@contextmanager
def _opened_as_made(path: bytes, size: int, mtime_ns: int) -> Iterator[int | None]:
    """A file, open for reading, if it still has the size and time that it was given."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield opened if _is_like(os.fstat(opened), size, mtime_ns) else None
    finally:
        os.close(opened)


def _clone(source: int, directory: int, name: bytes, mode: int, expected: Sequence[int]) -> int | None:
    """Make a file of the blocks of another, which is as expected then too; else no file, and the error's number."""
    opened = os.open(name, _CREATE, mode, dir_fd=directory)
    try:
        fcntl.ioctl(opened, _FICLONE, source)
        if os.fstat(opened).st_size != expected[0] or not _is_like(os.fstat(source), *expected):
            raise OSError(errno.EAGAIN, "the source changed meanwhile")
        os.utime(opened, ns=(expected[1], expected[1]))
    except OSError as error:
        os.unlink(name, dir_fd=directory)
        return error.errno or errno.EIO
    except BaseException:
        os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(opened)
    return None


class _Naming:
    """Turns an error of the operating system into one that names the entry. A class: it stands around each file."""

    __slots__ = ("_key", "_root")

    def __init__(self, root: bytes, key: PathKey) -> None:
        self._root = root
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, OSError):
            raise _named(error, os.path.join(self._root, to_path(self._key))) from error


def _named(error: OSError, path: bytes) -> DatasetStoreError:
    if isinstance(error, FileExistsError):
        return TargetNotEmpty(
            f"{shown(path)} is there already, or the file system takes another name for the same.",
            "Write into an empty folder, on a file system that tells letter case apart.",
        )
    return writing_error(error, path)


def _runs_in_one_directory(keys: Sequence[PathKey]) -> Iterator[tuple[int, int]]:
    """From where to where consecutive keys lie in the same directory."""
    directories = [parent_key(key) for key in keys]
    ends = [row for row in range(1, len(keys)) if directories[row] != directories[row - 1]]
    return pairwise([0, *ends, len(keys)]) if keys else iter(())


def _write_one(directory: int, name: bytes, content: bytes | memoryview, mode: int, mtime_ns: int) -> None:
    opened = os.open(name, _CREATE, mode, dir_fd=directory)
    try:
        _write_all(opened, content)
        os.utime(opened, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(opened)


def _write_all(opened: int, content: bytes | memoryview) -> None:
    written = os.write(opened, content)
    while written < len(content):  # a signal, a quota or a very large content
        content = memoryview(content)[written:]
        written = os.write(opened, content)

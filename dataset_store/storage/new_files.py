"""A new file that is written first and gets its name last, so that it is under its name whole or not at all.

The name comes by one `link` after the bytes are flushed, which is atomic, has one winner, and replaces nothing. Before
that the file has no name, or one in a folder for such files where the system cannot make files without.

Promises: a file that is published is durable, and so is its name; one that is given up leaves nothing, and one whose
writer was killed nothing or a file in that folder. Errors are the system's own. Never: makes a folder, lists, or
removes anything but the file's own temporary name.
"""

import errno
import os
import stat
import sys
import weakref
from collections import deque
from contextlib import suppress
from itertools import islice

from dataset_store.storage.backend import Buffers

if sys.platform == "darwin":
    import fcntl

__all__ = ["NO_NAMELESS_FILES", "LinkInDoubtError", "NewFile", "flush_folder"]

# What systems and file systems answer that cannot make a file without a name, or cannot name it later.
NO_NAMELESS_FILES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EXDEV})

# A folder that cannot be flushed by itself: the file system writes names through, or has no such promise.
_NO_FOLDER_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

# Refusals of a link that leave no doubt: no server or disk can carry it out later.
_CERTAINLY_NOT_LINKED = NO_NAMELESS_FILES | {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.ELOOP,
    errno.EMFILE,
    errno.EMLINK,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENOENT,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}

_COPIED_AT_ONCE = 1 << 20
_MOST_BUFFERS = os.sysconf("SC_IOV_MAX") if hasattr(os, "sysconf") else 1024


class LinkInDoubtError(OSError):
    """A file may or may not have its name, now or later; or has it, but not durably."""


class NewFile:
    """A file that is written and gets the name of its object last; owns its descriptors and its temporary name.

    One that is not closed is closed when nobody has it any more; at the end of the program it is left as by a kill, for
    some thread may still write to it.

    Args:
        file: The descriptor of the file, open for writing; for reading too where it has no name.
        folder: That of the folder its name is to be in.
        name: The name.
        temp_path: Where it is until then; empty where it has no name.
    """

    __slots__ = ("__weakref__", "_temp_path", "close", "file", "folder", "name")

    def __init__(self, file: int, folder: int, name: str, temp_path: str = "") -> None:
        self.file = file
        self.folder = folder
        self.name = name
        self._temp_path = temp_path
        self.close = weakref.finalize(self, _release, file, folder, temp_path, os.getpid())
        self.close.atexit = False

    @property
    def is_nameless(self) -> bool:
        """Whether it has no name at all until it is published."""
        return not self._temp_path

    def write(self, buffers: Buffers) -> None:
        """Write all buffers behind what was written. Raises OSError."""
        waiting = deque(memoryview(buffer).cast("B") for buffer in buffers if memoryview(buffer).nbytes)
        while waiting:
            written = os.writev(self.file, list(islice(waiting, _MOST_BUFFERS)))
            while waiting and written >= len(waiting[0]):
                written -= len(waiting.popleft())
            if written:
                waiting[0] = waiting[0][written:]

    def copy(self, other: "NewFile") -> None:
        """Write all that a nameless file holds."""
        start = 0
        while piece := os.pread(other.file, _COPIED_AT_ONCE, start):
            self.write([piece])
            start += len(piece)

    def publish(self) -> bool:
        """Flush the file, give it its name, flush the folder: True where the name is new, False where taken.

        The folder is flushed for the loser too: it is told that an object is there, and builds on that.

        Raises:
            LinkInDoubtError: It may have the name, now or later.
            OSError: It certainly has not.
        """
        _flush(self.file)
        try:
            # With a folder descriptor this is linkat, which follows the link in /proc; plain link would not.
            path = self._temp_path or f"/proc/self/fd/{self.file}"
            os.link(path, self.name, dst_dir_fd=self.folder, follow_symlinks=True)
            made = True
        except OSError as refusal:
            made = _judge(refusal, self.file, self.folder, self.name)
        try:
            flush_folder(self.folder)
        except OSError as error:
            raise LinkInDoubtError(error.errno, error.strerror) from error
        return made


def _release(file: int, folder: int, temp_path: str, process: int) -> None:
    os.close(file)
    os.close(folder)
    if temp_path and os.getpid() == process:  # a fork has descriptors of its own, but the name is its parent's
        with suppress(OSError):  # litter at worst: the object itself is decided
            os.unlink(temp_path)


def _judge(refusal: OSError, file: int, folder: int, name: str) -> bool:
    """After a refused link: True where the name is there and ours, False where another's object has it.

    NFS may carry out a link and lose the reply; its repetition then fails with EEXIST, so that no error
    number says who won. The file under the name does.
    """
    try:
        there = os.stat(name, dir_fd=folder)
    except OSError as error:
        if refusal.errno in _CERTAINLY_NOT_LINKED and isinstance(error, FileNotFoundError):
            raise refusal from None
        raise LinkInDoubtError(refusal.errno, refusal.strerror) from refusal
    if os.path.samestat(there, os.fstat(file)):
        return True
    if not stat.S_ISREG(there.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is not an object has this name") from refusal
    return False


def _flush(file: int) -> None:
    """Return when the bytes would survive a power cut."""
    if sys.platform == "darwin":
        with suppress(OSError):  # not every file system knows it
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)  # fsync leaves the bytes in the drive's own cache there
            return
    os.fsync(file)


def flush_folder(folder: int) -> None:
    """Return when the names in a folder would survive a power cut, where the file system can tell."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise

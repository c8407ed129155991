"""Errors of the operating system, as errors of this package.

Every message names the path and says what to do next. This module never retries and never hides an error: the
original is always the cause, so callers write `raise reading_error(error, path) from error`.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from dataset_store.errors import (
    AccessDenied,
    DatasetStoreError,
    DiskFull,
    FileChanged,
    StorageFailed,
)

__all__ = ["naming_writes", "reading_error", "shown", "writing_error"]

_GONE: Final = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE])
_DENIED: Final = frozenset([errno.EACCES, errno.EPERM])
_FULL: Final = frozenset([errno.ENOSPC, errno.EDQUOT])


def shown(path: str | bytes) -> str:
    """A path for a message: as text, with everything that could disturb a terminal escaped."""
    return repr(os.fsdecode(path))


ADD_AGAIN: Final = "Nothing was committed; run sync, or add it, again, and then upload."


def reading_error(error: OSError, path: str | bytes) -> DatasetStoreError:
    """What an error means for a file or directory that was there a moment ago."""
    if error.errno in _GONE:
        return FileChanged(
            f"{shown(path)} was removed or replaced while the folder was read.",
            "Nothing was added; run it again when nothing writes to the folder.",
        )
    if error.errno in _DENIED:
        return AccessDenied(f"{shown(path)} cannot be read.", "Give this user permission to read it.")
    return _failed(error, path, "read")


def file_changed(path: str | bytes) -> FileChanged:
    """A file is not what it was when it was added to a draft."""
    return FileChanged(f"{shown(path)} changed since it was added.", ADD_AGAIN)


def writing_error(error: OSError, path: str | bytes) -> DatasetStoreError:
    """What an error means for a file or directory that is being made or removed."""
    if error.errno in _FULL:
        return DiskFull(f"No space is left to write {shown(path)}.", "Free some space and run it again.")
    if error.errno in _DENIED or error.errno == errno.EROFS:
        return AccessDenied(f"{shown(path)} cannot be written.", "Give this user permission to write to its folder.")
    if error.errno in _GONE:
        return StorageFailed(
            f"A folder on the way to {shown(path)} was removed or replaced while it was written.",
            "Run it again and leave the folder alone until it is complete.",
        )
    return _failed(error, path, "written")


@contextmanager
def naming_writes(path: str | bytes) -> Iterator[None]:
    """Turns an error of the operating system into one of this package that names the path."""
    try:
        yield
    except OSError as error:
        raise writing_error(error, path) from error


def _failed(error: OSError, path: str | bytes, done: str) -> StorageFailed:
    what = f"{shown(path)} could not be {done}: {error.strerror or error}."
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return StorageFailed(what, "Raise the limit of open files (ulimit -n) and run it again.")
    return StorageFailed(what, "Look at the disk and its file system, then run it again.")

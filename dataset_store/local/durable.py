"""Names and files that survive a power cut."""

import os
import stat
from contextlib import suppress
from typing import Final

from dataset_store.local.private import make_private

__all__ = ["flush_file_system", "flush_folder", "flush_tree", "make_folder", "replace_file"]

_ONE_BY_ONE: Final = 64
"""Files and folders that are flushed each by itself; of more, the file system is flushed at once."""


def make_folder(path: str) -> None:
    """Make a folder, for nobody else to read, and those above it that are missing, each flushed into its parent.

    One that is there already is flushed too: whoever made it may not have come so far.

    Raises:
        OSError: The system refused.
    """
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_folder(parent)
    make_private(path)
    flush_folder(parent)


def flush_folder(path: str) -> None:
    """Return when the names that a folder holds would survive a power cut.

    Raises:
        OSError: The system refused.
    """
    _flush(path, os.O_DIRECTORY)


def replace_file(path: str, data: bytes) -> None:
    """Put a small file, for nobody else to read, in the place of another. A crash leaves the old bytes or the new ones.

    Raises:
        OSError: The system refused; the old file is there as it was.
    """
    temporary = f"{path}.{os.urandom(4).hex()}.part"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def flush_tree(path: str) -> None:
    """Return when all that a folder holds, at any depth, would survive a power cut.

    Few files are flushed by themselves, so that nobody waits for what others have written; many by one call for the
    whole file system, which takes a fraction of the time in which they were written.

    Raises:
        OSError: The system refused, or could not write what it was given before.
    """
    count = 0
    for _, _, files, _ in os.fwalk(path):
        count += 1 + len(files)
        if count > _ONE_BY_ONE:
            flush_file_system(path)
            return
    # By descriptors, as paths may be longer than the kernel takes.
    for _, _, files, folder in os.fwalk(path):
        for name in files:
            if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                _flush(name, 0, folder)
        os.fsync(folder)


def _flush(path: str, flags: int, folder: int | None = None) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file_system(path: str) -> None:
    """Return when all that the file system of a folder was given before would survive a power cut.

    Raises:
        OSError: The system refused, or could not write what it was given.
    """
    import ctypes  # noqa: PLC0415  (most commands flush no file system)

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):  # Linux has it
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if library.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)

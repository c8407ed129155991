"""Folders whose names survive a power cut."""

import os
from contextlib import suppress

__all__ = ["flush_folder", "make_folder"]


def make_folder(path: str) -> None:
    """Make a folder, for nobody else to read, and those above it that are missing, each flushed into its parent.

    One that is there already is flushed too: whoever made it may not have come so far.

    Raises:
        OSError: The system refused.
    """
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_folder(parent)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    flush_folder(parent)


def flush_folder(path: str) -> None:
    """Return when the names that a folder holds would survive a power cut.

    Raises:
        OSError: The system refused.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

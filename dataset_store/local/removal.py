"""Removing folders without ever leaving them, whatever anyone does to them meanwhile."""

import os
import stat
from contextlib import suppress
from typing import Final

from dataset_store.local.os_errors import writing_error

__all__ = ["remove_tree"]

_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN: Final = 64


def remove_tree(path: bytes | str) -> None:
    """Remove whatever is at a path, with everything below it; nothing there is fine too.

    A link is removed, never what it leads to, even if directories are swapped for links meanwhile. Read-only
    directories of the caller's own are no hindrance, nor is any depth.

    Raises:
        AccessDenied, StorageFailed: Something could not be removed; the rest may be gone.
    """
    raw = os.fsencode(path).rstrip(b"/")
    try:
        parent = os.open(os.path.dirname(raw) or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise writing_error(error, raw) from error
    try:
        _remove(parent, os.path.basename(raw))
    except OSError as error:
        raise writing_error(error, raw) from error
    finally:
        os.close(parent)


def _remove(parent: int, name: bytes) -> None:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        _unlink(name, parent)
        return
    top = _open_own(name, parent)
    try:
        while _empty(top, top, 0):
            pass
    finally:
        os.close(top)
    _rmdir(name, parent)


def _empty(opened: int, top: int, depth: int) -> bool:
    """Remove what a directory holds; say whether anything was moved up to `top` because it lies too deep."""
    with os.scandir(opened) as found:
        entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
    moved = False
    for name, is_directory in entries:
        if not is_directory:
            _unlink(name, opened)
            continue
        inner = _open_own(name, opened)
        try:
            if depth == _MAX_OPEN:
                os.rename(name, b".removed-" + os.urandom(8).hex().encode(), src_dir_fd=opened, dst_dir_fd=top)
                moved = True
                continue
            moved |= _empty(inner, top, depth + 1)
        finally:
            os.close(inner)
        _rmdir(name, opened)
    return moved


def _open_own(name: bytes, parent: int) -> int:
    """Open a directory and make sure that its owner may change it."""
    try:
        opened = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # a mode cannot be set through such a descriptor itself
        finally:
            os.close(handle)
        opened = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    if os.fstat(opened).st_mode & 0o700 != 0o700:
        with suppress(PermissionError):  # not ours; then removing from it fails, and says so
            os.fchmod(opened, 0o700)
    return opened


def _unlink(name: bytes, parent: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def _rmdir(name: bytes, parent: int) -> None:
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=parent)

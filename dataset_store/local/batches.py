"""Whole batches of files by compiled code, where there is any; what it cannot do is left to those who ask.

`_files.c` is optional, and does only what is plain: whoever asks has a way for every file that is left, which is the
only way where nothing is compiled, and which tells what is wrong.
"""

from collections.abc import Sequence
from typing import Final

from dataset_store.core.arrays import I64, np
from dataset_store.local.listing import Columns, Listing

try:
    from dataset_store.local import _files  # type: ignore[attr-defined]  # compiled, and optional
except ImportError:
    _files = None

__all__ = ["clone_files", "compiled", "link_files", "list_directory", "read_unchanged", "write_files"]

_LISTED: Final = 6  # columns of a row of `list_directory`


def compiled() -> bool:
    """Whether batches are done by compiled code."""
    return _files is not None


def read_unchanged(paths: Sequence[bytes], expected: I64, buffer: memoryview) -> bytes:
    """Read short files one behind the other, each in the room that its expected size takes.

    Args:
        paths: n of them.
        expected: The stat of each, shape (n, 4), as of `FileStat`; or its size alone, shape (n,), where the hash is
            known and compared.
        buffer: As long as the sizes together.

    Returns:
        A byte for each: 1 where it was read and was as expected before and after, 0 where it has to be read otherwise.
    """
    if _files is None:
        return bytes(len(paths))
    done: bytes = _files.read_files(tuple(paths), np.ascontiguousarray(expected), buffer)
    return done


def write_files(
    directory: int, names: Sequence[bytes], contents: Sequence[bytes | memoryview], modes: Sequence[int], mtimes_ns: I64
) -> int:
    """Make files in an open directory, each whole and with its time, until one cannot be made.

    Returns:
        How many were made, from the first on. The next is not there, unless it was before; 0 where nothing is compiled.
    """
    if _files is None:
        return 0
    told = np.stack([np.array(modes, np.int64), mtimes_ns], axis=1)
    done: int = _files.write_files(directory, tuple(names), tuple(contents), told)
    return done


def link_files(directory: int, names: Sequence[bytes], sources: Sequence[bytes], expected: I64) -> bytes:
    """Give files other names in an open directory.

    Args:
        directory: Its descriptor.
        names: n of them.
        sources: The paths of the files.
        expected: The size and the time of modification, in ns, that each must have; shape (n, 2).

    Returns:
        A byte for each: 1 where it was done, 0 where it has to be done, or refused, otherwise.
    """
    if _files is None:
        return bytes(len(names))
    done: bytes = _files.link_files(directory, tuple(names), tuple(sources), np.ascontiguousarray(expected))
    return done


def clone_files(
    directory: int, names: Sequence[bytes], sources: Sequence[bytes], modes: Sequence[int], expected: I64
) -> bytes:
    """Make files in an open directory that share all blocks of others until either is changed; as `link_files`."""
    if _files is None:
        return bytes(len(names))
    told = np.concatenate([expected, np.array(modes, np.int64).reshape(-1, 1)], axis=1)
    done: bytes = _files.clone_files(directory, tuple(names), tuple(sources), np.ascontiguousarray(told))
    return done


def list_directory(opened: int) -> Listing | None:
    """All names of an open directory with their stats; None where that has to be found out otherwise."""
    if _files is None:
        return None
    try:
        text, rows = _files.list_directory(opened)
    except OSError:
        return None
    table = np.frombuffer(rows, np.int64).reshape(-1, _LISTED)
    stat = np.array(table[:, 1:].T, order="C").view(np.uint64)
    return Listing(text.split(b"\0")[:-1], Columns.of_modes(table[:, 0], stat))

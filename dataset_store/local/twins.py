"""Long files that may well be the same, told without reading them: they have one size, and look alike in three places.

What is not told may be the same all the same, and what is told may differ; nothing but what is read twice or stored
twice hangs on it. This module never fails: of a file that cannot be read nothing is told.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.digest import hash32
from dataset_store.errors import DatasetStoreError
from dataset_store.local.reading import READ_SIZE, open_regular

__all__ = ["twins"]

_LOOK: Final = 16 << 10
"""Bytes that are looked at in each place."""


def twins(paths: Sequence[bytes], sizes: I64) -> Bool:
    """Which of n files, of those longer than `READ_SIZE`, look like another one of them; shape (n,).

    Shorter ones need no look: they are hashed as a whole before anything is stored of them.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(sizes > READ_SIZE).tolist():
        by_size[int(sizes[row])].append(row)
    found = np.zeros(len(paths), np.bool_)
    for size, rows in by_size.items():
        if len(rows) > 1:
            found[_alike(paths, rows, size)] = True
    return found


def _alike(paths: Sequence[bytes], rows: Iterable[int], size: int) -> list[int]:
    """Those of some rows, all of one size, that look like another."""
    by_look: dict[bytes, list[int]] = defaultdict(list)
    for row in rows:
        by_look[_look(paths[row], size)].append(row)
    return [row for look, some in by_look.items() if look and len(some) > 1 for row in some]


def _look(path: bytes, size: int) -> bytes:
    """A hash of what stands in three places of a file; empty where it cannot be read."""
    try:
        opened, _ = open_regular(path)
    except DatasetStoreError:
        return b""
    try:
        return hash32(b"".join(os.pread(opened, _LOOK, at) for at in (0, size // 2, size - _LOOK)))
    except OSError:
        return b""
    finally:
        os.close(opened)

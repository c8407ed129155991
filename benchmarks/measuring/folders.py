"""What is in a folder: compared with what should be, and counted."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from blake3 import blake3

Contents: TypeAlias = dict[str, tuple[int, bytes]]
"""The size and BLAKE3 hash of each file, by its path from the folder."""


def files_in(folder: Path) -> Iterator[os.DirEntry]:
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    waiting.append(one.path)
                else:
                    yield one


def contents_of(folder: Path) -> Contents:
    """Each file of a folder, read; `.git` files that a work tree has beside the data are no data."""
    start = len(str(folder)) + 1
    contents = {}
    for one in files_in(folder):
        handle = os.open(one.path, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            hasher = blake3()
            while data := os.read(handle, 4 << 20):
                hasher.update(data)
        finally:
            os.close(handle)
        contents[one.path[start:]] = (size, hasher.digest())
    return contents


def taken_by(folders: Iterable[Path]) -> tuple[int, int]:
    """Bytes and number of the files in folders, each inode once."""
    seen = {}
    for folder in folders:
        if folder.is_dir():
            for one in files_in(folder):
                found = one.stat(follow_symlinks=False)
                seen[found.st_ino] = found.st_size
        elif folder.exists():
            seen[folder.stat().st_ino] = folder.stat().st_size
    return sum(seen.values()), len(seen)

"""Entries of one directory as columns: names, kinds and stats side by side, never an object for each file.

`Listing` is what a scan fills, `DirectoryBlock` what it hands out: at most 4,096 rows, cut by position alone, so
that an unchanged directory gives equal blocks. This module never asks the file system anything.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from msgspec import Struct, field

from dataset_store.core.arrays import I64, U8, U64, Bool, np
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import PathKey

__all__ = ["BLOCK_NAMES", "Columns", "DirectoryBlock", "Listing", "join_keys"]

BLOCK_NAMES: Final = 4_096
"""The most names of one block."""


class DirectoryBlock(Struct, frozen=True, eq=False):
    """Up to 4,096 entries of one directory, by name.

    Attributes:
        below: What `keys()` puts before every key.
        directory: The directory, relative to the folder that was scanned.
        number: Of this block within its directory, from 0.
        last: Whether it is the directory's last block.
        names: n names, ascending.
        kind: u8 (n,), values of `Kind`: files, links and empty directories.
        executable: bool (n,): a file that its owner may execute.
        stat: u64 (5, n): the rows behind `size`, `mtime_ns`, `ctime_ns`, `inode` and `device`. Of a file reached
            by a link they are the file's, not the link's.
        targets: For each row that is a link: its text, which is its content.
    """

    below: PathKey
    directory: PathKey
    number: int
    last: bool
    names: list[bytes]
    kind: U8
    executable: Bool
    stat: U64
    targets: Mapping[int, bytes]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> U64:
        """Bytes: of a file, of a link's text, 0 for a directory."""
        row: U64 = self.stat[0]
        return row

    @property
    def mtime_ns(self) -> I64:
        """Nanoseconds since 1970."""
        row: I64 = self.stat[1].view(np.int64)
        return row

    @property
    def ctime_ns(self) -> I64:
        """Nanoseconds since 1970."""
        row: I64 = self.stat[2].view(np.int64)
        return row

    @property
    def inode(self) -> U64:
        """Inode numbers."""
        row: U64 = self.stat[3]
        return row

    @property
    def device(self) -> U64:
        """Device numbers."""
        row: U64 = self.stat[4]
        return row

    def keys(self) -> list[PathKey]:
        """The keys of the rows, with `below` before them."""
        directory = join_keys(self.below, self.directory)
        prefix = directory + b"\0" if directory else b""
        return [PathKey(prefix + name) for name in self.names]


class Columns(Struct, frozen=True, eq=False):
    """Kind, exec bit and stat of n entries, as in `DirectoryBlock`; kind 0 is what no dataset holds."""

    kind: U8
    executable: Bool
    stat: U64

    @staticmethod
    def of(found: list[os.stat_result]) -> "Columns":
        """The columns of these stats. Times may lie before 1970."""
        rows = np.empty((5, len(found)), np.uint64)
        signed = rows.view(np.int64)
        rows[0] = [one.st_size for one in found]
        signed[1] = [one.st_mtime_ns for one in found]
        signed[2] = [one.st_ctime_ns for one in found]
        rows[3] = [one.st_ino for one in found]
        rows[4] = [one.st_dev for one in found]
        return Columns.of_modes(np.array([one.st_mode for one in found], np.int64), rows)

    @staticmethod
    def of_modes(modes: I64, stat: U64) -> "Columns":
        """The columns of files with these modes, `st_mode`, shape (n,), and stats."""
        code = _codes()[modes >> 6]
        return Columns(code & np.uint8(15), code > 127, stat)

    @staticmethod
    def joined(parts: "list[Columns]") -> "Columns":
        """The rows of all parts, one part after another."""
        if len(parts) == 1:
            return parts[0]
        parts = parts or [Columns.of([])]
        return Columns(
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.executable for part in parts]),
            np.concatenate([part.stat for part in parts], axis=1),
        )

    def part(self, rows: slice | Bool) -> "Columns":
        """Some of the rows, contiguous again."""
        return Columns(self.kind[rows], self.executable[rows], np.ascontiguousarray(self.stat[:, rows]))

    def replace(self, row: int, found: os.stat_result) -> None:
        """Give a row the columns of another file."""
        other = Columns.of([found])
        self.kind[row] = other.kind[0]
        self.executable[row] = other.executable[0]
        self.stat[:, row] = other.stat[:, 0]


class Listing(Struct, eq=False):
    """All entries of one directory; the scan corrects rows in place and drops some.

    Attributes:
        names: n names, ascending.
        columns: Of the same rows.
        targets: The texts of rows that are links.
        dropped: Rows that are no entries: directories that hold something.
    """

    names: list[bytes]
    columns: Columns
    targets: dict[int, bytes] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)

    def blocks(self, below: PathKey, directory: PathKey) -> Iterator[DirectoryBlock]:
        """The rows that were not dropped, cut by position."""
        if self.dropped:
            self._drop()
        targets: defaultdict[int, dict[int, bytes]] = defaultdict(dict)
        for row, text in self.targets.items():
            targets[row // BLOCK_NAMES][row % BLOCK_NAMES] = text
        for start in range(0, len(self.names), BLOCK_NAMES):
            number, end = start // BLOCK_NAMES, start + BLOCK_NAMES
            part = self.columns if len(self.names) <= BLOCK_NAMES else self.columns.part(slice(start, end))
            yield DirectoryBlock(
                below=below,
                directory=directory,
                number=number,
                last=end >= len(self.names),
                names=self.names[start:end],
                kind=part.kind,
                executable=part.executable,
                stat=part.stat,
                targets=targets.get(number, {}),
            )

    def _drop(self) -> None:
        kept = np.ones(len(self.names), np.bool_)
        kept[list(self.dropped)] = False
        place = np.cumsum(kept) - 1
        self.targets = {int(place[row]): text for row, text in self.targets.items()}
        self.names = [self.names[row] for row in np.flatnonzero(kept).tolist()]
        self.columns = self.columns.part(kept)
        self.dropped = set()


def join_keys(below: PathKey, directory: PathKey) -> PathKey:
    """The key of `directory` below `below`; either may be the root."""
    return PathKey(below + b"\0" + directory) if below and directory else PathKey(below + directory)


@cache
def _codes() -> U8:
    """Kind, and 128 for a file that its owner may execute, for each `st_mode >> 6`."""
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFDIR: Kind.DIRECTORY}
    codes = np.zeros(1 << 10, np.uint8)
    for index in range(len(codes)):
        kind = kinds.get(stat.S_IFMT(index << 6), 0)
        codes[index] = kind | (128 if kind == Kind.FILE and index & 1 else 0)
    return codes

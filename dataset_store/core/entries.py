"""Entries of a tree as columns: the table that scanning, diffing, merging and encoding all pass around.

One row is one file, symbolic link, empty directory or external link. Rows are sorted by key and keys are unique.
Nothing here makes an object per file except the key itself, a `bytes`.

Tables are values: no function changes a table that it was given.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import I64, U8, U32, U64, Array, Bool, np
from dataset_store.core.digest import VersionId
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import PackRef
from dataset_store.core.paths import PathKey

__all__ = [
    "EXECUTABLE",
    "IDENTITY_BITS",
    "KIND_BITS",
    "LISTED",
    "ONE_CHUNK",
    "Changes",
    "Entries",
    "Segments",
    "compose",
    "concat",
    "concat_segments",
    "first_use",
    "make_entries",
    "overlay",
    "same_identity",
    "sort_rows",
]

KIND_BITS = 0x0F
ONE_CHUNK = 0x20
LISTED = 0x40
EXECUTABLE = 0x80
IDENTITY_BITS = KIND_BITS | EXECUTABLE
"""The bits of a kind byte: kind, 'the content is one chunk', 'the segments are in a list frame', exec."""

_SLICE = 65_536
"""Rows that are looked up or compared together, so that what it takes on the way stays small."""


class Segments(Struct, frozen=True, eq=False):
    """Rows of segments; `pack` indexes `packs`. `digest` rows of one-chunk contents are zero.

    Shapes: every column (s,), digest (s, 32).
    """

    packs: tuple[PackRef, ...]
    pack: U32
    offset: U32
    stored: U32
    plain_offset: U32
    plain_length: U64
    digest: U8

    def __len__(self) -> int:
        return len(self.pack)

    def take(self, rows: Array) -> "Segments":
        """The given rows, in the given order; the pack table is kept whole."""
        return Segments(
            self.packs,
            self.pack[rows],
            self.offset[rows],
            self.stored[rows],
            self.plain_offset[rows],
            self.plain_length[rows],
            self.digest[rows],
        )

    @staticmethod
    def empty() -> "Segments":
        """No rows."""
        none = np.zeros(0, np.uint32)
        return Segments((), none, none, none, none, np.zeros(0, np.uint64), np.zeros((0, 32), np.uint8))


class Entries(Struct, frozen=True, eq=False):
    """Rows sorted by key. Shapes: columns (n,), content_ids (n, 32); `segment_ends` are running totals.

    `kinds` holds kind bytes as the format has them (kind, exec, one-chunk and listed bits); `origins` indexes
    `origin_ids`; times are ns since 1970.
    """

    keys: list[PathKey]
    kinds: U8
    sizes: U64
    mtimes: I64
    content_ids: U8
    origins: U32
    origin_ids: tuple[VersionId, ...]
    segment_ends: I64
    segments: Segments

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def empty() -> "Entries":
        """No rows."""
        return make_entries([], np.zeros(0, np.uint8), np.zeros(0, np.uint64))

    @property
    def segment_counts(self) -> I64:
        """Segments of each row, shape (n,)."""
        counts = self.segment_ends.copy()
        counts[1:] -= self.segment_ends[:-1]  # np.diff with its prepend takes ten times as long for a short table
        return counts

    @property
    def unread(self) -> Bool:
        """Files of a draft that are read when they are packed, so that nobody knows their content ids; shape (n,).

        Their content ids are zero, which is no hash. No tree holds such a row.
        """
        is_file: Bool = (self.kinds & KIND_BITS) == Kind.FILE
        return is_file & (self.sizes > 0) & ~self.content_ids.any(axis=1)

    def segment_sums(self, values: U64 | Bool) -> U64:
        """What numbers of the segments, shape (s,), add up to in each row; shape (n,)."""
        below = np.concatenate((np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)))
        sums: U64 = below[self.segment_ends] - below[self.segment_ends - self.segment_counts]
        return sums

    def rows(self, start: int, stop: int) -> "Entries":
        """The rows `[start, stop)`, as views of this table."""
        first = int(self.segment_ends[start - 1]) if start else 0
        last = int(self.segment_ends[stop - 1]) if stop else 0
        window = slice(start, stop)
        return Entries(
            self.keys[window],
            self.kinds[window],
            self.sizes[window],
            self.mtimes[window],
            self.content_ids[window],
            self.origins[window],
            self.origin_ids,
            self.segment_ends[window] - first,
            self.segments.take(np.arange(first, max(first, last))),
        )

    def take(self, rows: Array) -> "Entries":
        """The given rows (indices or a mask of shape (n,)), in the given order, which must be key order."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        counts = self.segment_counts[rows]
        ends = np.cumsum(counts)
        firsts = self.segment_ends[rows] - counts
        gather = np.repeat(firsts - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)
        keys = self.keys
        return Entries(
            [keys[row] for row in rows.tolist()],
            self.kinds[rows],
            self.sizes[rows],
            self.mtimes[rows],
            self.content_ids[rows],
            self.origins[rows],
            self.origin_ids,
            ends,
            self.segments.take(gather),
        )

    def with_origin(self, origin: VersionId) -> "Entries":
        """The same rows, all introduced by `origin`."""
        return replace(self, origins=np.zeros(len(self), np.uint32), origin_ids=(origin,))

    def find(self, key: PathKey) -> int | None:
        """The row of `key`, or None."""
        row = bisect_left(self.keys, key)
        return row if row < len(self.keys) and self.keys[row] == key else None

    def find_many(self, keys: Sequence[PathKey]) -> I64:
        """The row of each key, -1 where there is none; shape (len(keys),). Keys in order need the least memory."""
        found = np.empty(len(keys), np.int64)
        for start in range(0, len(keys), _SLICE):
            part = keys[start : start + _SLICE]
            found[start : start + len(part)] = self._find_near(part)
        return found

    def have_sizes(self, keys: Sequence[PathKey], sizes: U64) -> Bool:
        """Which of n keys are here with these sizes, shape (n,) as the sizes; shape (n,)."""
        at = self.find_many(keys)
        found: Bool = at >= 0
        found[found] = self.sizes[at[found]] == sizes[found]
        return found

    def _find_near(self, keys: Sequence[PathKey]) -> Sequence[int]:
        """The rows of keys that lie near each other: by a table of the rows between them, or each by bisection."""
        first, last = bisect_left(self.keys, min(keys)), bisect_right(self.keys, max(keys))
        if last - first == len(keys) and self.keys[first:last] == keys:  # as of what was not changed
            return range(first, last)
        if len(keys) * 16 > last - first:
            index = {key: row for row, key in enumerate(self.keys[first:last], first)}
            return [index.get(key, -1) for key in keys]
        rows = map(self.find, keys)
        return [-1 if row is None else row for row in rows]

    def range_of(self, directory: PathKey) -> tuple[int, int]:
        """The rows `[start, stop)` that lie below `directory`; the empty key is the whole table."""
        if not directory:
            return 0, len(self)
        return self.range_between(PathKey(directory + b"\0"), PathKey(directory + b"\1"))

    def range_between(self, first: PathKey, behind: PathKey | None) -> tuple[int, int]:
        """The rows `[start, stop)` of the keys from `first` on and before `behind`, or to the end."""
        start = bisect_left(self.keys, first)
        return start, max(start, len(self) if behind is None else bisect_left(self.keys, behind))


def make_entries(
    keys: list[PathKey],
    kinds: U8,
    sizes: U64,
    mtimes: I64 | None = None,
    content_ids: U8 | None = None,
) -> Entries:
    """A table of rows that have no segments yet. Keys must be sorted and unique."""
    count = len(keys)
    return Entries(
        keys,
        kinds,
        sizes,
        np.zeros(count, np.int64) if mtimes is None else mtimes,
        np.zeros((count, 32), np.uint8) if content_ids is None else content_ids,
        np.zeros(count, np.uint32),
        (VersionId(bytes(16)),) if count else (),
        np.zeros(count, np.int64),
        Segments.empty(),
    )


class Changes(Struct, frozen=True, eq=False):
    """What turns one tree into another: rows to add or replace, and keys to remove. The two share no key."""

    entries: Entries
    removed: list[PathKey]

    def __len__(self) -> int:
        return len(self.entries) + len(self.removed)

    @staticmethod
    def none() -> "Changes":
        """No change."""
        return Changes(Entries.empty(), [])


def same_identity(one: Entries, rows: I64, other: Entries, there: I64) -> Bool:
    """Pair by pair of rows of two tables: is it the same thing (kind, exec, size, content id)? Shapes (k,)."""
    same = np.empty(len(rows), np.bool_)
    for start in range(0, len(rows), _SLICE):
        pairs = slice(start, start + _SLICE)
        mine, its = rows[pairs], there[pairs]
        kinds = (one.kinds[mine] & IDENTITY_BITS) == (other.kinds[its] & IDENTITY_BITS)
        contents = (one.content_ids[mine] == other.content_ids[its]).all(axis=1)
        same[pairs] = kinds & (one.sizes[mine] == other.sizes[its]) & contents
    return same


def _merge_tables(tables: Sequence[tuple[Any, ...]]) -> tuple[tuple[Any, ...], list[U32]]:
    """One table of unique values for several, and for each the new index of its old indices."""
    merged: dict[Any, int] = {}
    maps = [np.array([merged.setdefault(value, len(merged)) for value in t], np.uint32) for t in tables]
    return tuple(merged), maps


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts)


def concat_segments(parts: Sequence[Segments]) -> Segments:
    """The rows of several tables of segments, one table after another; packs in common are listed once."""
    packs, maps = _merge_tables([part.packs for part in parts])
    columns = [m[part.pack] if len(m) else part.pack for m, part in zip(maps, parts, strict=True)]
    return Segments(
        packs,
        _joined(columns),
        _joined([part.offset for part in parts]),
        _joined([part.stored for part in parts]),
        _joined([part.plain_offset for part in parts]),
        _joined([part.plain_length for part in parts]),
        _joined([part.digest for part in parts]),
    )


def concat(parts: Sequence[Entries]) -> Entries:
    """The rows of several tables, one table after another; the caller keeps key order."""
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else Entries.empty()
    origin_ids, origin_maps = _merge_tables([part.origin_ids for part in parts])
    totals = accumulate((len(part.segments) for part in parts), initial=0)
    return Entries(
        list(chain.from_iterable(part.keys for part in parts)),
        _joined([part.kinds for part in parts]),
        _joined([part.sizes for part in parts]),
        _joined([part.mtimes for part in parts]),
        _joined([part.content_ids for part in parts]),
        _joined([m[part.origins] for m, part in zip(origin_maps, parts, strict=True)]),
        origin_ids,
        _joined([part.segment_ends + total for part, total in zip(parts, totals, strict=False)]),
        concat_segments([part.segments for part in parts]),
    )


def overlay(base: Entries, changes: Changes) -> Entries:
    """`base` with `changes` applied. Keys to remove that `base` does not hold are ignored."""
    if not len(changes):
        return base
    added = changes.entries
    if not len(base) or (not changes.removed and base.keys == added.keys):
        return added
    keep = np.ones(len(base) + len(added), np.bool_)
    gone = base.find_many([*added.keys, *changes.removed])
    keep[gone[gone >= 0]] = False
    if not len(added):
        return base.take(keep[: len(base)])
    keys = base.keys
    positions = np.fromiter((bisect_left(keys, key) for key in added.keys), np.int64, len(added))
    order = np.insert(np.arange(len(base)), positions, np.arange(len(base), len(base) + len(added)))
    return concat([base, added]).take(order[keep[order]])


def sort_rows(entries: Entries) -> Entries:
    """The same rows in key order."""
    order = np.array(sorted(range(len(entries)), key=entries.keys.__getitem__), np.int64)
    return entries if (order == np.arange(len(order))).all() else entries.take(order)


def compose(first: Changes, then: Changes) -> Changes:
    """The changes that amount to `first` and after it `then`."""
    rows = overlay(first.entries, then)
    present = set(rows.keys)
    return Changes(rows, sorted(({*first.removed} | {*then.removed}) - present))


def first_use(indices: U32) -> tuple[I64, U32]:
    """The distinct values of `indices` in order of first use, and each index's position among them."""
    values, firsts, inverse = np.unique(indices, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    ranks = np.empty(len(order), np.uint32)
    ranks[order] = np.arange(len(order), dtype=np.uint32)
    return values[order].astype(np.int64), ranks[inverse]

"""How versions use what is stored: what each alone holds, in how many ranges it lies, how well it is compressed.

Every tree is read, and the footer of every pack that one of them names; no data is.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from dataset_store.core.arrays import U8, U32, Bool, np
from dataset_store.core.catalog import Version
from dataset_store.core.entries import KIND_BITS, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.tree import read_all
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.workspace import Workspace
from dataset_store.storage.trees import root_of

__all__ = ["DataUsage", "VersionUsage", "data_usage"]


class VersionUsage(Struct, frozen=True):
    """One version's use of stored data.

    Attributes:
        id: The version.
        stored_bytes: Of all frames that hold data of its files.
        own_bytes: Of those that no other live version uses: what deleting it would free, but for its tree.
        ranges: Runs of its files that lie together in packs.
        file_bytes: Of its files, but for external ones.
        linked_bytes: Of the files that its external links lead to.
    """

    id: str
    stored_bytes: int
    own_bytes: int
    ranges: int
    file_bytes: int
    linked_bytes: int

    @property
    def ranges_per_gib(self) -> float | None:
        """How scattered it lies; None of less than a MiB, of which it says nothing."""
        return self.ranges / (self.file_bytes / 2**30) if self.file_bytes >= 1 << 20 else None


class DataUsage(Struct, frozen=True):
    """All live versions' use of stored data: frames that any of them uses, as stored and plain, and each version's."""

    stored_bytes: int
    plain_bytes: int
    versions: tuple[VersionUsage, ...]

    @property
    def compression(self) -> float | None:
        """Plain bytes for each stored one; None where nothing is stored."""
        return self.plain_bytes / self.stored_bytes if self.stored_bytes else None


class _Frames:
    """Every frame of some packs, numbered through; shapes of the columns (f,)."""

    def __init__(self, footers: Iterable[tuple[PackRef, Footer]]) -> None:
        self._first: dict[PackRef, int] = {}
        self._offsets: dict[PackRef, U32] = {}
        stored, plain, count = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)], 0
        for pack, footer in footers:
            self._first[pack] = count
            self._offsets[pack] = footer.offsets
            stored.append(footer.stored)
            plain.append(footer.plain_lengths())
            count += len(footer.offsets)
        self.stored = np.concatenate(stored).astype(np.int64)
        self.plain = np.concatenate(plain)

    def used_by(self, entries: Entries) -> Bool:
        """Which frames hold data of some entries."""
        steps = np.zeros(len(self.stored) + 1, np.int64)
        segments = entries.segments
        begin, end = segments.offset.astype(np.int64), segments.offset.astype(np.int64) + segments.stored
        for number, pack in enumerate(segments.packs):
            rows = segments.pack == number
            first, offsets = self._first[pack], self._offsets[pack]
            np.add.at(steps, first + np.searchsorted(offsets, begin[rows]), 1)
            np.add.at(steps, first + np.searchsorted(offsets, end[rows]), -1)
        used: Bool = np.cumsum(steps[:-1]) > 0
        return used


def data_usage(workspace: Workspace, versions: Sequence[Version]) -> DataUsage:
    """How live versions use what is stored. Memory: one tree, and of each version a bit for each frame.

    Args:
        workspace: The store.
        versions: All live versions: what is nobody else's is told of them alone.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    packs = sorted({pack for version in versions for pack in _entries(workspace, version).segments.packs})
    frames = _Frames(workspace.footers(packs).items())
    uses = np.zeros(len(frames.stored), np.int32)
    found: list[tuple[Version, U8, int, int, int]] = []
    for version in versions:
        entries = _entries(workspace, version)
        used = frames.used_by(entries)
        uses += used
        links = (entries.kinds & KIND_BITS) == Kind.EXTERNAL
        own, linked = (int(entries.sizes[some].sum(dtype=np.uint64)) for some in (~links, links))
        found.append((version, np.packbits(used), len(entries.segments), own, linked))
    rows = []
    for version, bits, *counts in found:
        used = np.unpackbits(bits, count=len(uses)).astype(np.bool_)
        stored, alone = int(frames.stored[used].sum()), int(frames.stored[used & (uses == 1)].sum())
        rows.append(VersionUsage(version.id, stored, alone, *counts))
    any_used = uses > 0
    return DataUsage(int(frames.stored[any_used].sum()), int(frames.plain[any_used].sum()), tuple(rows))


def _entries(workspace: Workspace, version: Version) -> Entries:
    nodes = workspace.store.nodes
    return with_lists(read_all(root_of(version.entry.tree), nodes), nodes)

"""The chunk index: what this machine knows of where a store's chunks and contents are.

Three tables in one environment: a row for each chunk, the footer of each known pack, and the segment lists of whole
contents. Promises: best effort and nothing more. What is absent here may well be in the store, which costs a
duplicate chunk and never correctness; every value carries a checksum, and a damaged one counts as absent. Never:
makes a request, fails (where its folder cannot be used it knows nothing), or knows whether a pack is still there;
so callers ask the log which of them may be used.

Where a chunk is in several packs the first one that was added keeps its row until that pack must be avoided: so the
layout of a file that is edited again and again is stable.
"""

import struct
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final
from zlib import crc32

from dataset_store.core.arrays import np
from dataset_store.core.digest import ContentId, PackName
from dataset_store.core.frames import FrameKind
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.segments import ChunkHit
from dataset_store.local.best_effort import BestEffort

if TYPE_CHECKING:
    from dataset_store.local.lmdb_environment import Transaction

__all__ = ["ChunkIndex"]

_CHUNK: Final = b"c"
_FOOTER: Final = b"f"
_CONTENT: Final = b"s"
"""First byte of a key: its table. Behind it stand a chunk id, a pack reference, a content id."""

_ROWS_AT_ONCE: Final = 65_536
"""Rows of one transaction; as objects they take some 20 MB."""

_PACK: Final = struct.Struct("<I16s")
_CHECK: Final = struct.Struct("<I")
_COUNTS: Final = struct.Struct("<II")
_ROW: Final = struct.Struct("<20sIIIIB")
_COLUMNS: Final = [
    ("id", "u1", (32,)),
    ("pack", "u1", (20,)),
    ("offset", "<u4"),
    ("stored", "<u4"),
    ("plain_offset", "<u4"),
    ("plain_length", "<u4"),
    ("alone", "u1"),
]
"""A chunk id and then its `_ROW`."""


class ChunkIndex:
    """The index in one folder, of one store, shared by all processes that open it. Safe for threads.

    Args:
        directory: Used by nothing else; made if it is not there.
    """

    __slots__ = ("_environment",)

    def __init__(self, directory: str) -> None:
        self._environment = BestEffort(directory)

    def add_footer(self, pack: PackRef, footer: Footer, avoid: Container[PackRef] = ()) -> None:
        """Learn the chunks of all data frames of a pack; nothing is done for a pack that is known already.

        Args:
            pack: The pack.
            footer: Its footer, trusted.
            avoid: Packs that must not be used (condemned ones), whose rows give way to this pack's.
        """
        if not self.knows_pack(pack):
            for rows in _chunk_rows(pack, footer):
                self._environment.write(partial(_put_rows, rows, avoid))
            # Last, as it says that all the others are there.
            key = _FOOTER + _packed(pack)
            self._environment.write(lambda txn: txn.put_many([(key, _sealed(key, footer.encode()))]))

    def knows_pack(self, pack: PackRef) -> bool:
        """Whether the chunks of a pack have been added."""
        return self._environment.get_many([_FOOTER + _packed(pack)]) != [None]

    def footer(self, pack: PackRef) -> Footer | None:
        """The footer of a pack, if it was added; equal to that one."""
        key = _FOOTER + _packed(pack)
        value = self._environment.get_many([key])[0]
        if value is None:
            return None
        body = _unsealed(key, value)
        if body is None:
            self._environment.write(lambda txn: txn.delete_many([key]))
            return None
        return Footer.decode(body, what="of the chunk index")

    def find_many(self, ids: Sequence[bytes]) -> list[ChunkHit | None]:
        """Where each chunk was put, in the order asked; None where that is not known. The pack may be gone by now."""
        keys = [_CHUNK + chunk_id for chunk_id in ids]
        rows = self._environment.get_many(keys)
        packs = _UsablePacks(())
        return [None if row is None else _hit(key, row, packs) for key, row in zip(keys, rows, strict=True)]

    def add_contents(self, rows: Iterable[tuple[ContentId, bytes]]) -> None:
        """Remember where whole contents of more than one chunk are; newer rows replace older ones.

        Args:
            rows: Content ids, each with its encoded segment list, which is opaque here.
        """
        keyed = sorted((_CONTENT + content_id, segments) for content_id, segments in rows)
        sealed = [(key, _sealed(key, segments)) for key, segments in keyed]
        if sealed:
            self._environment.write(lambda txn: txn.put_many(sealed))

    def find_contents(self, ids: Sequence[bytes]) -> list[bytes | None]:
        """The encoded segment list of each content, in the order asked; None where that is not known."""
        keys = [_CONTENT + content_id for content_id in ids]
        values = self._environment.get_many(keys)
        return [None if value is None else _unsealed(key, value) for key, value in zip(keys, values, strict=True)]


class _UsablePacks(dict[bytes, PackRef | None]):
    """Pack references by their bytes, each made and compared with those to avoid only once; None: avoid it."""

    def __init__(self, avoid: Container[PackRef]) -> None:
        super().__init__()
        self._avoid = avoid

    def __missing__(self, packed: bytes) -> PackRef | None:
        storage, name = _PACK.unpack(packed)
        pack = PackRef(storage, PackName(name))
        self[packed] = usable = None if pack in self._avoid else pack
        return usable


def _put_rows(rows: Sequence[tuple[bytes, bytes]], avoid: Container[PackRef], txn: "Transaction") -> None:
    """Rows of chunks. Usable older rows stay."""
    packs = _UsablePacks(avoid)
    held = txn.get_many([key for key, _ in rows])
    txn.put_many(
        [
            (key, value)
            for (key, value), old in zip(rows, held, strict=True)
            if old is None or _hit(key, old, packs) is None
        ]
    )


def _chunk_rows(pack: PackRef, footer: Footer) -> Iterator[list[tuple[bytes, bytes]]]:
    """Keys and values of the chunks in data frames, in ascending order of keys, as many as are written together."""
    frame = footer.frame_of_chunk()
    chunks = np.flatnonzero(footer.kinds[frame] == FrameKind.DATA)
    # A stable order by the first eight bytes is that of the ids but for ties, and it serves only speed.
    prefixes = np.ascontiguousarray(footer.ids[chunks, :8]).view(">u8").ravel()
    chunks = chunks[np.argsort(prefixes, kind="stable")]
    frame = frame[chunks]
    table = np.empty(len(chunks), _COLUMNS)
    table["id"] = footer.ids[chunks]
    table["pack"] = np.frombuffer(_packed(pack), np.uint8)
    table["offset"] = footer.offsets[frame]
    table["stored"] = footer.stored[frame]
    table["plain_offset"] = footer.plain_offsets()[chunks]
    table["plain_length"] = footer.lengths[chunks]
    table["alone"] = footer.chunk_counts[frame] == 1
    size = table.itemsize
    for start in range(0, len(table), _ROWS_AT_ONCE):
        data = table[start : start + _ROWS_AT_ONCE].tobytes()
        rows = [(_CHUNK + data[at : at + 32], data[at + 32 : at + size]) for at in range(0, len(data), size)]
        yield [(key, _sealed(key, row)) for key, row in rows]


def _hit(key: bytes, value: bytes, packs: _UsablePacks) -> ChunkHit | None:
    row = _unsealed(key, value)
    if row is None or len(row) != _ROW.size:
        return None
    packed, offset, stored, plain_offset, plain_length, alone = _ROW.unpack(row)
    pack = packs[packed]
    if pack is None:
        return None
    return ChunkHit(pack, offset, stored, plain_offset, plain_length, bool(alone))


def _packed(pack: PackRef) -> bytes:
    return _PACK.pack(pack.storage, pack.name)


def _sealed(key: bytes, value: bytes) -> bytes:
    """The value behind its checksum: against damage of this machine's files, not against an attacker."""
    return _CHECK.pack(crc32(value, crc32(key))) + value


def _unsealed(key: bytes, sealed: bytes) -> bytes | None:
    """The value, or None where the checksum is of something else."""
    value = sealed[_CHECK.size :]
    return value if sealed == _sealed(key, value) else None

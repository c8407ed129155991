"""Nodes of a tree, read back from their bytes. Many are checked together, in a fraction of the time.

Decoders check everything that could mislead a reader and raise CorruptObject. They never trust a count before it fits
the bytes at hand, nor cut keys before it is known that they do not overlap.
"""

from collections.abc import Sequence

from msgspec import Struct

from dataset_store.core.arrays import I64, U8, U32, U64, Array, np
from dataset_store.core.digest import PackName, VersionId
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, LISTED, ONE_CHUNK, Entries, Segments
from dataset_store.core.frames import NEXT_STEP, PLAIN_LIMITS, FrameKind
from dataset_store.core.key_tables import cut_keys
from dataset_store.core.nodes import HEADER, MAGIC, Children, Node, digest_rows
from dataset_store.core.packfile import PackRef, are_inside
from dataset_store.core.paths import PathKey
from dataset_store.errors import CorruptObject

__all__ = ["decode_node", "decode_nodes"]

_MOST_BYTES = float(1 << 63)
_KNOWN_KIND_BITS = KIND_BITS | ONE_CHUNK | LISTED | EXECUTABLE
_AT_ONCE = 64
"""Nodes whose columns are joined: enough that each rule takes little time for one, and little memory for all."""
_WIDTHS = {"<u8": 8, "<i8": 8, "<u4": 4, "u1": 1}


def decode_node(data: bytes | memoryview, what: str, *, placed: bool = True) -> Node:
    """Columns of a node's plain bytes (views of `data`).

    Args:
        data: The plain bytes.
        what: Names the object in messages.
        placed: Whether every content must have its segments; rows of a draft may lack them.

    Raises:
        CorruptObject: The bytes are no canonical node.
    """
    return decode_nodes([data], [what], placed=placed)[0]


def decode_nodes(datas: Sequence[bytes | memoryview], whats: Sequence[str], *, placed: bool = True) -> list[Node]:
    """As `decode_node` of each, in their order; each rule is looked at once for many of them."""
    groups = (slice(at, at + _AT_ONCE) for at in range(0, len(datas), _AT_ONCE))
    return [node for some in groups for node in _decode_together(datas[some], whats[some], placed=placed)]


def _decode_together(datas: Sequence[bytes | memoryview], whats: Sequence[str], *, placed: bool) -> list[Node]:
    raw = [_columns(data, what) for data, what in zip(datas, whats, strict=True)]
    leaves = [one for one in raw if isinstance(one, _Leaf)]
    inner = [one for one in raw if isinstance(one, _Inner)]
    try:
        if leaves:
            _check_leaves(leaves, placed=placed)
        if inner:
            _check_places(inner)
        keys = iter(_keys(raw))
    except CorruptObject:
        if len(raw) == 1:
            raise
        # One by one: whoever is broken is named. If nobody is, they had only too many bytes together.
        return [decode_node(data, what, placed=placed) for data, what in zip(datas, whats, strict=True)]
    return [one.node(next(keys)) for one in raw]


def _broken(what: str, how: str) -> CorruptObject:
    return CorruptObject(f"A tree node in {what} {how}.", NEXT_STEP)


# --- the columns of one node --------------------------------------------------------------------------------------


class _Reader:
    """Takes columns off the front of a node's bytes; every length is checked against what is left."""

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self.data = data
        self.at = HEADER.size
        self.what = what

    def take(self, dtype: str, count: int) -> Array:
        length = _WIDTHS[dtype] * count
        if self.at + length > len(self.data):
            raise _broken(self.what, "is cut short")
        column = np.frombuffer(self.data, dtype, count, self.at)
        self.at += length
        return column

    def ids(self, count: int) -> U8:
        column: U8 = self.take("u1", 32 * count).reshape(count, 32)
        return column

    def names(self, count: int) -> list[bytes]:
        raw = self.take("u1", 16 * count).tobytes()
        return [raw[16 * row : 16 * row + 16] for row in range(count)]

    def packs(self, storages: U32) -> tuple[PackRef, ...]:
        names = self.names(len(storages))
        return tuple(PackRef(storage, PackName(name)) for storage, name in zip(storages.tolist(), names, strict=True))

    def last(self, count: int) -> bytes:
        """The bytes of all keys, which end a node."""
        raw = self.take("u1", count).tobytes()
        if self.at != len(self.data):
            raise _broken(self.what, "has bytes left over")
        return raw


class _Inner(Struct, frozen=True, eq=False):
    """The columns of an inner node as they stand in its bytes, not checked yet."""

    what: str
    level: int
    counts: U64
    sizes: U64
    key_ends: U32
    pack: U32
    offset: U32
    stored: U32
    plain: U32
    packs: tuple[PackRef, ...]
    digests: U8
    node_ids: U8
    raw_keys: bytes

    def node(self, keys: list[PathKey]) -> Children:
        return Children(
            self.level,
            keys,
            self.counts,
            self.sizes,
            self.packs,
            self.pack,
            self.offset,
            self.stored,
            self.plain,
            self.digests,
            self.node_ids,
        )


class _Leaf(Struct, frozen=True, eq=False):
    """The columns of a leaf as they stand in its bytes, not checked yet."""

    what: str
    sizes: U64
    mtimes: I64
    plain_length: U64
    key_ends: U32
    segment_ends: U32
    origins: U32
    pack: U32
    offset: U32
    stored: U32
    plain_offset: U32
    packs: tuple[PackRef, ...]
    kinds: U8
    content_ids: U8
    digests: U8
    origin_ids: tuple[VersionId, ...]
    raw_keys: bytes

    def node(self, keys: list[PathKey]) -> Entries:
        ends = self.segment_ends.astype(np.int64)
        digest = np.zeros((len(self.pack), 32), np.uint8)
        segments = Segments(
            self.packs, self.pack, self.offset, self.stored, self.plain_offset, self.plain_length, digest
        )
        entries = Entries(
            keys,
            self.kinds,
            self.sizes,
            self.mtimes,
            self.content_ids,
            self.origins,
            self.origin_ids,
            ends,
            segments,
        )
        if len(self.digests):
            digest[digest_rows(entries)] = self.digests
        return entries


def _columns(data: bytes | memoryview, what: str) -> _Leaf | _Inner:
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise _broken(what, "does not begin like one")
    if data[5:8] != b"\0\0\0":
        raise _broken(what, "has unknown flags")
    _, level, n, p, s, d, o, b = HEADER.unpack_from(data)
    if not level:
        return _leaf_columns(_Reader(data, what), n, p, s, d, o, b)
    if s or d or o or not n:
        raise _broken(what, "has the columns of a leaf")
    return _inner_columns(_Reader(data, what), level, n, p, b)


def _leaf_columns(reader: _Reader, n: int, p: int, s: int, d: int, o: int, b: int) -> _Leaf:
    sizes, mtimes, plain_length = reader.take("<u8", n), reader.take("<i8", n), reader.take("<u8", s)
    key_ends, segment_ends, origins = reader.take("<u4", n), reader.take("<u4", n), reader.take("<u4", n)
    pack, offset, stored, plain_offset = (reader.take("<u4", s) for _ in range(4))
    storages = reader.take("<u4", p)
    kinds, content_ids, digests = reader.take("u1", n), reader.ids(n), reader.ids(d)
    packs = reader.packs(storages)
    origin_ids = tuple(VersionId(name) for name in reader.names(o))
    return _Leaf(
        reader.what,
        sizes,
        mtimes,
        plain_length,
        key_ends,
        segment_ends,
        origins,
        pack,
        offset,
        stored,
        plain_offset,
        packs,
        kinds,
        content_ids,
        digests,
        origin_ids,
        reader.last(b),
    )


def _inner_columns(reader: _Reader, level: int, n: int, p: int, b: int) -> _Inner:
    counts, sizes, key_ends = reader.take("<u8", n), reader.take("<u8", n), reader.take("<u4", n)
    pack, offset, stored, plain = (reader.take("<u4", n) for _ in range(4))
    storages = reader.take("<u4", p)
    digests, node_ids = reader.ids(n), reader.ids(n)
    packs = reader.packs(storages)
    return _Inner(
        reader.what,
        level,
        counts,
        sizes,
        key_ends,
        pack,
        offset,
        stored,
        plain,
        packs,
        digests,
        node_ids,
        reader.last(b),
    )


# --- the rules, for the columns of several nodes one behind another -----------------------------------------------


class _Joined:
    """The columns of several nodes, one behind another. What is wrong is said of the first: ask again of each."""

    def __init__(self, nodes: Sequence[_Leaf] | Sequence[_Inner]) -> None:
        self.nodes = nodes

    def column(self, name: str) -> Array:
        parts = [getattr(node, name) for node in self.nodes]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def numbers(self, name: str) -> I64:
        """How long a column, or a table, is in each node."""
        return np.fromiter((len(getattr(node, name)) for node in self.nodes), np.int64, len(self.nodes))

    def require(self, fact: object, otherwise: str) -> None:
        if not fact:
            raise _broken(self.nodes[0].what, otherwise)

    def require_running(self, name: str, totals: I64, told: str) -> None:
        """Ends rise within each node, the last to the node's total."""
        ends, counts = self.column(name), self.numbers(name)
        behind = np.cumsum(counts)
        rising = ends[1:] >= ends[:-1]
        between = behind[:-1]
        rising[between[(between > 0) & (between < len(ends))] - 1] = True
        last = np.zeros(len(counts), np.int64)
        last[counts > 0] = ends[behind[counts > 0] - 1]
        self.require(rising.all() and (last == totals).all(), f"has {told} ends that do not add up")

    def require_indexes(self, name: str, table: str, told: str) -> None:
        """A column's numbers are below the length of the table that they index."""
        bounds = np.repeat(self.numbers(table), self.numbers(name))
        self.require((self.column(name) < bounds).all(), f"has {told} index out of bounds")


def _check_places(nodes: Sequence[_Leaf] | Sequence[_Inner]) -> None:
    joined = _Joined(nodes)
    joined.require_indexes("pack", "packs", "a pack")
    thing = "segment" if isinstance(nodes[0], _Leaf) else "child"
    inside = are_inside(joined.column("offset"), joined.column("stored"))
    joined.require(inside.all(), f"has a {thing} outside its pack")


def _check_leaves(leaves: Sequence[_Leaf], *, placed: bool) -> None:
    joined = _Joined(leaves)
    joined.require_running("segment_ends", joined.numbers("pack"), "segment")
    _check_places(leaves)
    joined.require_indexes("origins", "origin_ids", "an origin")
    kinds = joined.column("kinds")
    joined.require(not (kinds & ~np.uint8(_KNOWN_KIND_BITS)).any(), "has unknown kind bits")
    joined.require(((kinds & KIND_BITS) - 1 < 4).all(), "has an unknown kind")
    counts = _segment_counts(joined)
    of_chunks = np.where((kinds & ONE_CHUNK) == 0, counts, 0)
    digests = _sums(of_chunks, joined.numbers("kinds"))
    joined.require((digests == joined.numbers("digests")).all(), "has digests that belong to no segment")
    if placed:
        _check_contents(joined, kinds, counts)


def _segment_counts(joined: _Joined) -> I64:
    """Of each row of each leaf, whose ends are known to rise."""
    ends = joined.column("segment_ends").astype(np.int64)
    counts = ends.copy()
    counts[1:] -= ends[:-1]
    rows = joined.numbers("segment_ends")
    firsts = (np.cumsum(rows) - rows)[rows > 0]
    counts[firsts] = ends[firsts]
    return counts


def _sums(values: Array, counts: I64) -> Array:
    """Sums of consecutive values, so many for each."""
    below = np.concatenate((np.zeros(1, values.dtype), np.cumsum(values)))
    ends = np.cumsum(counts)
    sums: Array = below[ends] - below[ends - counts]
    return sums


def _check_contents(joined: _Joined, kinds: U8, counts: I64) -> None:
    """A file's segments add up to its size; only then may a reader trust either."""
    lengths = joined.column("plain_length")
    # So no sum wraps. How sums of several are rounded is not how each one's is; so far from the bound that is the same.
    most = _MOST_BYTES if len(joined.nodes) == 1 else _MOST_BYTES / 2
    joined.require(lengths.sum(dtype=np.float64) <= most, "has more bytes than a tree may have")
    sums = _sums(lengths, counts)
    plain = ((kinds & KIND_BITS) <= 2) & ((kinds & LISTED) == 0)
    sizes = joined.column("sizes")
    joined.require((sums[plain] == sizes[plain]).all(), "has segments that do not add up to a size")
    one, listed = (kinds & ONE_CHUNK) != 0, (kinds & LISTED) != 0
    joined.require((counts[one] == 1).all(), "has a one-chunk entry of several segments")
    joined.require((counts[listed] == 1).all(), "has a segment list of several places")
    of_lists = lengths[np.cumsum(counts)[listed] - 1]
    joined.require((of_lists <= PLAIN_LIMITS[FrameKind.LIST]).all(), "has a segment list longer than any")


def _keys(nodes: Sequence[_Leaf | _Inner]) -> list[list[PathKey]]:
    """The keys of each node, in order and valid."""
    joined = _Joined(nodes)  # type: ignore[arg-type]
    joined.require_running("key_ends", joined.numbers("raw_keys"), "key")
    return cut_keys([node.raw_keys for node in nodes], [node.key_ends for node in nodes])

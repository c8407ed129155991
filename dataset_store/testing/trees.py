"""Trees without a store: nodes kept in memory, and hypothesis strategies for entries."""

from collections.abc import Sequence

from hypothesis import strategies as st
from msgspec import Struct, field

from dataset_store.core.arrays import np
from dataset_store.core.digest import PackName, hash32
from dataset_store.core.entries import EXECUTABLE, ONE_CHUNK, Entries, Segments
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import Node, NodeRef
from dataset_store.core.packfile import PACK_HEADER_SIZE, PackRef, Place
from dataset_store.core.paths import PathKey

__all__ = ["MemoryNodes", "entries_of", "key_sets"]


class MemoryNodes(Struct):
    """A node reader and writer in memory. `pack` may be changed between commits; `read` counts nodes read."""

    pack: PackRef = field(default_factory=lambda: PackRef(0, PackName(bytes(16))))
    plains: dict[Place, bytes] = field(default_factory=dict)
    read: int = 0

    def write_nodes(self, plains: Sequence[bytes]) -> list[Place]:
        """Keep nodes; places are made up."""
        places = []
        for plain in plains:
            place = Place(self.pack, PACK_HEADER_SIZE + len(self.plains), len(plain), len(plain))
            self.plains[place] = plain
            places.append(place)
        return places

    def read_nodes(self, refs: Sequence[NodeRef]) -> list[Node]:
        """The nodes, checked against their ids."""
        self.read += len(refs)
        found = [self.plains[ref.place] for ref in refs]
        assert all(hash32(plain) == ref.node_id for plain, ref in zip(found, refs, strict=True))
        return [decode_node(plain, "memory") for plain in found]

    def next_pack(self) -> None:
        """Write into another pack from here on."""
        number = int.from_bytes(self.pack.name, "little") + 1
        self.pack = PackRef(0, PackName(number.to_bytes(16, "little")))


def entries_of(contents: dict[bytes, int]) -> Entries:
    """Entries made up from keys and a number each: equal numbers are equal contents."""
    keys = sorted(contents)
    count = len(keys)
    numbers = np.array([contents[key] for key in keys], np.int64)
    ids = b"".join(hash32(b"%d" % number) for number in numbers.tolist())
    one = np.arange(count, dtype=np.uint32)
    sizes = (numbers % 1000 + 1).astype(np.uint64)
    pack = PackRef(0, PackName(b"made-up-pack-000"))
    offsets = (PACK_HEADER_SIZE + numbers * 100).astype(np.uint32)
    places = (one * 0, offsets, one * 0 + 50, one * 0)
    segments = Segments((pack,), *places, sizes, np.zeros((count, 32), np.uint8))
    kinds = np.where(numbers % 7 == 0, 1 | EXECUTABLE | ONE_CHUNK, 1 | ONE_CHUNK).astype(np.uint8)
    from_version = bytes(16)
    return Entries(
        [PathKey(key) for key in keys],
        kinds,
        sizes,
        numbers * 10**9,
        np.frombuffer(ids, np.uint8).reshape(-1, 32),
        np.zeros(count, np.uint32),
        (from_version,) if count else (),  # type: ignore[arg-type]
        np.arange(1, count + 1, dtype=np.int64),
        segments,
    )


_names = st.sampled_from([b"a", b"b", b"b\x01", b"c", b"d-", b"e", b"\xff", b"z" * 40])


def key_sets(most: int = 12) -> st.SearchStrategy[list[bytes]]:
    """Sets of keys in which no key lies below another."""
    paths = st.lists(st.lists(_names, min_size=1, max_size=3).map(b"\0".join), max_size=most, unique=True)
    return paths.map(_without_shadowed)


def _without_shadowed(keys: list[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    for key in sorted(keys):
        if not (kept and key.startswith(kept[-1] + b"\0")):
            kept.append(key)
    return kept

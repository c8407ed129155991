"""The census of a tree: how many live node bytes lie in which pack, and which packs a commit should empty.

It bounds the packs that a reader of any version opens for few nodes, at an amortised cost below what the commits write
by themselves (docs/format.md §8.5). A pack that holds many is worth opening, and copying them would cost more than it
saves; so those are as many as there are nodes for.
"""

import struct
from collections import Counter
from collections.abc import Iterable

from dataset_store.core.arrays import np
from dataset_store.core.digest import PackName
from dataset_store.core.packfile import PackRef, Place
from dataset_store.errors import CorruptObject

__all__ = ["MOST_PACKS", "SMALL_BYTES", "Census", "census_after", "decode_census", "encode_census", "packs_to_empty"]

Census = dict[PackRef, int]
"""Live node bytes (stored lengths) by pack; no pack with none."""

MOST_PACKS = 32
_LEAST_SMALL = 16
SMALL_BYTES = 16 << 20
"""A pack with fewer live node bytes of a tree than this is small for it."""

_HEAD = struct.Struct("<I")


def census_after(census: Census, written: Iterable[Place], replaced: Iterable[Place]) -> Census:
    """The census of a tree after an edit that wrote and replaced these nodes."""
    live = Counter(census)
    for place in replaced:
        live[place.pack] -= place.stored
    for place in written:
        live[place.pack] += place.stored
    return {pack: count for pack, count in live.items() if count > 0}


def most_small(census: Census) -> int:
    """How many packs of a tree may be small: 32 less those that are not, but never fewer than 16."""
    return max(_LEAST_SMALL, MOST_PACKS - sum(live >= SMALL_BYTES for live in census.values()))


def packs_to_empty(census: Census) -> list[PackRef]:
    """The packs whose nodes the next commit copies into its own pack; none while there is room for that pack.

    Half of the small packs go at once, those with the fewest live bytes: so a node is copied once in about sixteen
    commits of its size class, and most die before.
    """
    small = [pack for pack, live in census.items() if live < SMALL_BYTES]
    bound = most_small(census)
    if len(small) < bound:
        return []
    small.sort(key=lambda pack: (census[pack], pack.storage, pack.name))
    return small[: len(small) - bound + 1 + bound // 2]


def encode_census(census: Census) -> bytes:
    """The plain bytes of a census frame."""
    rows = sorted((live, pack.storage, pack.name) for pack, live in census.items())
    return b"".join(
        (
            _HEAD.pack(len(rows)),
            np.array([live for live, _, _ in rows], "<u8").tobytes(),
            np.array([storage for _, storage, _ in rows], "<u4").tobytes(),
            b"".join(name for _, _, name in rows),
        )
    )


def decode_census(plain: bytes, what: str) -> Census:
    """The census in a frame's plain bytes.

    Raises:
        CorruptObject: The bytes are no census.
    """
    count = _HEAD.unpack_from(plain)[0] if len(plain) >= 4 else -1
    if len(plain) != 4 + 28 * count:
        raise CorruptObject(f"The census of a tree in {what} is malformed.", "Run `dataset-store verify`.")
    live = np.frombuffer(plain, "<u8", count, 4).tolist()
    storages = np.frombuffer(plain, "<u4", count, 4 + 8 * count).tolist()
    names = [plain[at : at + 16] for at in range(4 + 12 * count, len(plain), 16)]
    refs = [PackRef(storage, PackName(name)) for storage, name in zip(storages, names, strict=True)]
    return dict(zip(refs, live, strict=True))

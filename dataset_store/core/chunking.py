"""Content-defined chunking `gear64-v1`: where a file is cut, as a pure function of its bytes.

The rule, part of the on-disk format:

- Parameters: the average A in bytes, a power of two (default 65,536); minimum A/2; maximum 4 A.
- Table G: 256 words of 64 bits, the first 2,048 bytes of the BLAKE3 extendable output of the ASCII bytes
  `dataset_store gear64 v1`, each word little-endian.
- H(e) = sum over i = 0..63 of G[F[e-1-i]] << i, modulo 2^64: the hash of the 64 bytes just before position e
  of a file F, the newest byte unshifted.
- Position e >= 64 is a candidate when the top log2(A/2) bits of H(e) are all zero.
- From chunk start s the chunk ends at the smallest candidate e with s + minimum <= e < s + maximum; without
  one, at s + maximum; without that many bytes, at the end of the file.

So only the last chunk may be shorter than the minimum, a file no longer than the minimum is one chunk, and
the empty file has none. A candidate is a pure function of the 64 bytes before it, so blocks of a file can be
scanned in any order; the minimum is no less than the window, so a cut is a pure function of bytes inside its
own chunk. The mean chunk of random data is A.

For the default A no window of 64 equal bytes is a candidate, so a long run of one byte is cut at the
maximum. Where such a window is a candidate (of byte 159 or 192 at A = 256), so is every later position of
the run, and it is cut at the minimum: smaller chunks and no other harm. Either way the chunks inside a run
are equal.

Three twins agree to the byte: `cut_ends_reference` is the definition, `cut_ends_numpy` runs everywhere, and
the compiled kernel is used where it was built. This module never does I/O and never keeps a reference to the
caller's bytes; the twins hold at most 2 MiB besides the ends that they return, however long the data.
"""

import re
from bisect import bisect_left
from functools import cache
from typing import Final, Self

from blake3 import blake3
from msgspec import Struct

from dataset_store.core.arrays import I64, U8, U64, np
from dataset_store.errors import FormatTooNew, InvalidRequest

try:
    from dataset_store.core import _cdc  # type: ignore[attr-defined]  # compiled, and optional
except ImportError:
    _cdc = None

__all__ = [
    "ACTIVE_KERNEL",
    "WINDOW",
    "Buffer",
    "ChunkerParams",
    "candidates",
    "cut_ends",
    "cut_ends_numpy",
    "cut_ends_reference",
    "gear_table",
    "select",
]

Buffer = bytes | bytearray | memoryview

ACTIVE_KERNEL: Final[str] = "numpy" if _cdc is None else "c"
"""What `cut_ends` runs on this machine: `c` or `numpy`. The cuts are the same."""

WINDOW: Final = 64
"""Bytes that decide whether a position is a candidate."""


@cache
def gear_table() -> U64:
    """G, one native word for each byte value; read-only."""
    table = np.frombuffer(blake3(b"dataset_store gear64 v1").digest(length=2048), "<u8").astype(np.uint64)
    table.setflags(write=False)
    return table


_ALGORITHM = "gear64-v1"
_NAME = re.compile(re.escape(_ALGORITHM) + r"/([1-9][0-9]{0,8})")
_LEAST_AVERAGE = 2 * WINDOW  # the minimum, half of it, must cover the window
_GREATEST_AVERAGE = 1 << 16  # the maximum is then 256 KiB, the most that a frame of data holds
_BLOCK = 1 << 14  # positions hashed at a time: two rows of 128 KiB stay in cache, and little lies past a cut


class ChunkerParams(Struct, frozen=True):
    """The average chunk length, from which every other parameter of `gear64-v1` follows.

    Attributes:
        average: Bytes; a power of two from 128 to 65,536.

    Raises:
        InvalidRequest: The average is not such a number.
    """

    average: int = 65_536

    def __post_init__(self) -> None:
        in_range = _LEAST_AVERAGE <= self.average <= _GREATEST_AVERAGE
        if not in_range or self.average & (self.average - 1):
            raise InvalidRequest(
                f"The average chunk length {self.average} is not usable.",
                f"Choose a power of two from {_LEAST_AVERAGE} to {_GREATEST_AVERAGE} bytes.",
            )

    @classmethod
    def parse(cls, name: str) -> Self:
        """The parameters that `name` stands for, the inverse of `ChunkerParams.name`.

        Raises:
            FormatTooNew: `name` is none that this version of the package writes.
        """
        match = _NAME.fullmatch(name)
        try:
            return cls(int(match[1]) if match else 0)
        except InvalidRequest:
            raise FormatTooNew(
                f"The store cuts files by {name[:80]!r}, which this version of dataset-store does not know.",
                "Install a newer version of dataset-store.",
            ) from None

    @property
    def name(self) -> str:
        """The name that a store's config records, such as `gear64-v1/65536`."""
        return f"{_ALGORITHM}/{self.average}"

    @property
    def minimum(self) -> int:
        """The least length in bytes of every chunk but the last of a file."""
        return self.average // 2

    @property
    def maximum(self) -> int:
        """The greatest length in bytes of a chunk."""
        return self.average * 4

    @property
    def mask_bits(self) -> int:
        """How many top bits of the hash of a candidate are zero."""
        return self.minimum.bit_length() - 1

    @property
    def shift(self) -> int:
        """What a hash is shifted right by to leave these bits; a candidate's hash is below `1 << shift`."""
        return 64 - self.mask_bits


def cut_ends(data: Buffer, params: ChunkerParams, *, final: bool) -> I64:
    """The ends of the chunks of `data`, which begins where a chunk begins.

    Args:
        data: Contiguous bytes; the compiled kernel reads them without holding the GIL.
        params: The chunker's parameters.
        final: Whether the file ends with `data`. If so, the last end is `len(data)`, unless that is 0. If
            not, the bytes after the last end, at most `params.maximum - 1`, belong to a chunk whose end is
            still open: put them in front of what follows.

    Returns:
        Offsets into `data`, strictly ascending, int64, shape (chunks,); perhaps read-only.

    Raises:
        TypeError: `data` is not contiguous.
    """
    octets = memoryview(data).cast("B")
    if _cdc is None:
        return cut_ends_numpy(octets, params, final=final)
    packed = _cdc.cut_ends(octets, gear_table(), params.minimum, params.maximum, params.shift, final)
    return np.frombuffer(packed, np.int64)


def cut_ends_reference(data: Buffer, params: ChunkerParams, *, final: bool) -> I64:
    """The definition of `cut_ends`, byte by byte: a byte 64 back has been shifted out of the sum."""
    words: list[int] = gear_table().tolist()
    ends: list[int] = []
    start = gear = 0
    for end, octet in enumerate(memoryview(data).cast("B"), start=1):
        gear = ((gear << 1) + words[octet]) % 2**64
        length = end - start
        candidate = gear >> params.shift == 0
        if (candidate and length >= params.minimum) or length == params.maximum:
            ends.append(end)
            start = end
    if final and start < len(data):
        ends.append(len(data))
    return np.array(ends, np.int64)


def cut_ends_numpy(data: Buffer, params: ChunkerParams, *, final: bool) -> I64:
    """The twin of `cut_ends` that needs no compiler; bytes that can hold no cut are not hashed."""
    octets = np.frombuffer(data, np.uint8)
    scratch = _scratch()
    ends: list[int] = []
    start, low = 0, params.minimum
    while low <= octets.size:
        high = min(low + _BLOCK, octets.size + 1)
        found = _candidates_between(octets, low, high, params, scratch)
        ends += _settled(found, start, high - 1, params)
        start = ends[-1] if ends else 0
        low = max(high, start + params.minimum)
    if final and start < octets.size:
        ends.append(octets.size)
    return np.array(ends, np.int64)


def candidates(data: Buffer, params: ChunkerParams) -> I64:
    """Every candidate position e of `data` with 64 <= e <= len(data), wherever in a file `data` lies.

    A file can be scanned in blocks, in any order: the block that begins 64 bytes before position p finds the
    candidates from p on.

    Returns:
        Offsets into `data`, strictly ascending, int64, shape (candidates,): about 2 / average of the
        positions in random bytes, and as many as half of them or more in bytes made for the purpose.
    """
    octets = np.frombuffer(data, np.uint8)
    scratch = _scratch()
    blocks = [
        _candidates_between(octets, low, min(low + _BLOCK, octets.size + 1), params, scratch)
        for low in range(WINDOW, octets.size + 1, _BLOCK)
    ]
    return np.concatenate([np.empty(0, np.int64), *blocks])


def select(found: I64, length: int, params: ChunkerParams, *, final: bool) -> I64:
    """The ends, as of `cut_ends`, of the chunks of `length` bytes in which `found` are all the candidates."""
    ends = _settled(found, 0, length, params)
    if final and length > (ends[-1] if ends else 0):
        ends.append(length)
    return np.array(ends, np.int64)


def _settled(found: I64, start: int, known: int, params: ChunkerParams) -> list[int]:
    """The ends that are certain when `found` holds every candidate from `start + minimum` to `known`."""
    ascending: list[int] = found.tolist()
    ends: list[int] = []
    index = 0
    while True:
        index = bisect_left(ascending, start + params.minimum, index)
        longest = start + params.maximum
        if index < len(ascending) and ascending[index] < longest:
            start = ascending[index]
        elif longest <= known:
            start = longest
        else:
            return ends
        ends.append(start)


def _scratch() -> U64:
    return np.empty((2, _BLOCK + WINDOW - 1), np.uint64)


def _candidates_between(octets: U8, low: int, high: int, params: ChunkerParams, scratch: U64) -> I64:
    """Candidates e with 64 <= low <= e < high <= low + _BLOCK, high <= len(octets) + 1."""
    gear = _hashes(octets[low - WINDOW : high - 1], scratch)
    return np.flatnonzero(gear < np.uint64(1 << params.shift)) + low


def _hashes(block: U8, scratch: U64) -> U64:
    """Hashes of all windows of `block`, by doubling: that of 2 w bytes is two of w, the older one shifted."""
    size = block.size
    hashed: U64 = scratch[0]
    spare: U64 = scratch[1]
    np.take(gear_table(), block, out=hashed[:size], mode="clip")
    for width in (1, 2, 4, 8, 16, 32):
        size -= width
        np.left_shift(hashed[:size], np.uint64(width), out=spare[:size])
        np.add(spare[:size], hashed[width : width + size], out=spare[:size])
        hashed, spare = spare, hashed
    return hashed[:size]

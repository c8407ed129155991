"""Checkpoints: copies of 64, or of 4,096, log entries in one compressed object.

A checkpoint holds whole log objects, back to back, so a reader checks each as if it had read its slot. Bytes of
any origin give either that many objects or `CorruptObject` or `FormatTooNew`; what a frame would decompress to
is bounded before it is decompressed. This module never looks inside the objects: whether they are log entries,
and whether they follow one another, is the reader's to check.
"""

import struct
from collections.abc import Sequence
from typing import Final

from dataset_store.core.envelope import CHECKPOINT, seal, unseal
from dataset_store.core.log_entries import MAX_ENTRY_BYTES
from dataset_store.core.zstd import DamagedFrame, Zstd
from dataset_store.errors import CorruptObject, InvalidRequest

__all__ = ["LEVELS", "MAX_PLAIN", "SPANS", "decode_checkpoint", "encode_checkpoint"]

LEVELS: Final = (1, 2)

SPANS: Final = {0: 1, 1: 64, 2: 4096}
"""Log entries in one object of a level; level 0 is the slots themselves."""

MAX_PLAIN: Final = {1: 64 * (MAX_ENTRY_BYTES + 4), 2: 64 << 20}
"""The most plain bytes of a level. Longer runs of entries have no checkpoint of level 2, only of level 1."""

_HEAD: Final = struct.Struct("<B3xIQ")
_PLAIN_LENGTH: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<I")
_ZSTD_LEVEL: Final = 3
_LARGEST_WINDOW: Final = 128 << 20


def encode_checkpoint(level: int, objects: Sequence[bytes]) -> bytes:
    """The checkpoint that holds these log objects, in slot order.

    Raises:
        InvalidRequest: They are not as many as the level holds, or too long together.
    """
    plain = b"".join(_LENGTH.pack(len(data)) + data for data in objects)
    if level not in LEVELS or len(objects) != SPANS[level] or len(plain) > MAX_PLAIN[level]:
        raise InvalidRequest(f"{len(objects)} entries of {len(plain)} bytes are no checkpoint of level {level}.")
    head = _HEAD.pack(level, len(objects), len(plain))
    return seal(CHECKPOINT, head + Zstd(_ZSTD_LEVEL, _LARGEST_WINDOW).compress(plain))


def decode_checkpoint(level: int, data: bytes, what: str) -> list[bytes]:
    """The log objects of a checkpoint of this level, in slot order.

    Raises:
        CorruptObject: `data` is no such checkpoint; the message names `what`.
        FormatTooNew: It is one of a later format.
    """
    payload = unseal(CHECKPOINT, data, what)
    if len(payload) < _HEAD.size:
        raise _corrupt(what)
    (length,) = _PLAIN_LENGTH.unpack_from(payload, _HEAD.size - _PLAIN_LENGTH.size)
    if payload[: _HEAD.size] != _HEAD.pack(level, SPANS[level], length) or length > MAX_PLAIN[level]:
        raise _corrupt(what)
    try:
        plain = Zstd(_ZSTD_LEVEL, _LARGEST_WINDOW).expand(payload[_HEAD.size :], length)
    except DamagedFrame as error:
        raise _corrupt(what) from error
    objects = _split(plain, SPANS[level])
    if objects is None:
        raise _corrupt(what)
    return objects


def _split(plain: bytes, count: int) -> list[bytes] | None:
    """The objects of plain bytes; None where these are not exactly `count` whole ones."""
    objects: list[bytes] = []
    start = 0
    while len(objects) < count and start + _LENGTH.size <= len(plain):
        (length,) = _LENGTH.unpack_from(plain, start)
        start += _LENGTH.size + length
        objects.append(plain[start - length : start])
    return objects if len(objects) == count and start == len(plain) else None


def _corrupt(what: str) -> CorruptObject:
    return CorruptObject(f"{what} is no valid checkpoint.", "It is only a copy; the log is unaffected.")

"""The envelope around every small object of a store, and the config that every store begins with.

An envelope is `DSTORE`, one byte of kind, one byte of format version, the u32 payload length, the first 16
bytes of the BLAKE3 hash of these 12 bytes and the payload, then the payload. `unseal(kind, seal(kind, p))` is
`p`, and a change of any one bit of a sealed object is noticed. Bytes that are no such object raise
`CorruptObject`, those of a later format `FormatTooNew`, and nothing else is ever raised for them.

This module never does I/O, and never looks inside a payload other than a config's.
"""

import re
from typing import Annotated, Final

import msgspec
from blake3 import blake3

from dataset_store.errors import CorruptObject, FormatTooNew, InvalidRequest

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "FORMAT_VERSION",
    "HEADER_SIZE",
    "LOG_ENTRY",
    "Id16",
    "StoreConfig",
    "decode_config",
    "encode_config",
    "object_digest",
    "seal",
    "too_new",
    "unseal",
]

CONFIG: Final = b"C"
LOG_ENTRY: Final = b"L"
CHECKPOINT: Final = b"K"

FORMAT_VERSION: Final = 1
HEADER_SIZE: Final = 28
"""Bytes before the payload."""

Id16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
"""Sixteen bytes as lower-case hex."""

_MAGIC = b"DSTORE"
_HASHED = 12  # bytes of the header that the hash covers, besides the payload
_TREE = "v1"
_CHUNKER = re.compile(r"gear64-v1/[1-9][0-9]{0,8}")
_MAX_CONFIG = 4096  # bytes of the payload


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The identity and the parameters of a store, written once when it is made.

    Attributes:
        store: The store's id, 32 hex digits.
        chunker: How files are cut, such as `gear64-v1/65536`. Its parameter is checked where files are cut;
            a reader has no use for it.
        tree: How trees are cut into nodes: `v1`.
    """

    store: Id16
    chunker: str
    tree: str


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(StoreConfig)


def seal(kind: bytes, payload: bytes) -> bytes:
    """The object of `kind` (one byte) that holds `payload`."""
    covered = _MAGIC + kind + bytes([FORMAT_VERSION]) + len(payload).to_bytes(4, "little")
    return covered + _check(covered, payload) + payload


def unseal(kind: bytes, data: bytes, what: str) -> bytes:
    """The payload of a sealed object.

    Args:
        kind: The kind that `data` must be, one byte.
        data: The whole object.
        what: The object as a message names it, such as its key.

    Raises:
        CorruptObject: `data` is not a whole object of that kind.
        FormatTooNew: It is one of a later format.
    """
    if len(data) < HEADER_SIZE or data[:7] != _MAGIC + kind:
        raise _corrupt(what, "does not begin as one")
    if data[7] > FORMAT_VERSION:
        raise too_new(f"{what} is of format {data[7]}.")
    payload = data[HEADER_SIZE:]
    if data[7] != FORMAT_VERSION or int.from_bytes(data[8:12], "little") != len(payload):
        raise _corrupt(what, "has another length than it says")
    if data[_HASHED:HEADER_SIZE] != _check(data[:_HASHED], payload):
        raise _corrupt(what, "does not match its hash")
    return payload


def object_digest(data: bytes) -> str:
    """The BLAKE3 hash of a whole object as hex: what the `prev` of the next log entry names."""
    return blake3(data).hexdigest()


def encode_config(config: StoreConfig) -> bytes:
    """The config object.

    Raises:
        InvalidRequest: `config` is none that `decode_config` reads.
    """
    data = seal(CONFIG, _encoder.encode(config))
    try:
        decode_config(data, "The config")
    except (CorruptObject, FormatTooNew) as error:
        raise InvalidRequest(f"The store cannot be made: {error.what}") from error
    return data


def decode_config(data: bytes, what: str) -> StoreConfig:
    """The inverse of `encode_config`.

    Raises:
        CorruptObject: `data` is no config; the message names `what`.
        FormatTooNew: The config names a chunker, a tree or a field that this version does not know.
    """
    payload = unseal(CONFIG, data, what)
    if len(payload) > _MAX_CONFIG:
        raise _corrupt(what, "is longer than a config can be")
    try:
        fields = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        if not fields.keys() <= set(StoreConfig.__struct_fields__):
            raise too_new(f"{what} has fields that this version of dataset-store does not know.")
        config = _decoder.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _corrupt(what, f"holds no config ({error})") from error
    if config.tree != _TREE or not _CHUNKER.fullmatch(config.chunker):
        names = f"tree {config.tree[:80]!r} and chunker {config.chunker[:80]!r}"
        raise too_new(f"{what} names {names}, of which this version of dataset-store does not know both.")
    return config


def too_new(what: str) -> FormatTooNew:
    """The error for something that a newer version of this package wrote."""
    return FormatTooNew(
        f"{what} The store was written by a newer version of dataset-store.",
        "Install a newer version of dataset-store; this one has changed nothing.",
    )


def _corrupt(what: str, why: str) -> CorruptObject:
    return CorruptObject(f"{what} is damaged: it {why}.", "Run verify; other versions may be unaffected.")


def _check(covered: bytes, payload: bytes) -> bytes:
    return blake3(covered + payload).digest(length=16)

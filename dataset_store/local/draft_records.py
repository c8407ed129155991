"""The records of a draft's journal, and how they are written one behind another.

A record says what is so from here on. It is framed by its length and its hash, so a torn last one, whose call never
returned, is told from damage in the midst.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import msgspec
from msgspec import Struct

from dataset_store.core.digest import hash32
from dataset_store.core.entries import Changes, Entries
from dataset_store.core.log_entries import Blob, Producer, Statistics, TreeRootRow
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import encode_node
from dataset_store.core.paths import ROOT, PathKey, to_path
from dataset_store.errors import CorruptObject
from dataset_store.local.os_errors import reading_error

__all__ = [
    "Batch",
    "Committing",
    "Held",
    "Labels",
    "Lost",
    "Metadata",
    "Opened",
    "Output",
    "Record",
    "Reported",
    "Sent",
    "Source",
    "read_records",
    "write_record",
]

_RECORD = struct.Struct("<II16s")
"""Length of the body in bytes, the same with all bits flipped, the first half of its hash."""

_ALL_BITS = 0xFFFFFFFF
_SECTOR = 512
"""Bytes that a disk writes all or none of; after a power cut, those that never came read as zeros."""


class Batch(msgspec.Struct, frozen=True, tag="batch"):
    """Changes made by one call. `rows` are entries as a leaf's bytes, `removed` keys.

    Rows without segments have their content in the folder `root`, whose files have keys below `below`; symbolic links
    and the records of external ones have theirs in `links`, by key.
    """

    root: bytes
    below: PathKey
    rows: memoryview  # of the record that was read, so that columns are views of it
    removed: list[PathKey]
    links: dict[PathKey, bytes] = {}

    def changes(self) -> Changes:
        """The batch as columns."""
        rows = decode_node(self.rows, "a draft", placed=False)
        assert isinstance(rows, Entries)  # noqa: S101  (encoded by `of`)
        return Changes(rows, self.removed)

    @staticmethod
    def of(changes: Changes, source: "Source | None") -> "Batch":
        """The batch of some changes and of where their pending contents lie."""
        lies = source or Source(b"", ROOT, {})
        rows = memoryview(encode_node(changes.entries))
        return Batch(lies.root, lies.below, rows, changes.removed, dict(lies.links))


class Source(Struct, frozen=True):
    """Where the contents of one call's changes lie until they are uploaded; the fields are those of `Batch`."""

    root: bytes
    below: PathKey
    links: Mapping[PathKey, bytes]

    def path_of(self, key: PathKey) -> bytes:
        """The path of the file that has the content of a row."""
        path = to_path(PathKey(key[len(self.below) + 1 :] if self.below else key))
        return self.root + path if self.root[-1:] in {b"", b"/"} else self.root + b"/" + path


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The first record: what the draft is of.

    `base` is the tree that changes apply to, the first parent's; none means the empty tree. `inherited` is what the
    other parents change in it: the draft is there with all of them, or not at all.
    """

    id: str
    store: str
    project: str
    name: str
    series: str | None
    parents: list[str]
    base: TreeRootRow | None
    created: int
    producer: Producer | None = None
    inherited: Batch | None = None


class Labels(msgspec.Struct, frozen=True, tag="labels"):
    """Tags, description, and the explicit version number where there is one, as they are from here on."""

    tags: list[str]
    description: str | None
    number: str | None = None


class Output(msgspec.Struct, frozen=True, tag="output"):
    """Packs go to this root from here on, by a URL without credentials; none means the store's own."""

    url: str | None


class Metadata(msgspec.Struct, frozen=True, tag="metadata"):
    """One piece of metadata from here on, its bytes; without bytes it is removed."""

    name: str
    data: bytes | None


class Reported(msgspec.Struct, frozen=True, tag="reported"):
    """One more report, a line of JSON."""

    line: bytes


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """Everything so far is in the store's packs, as this tree; `slot` is the lowest slot whose fold was used.

    `metadata` are the pieces that are too long for the version's entry; `packs`, by storage number and name, those that
    hold the tree's own nodes.
    """

    tree: TreeRootRow
    slot: int
    stats: Statistics
    metadata: dict[str, Blob] = {}
    packs: list[tuple[int, bytes]] = []


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """From here on the contents of these entries, removed with this, are nowhere; they are to be added again."""

    keys: list[PathKey]


class Held(msgspec.Struct, frozen=True, tag="held"):
    """The log may hold packs for this draft, whose hold is to be released when it is discarded."""


class Committing(msgspec.Struct, frozen=True, tag="committing"):
    """The commit may have been sent: from here on the draft takes no change, only the same commit again.

    Not `active`: it is certain that it did not land, and the draft can be changed again.
    """

    active: bool = True


Record = Opened | Labels | Batch | Output | Metadata | Reported | Sent | Committing | Held | Lost
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def write_record(descriptor: int, record: Record) -> int:
    """Write a record where the file stands; its length in bytes.

    Raises:
        OSError: The disk refused.
    """
    body = _encoder.encode(record)
    _write_all(descriptor, _RECORD.pack(len(body), len(body) ^ _ALL_BITS, hash32(body)[:16]))
    _write_all(descriptor, body)
    return _RECORD.size + len(body)


def read_records(path: str, start: int) -> Iterator[tuple[int, Record, int]]:
    """The whole records of a journal from an offset on, each with the offsets where it begins and ends.

    A torn record at the end is left out. Any other damage is an error: what stands behind it was acknowledged.

    Args:
        path: The journal, in the folder of its draft; where there is none, there are no records.
        start: Where a record begins, in bytes.

    Raises:
        CorruptObject: It is damaged, not just torn at its end.
        AccessDenied, StorageFailed: It cannot be read.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return
    except OSError as error:
        raise reading_error(error, path) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        file.seek(start)
        while (body := _body(file, size)) is not None:
            end = start + _RECORD.size + len(body)
            yield start, _decoded(body, path), end
            start = end


def _body(file: BinaryIO, size: int) -> bytes | None:
    """The body of the next record; None where it is torn: cut short, or its last sector never written."""
    header = file.read(_RECORD.size)
    if len(header) < _RECORD.size:
        return None
    length, complement, check = _RECORD.unpack(header)
    if length ^ complement == _ALL_BITS:
        end = file.tell() + length
        body = file.read(max(0, min(length, size - file.tell())))  # room is made for all that is asked
        if len(body) == length and hash32(body)[:16] == check:
            return body
        torn = end > size or (end == size and not any(body[-((size - 1) % _SECTOR + 1) :]))
    else:
        torn = header.endswith(b"\0") and not any(file.read())
    if torn:
        return None
    raise CorruptObject(
        f"The journal {file.name} of a draft on this machine is damaged.",
        "Discard the draft and make it again; no finished version is affected.",
    )


def _decoded(body: bytes, path: str) -> Record:
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError) as error:  # of msgpack, or of UTF-8 in it
        raise CorruptObject(
            f"The journal {path} of a draft was written by another version of this package.",
            "Finish the draft with that version, or discard it.",
        ) from error


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

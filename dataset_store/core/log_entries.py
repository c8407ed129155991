"""Log entries: every kind that may stand in the catalog, and their canonical bytes.

An entry is an immutable struct. `encode_entry` gives the whole sealed object, the same bytes for equal
entries; `decode_entry` accepts exactly the kinds, fields and bounds listed here. An unknown kind or field
means that a newer writer was here, which is `FormatTooNew`; anything else that does not fit is `CorruptObject`;
no bytes make it raise anything else. Nothing is written that could not be read back.

Ids and hashes are lower-case hex here. This module never decides what an entry does to the fold, and never
makes an id or reads a clock.
"""

import struct
from itertools import pairwise
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from dataset_store.core.envelope import LOG_ENTRY, Id16, object_digest, seal, too_new, unseal
from dataset_store.errors import CorruptObject, FormatTooNew, InvalidRequest

__all__ = [
    "MAX_ENTRY_BYTES",
    "MAX_PACK_ROWS",
    "ArchiveEntry",
    "ArtifactEntry",
    "Blob",
    "Census",
    "CondemnedEntry",
    "DeleteEntry",
    "DescribeEntry",
    "FeatureEntry",
    "Hash",
    "HoldEntry",
    "LogEntry",
    "MetadataEntry",
    "MoveEntry",
    "PackRow",
    "PlaceRow",
    "Producer",
    "PublishEntry",
    "ReleaseEntry",
    "RepackEntry",
    "SegmentRow",
    "SeriesName",
    "Statistics",
    "StorageEntry",
    "TagsEntry",
    "TreeRootRow",
    "VersionEntry",
    "decode_entry",
    "decode_pack_list",
    "encode_entry",
    "encode_pack_list",
    "object_digest",
    "same_body",
    "with_prev",
]

MAX_ENTRY_BYTES: Final = 64 << 10
"""Bytes of a whole log object."""

MAX_PACK_ROWS: Final = 500
"""Rows of `packs`; a longer list is a blob."""

Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=MAX_ENTRY_BYTES)]
_Name = Annotated[str, Meta(min_length=1, max_length=1024)]
_Labels = Annotated[tuple[_Name, ...], Meta(max_length=1024)]
_Ids = Annotated[tuple[Id16, ...], Meta(max_length=1024)]


class _Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A JSON array in the order of the fields."""


class PackRow(_Row, frozen=True):
    """A pack reference: storage number and pack name."""

    storage: _U32
    pack: Id16


class PlaceRow(_Row, frozen=True):
    """Where one frame is: its pack, offset and stored length there, and its plain length; bytes."""

    storage: _U32
    pack: Id16
    offset: _U32
    stored: _U32
    plain: _U32


class SegmentRow(_Row, frozen=True):
    """A run of a blob's chunks within one pack; offsets and lengths in bytes."""

    storage: _U32
    pack: Id16
    offset: _U32
    stored: _U32
    plain_offset: _U32
    plain_length: _Count
    digest: Hash


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A JSON object inside an entry."""


class Blob(_Part, frozen=True, kw_only=True):
    """Bytes too long for an entry, kept in packs: the hash of them, their length, where they are."""

    id: Hash
    size: _Count
    segments: Annotated[tuple[SegmentRow, ...], Meta(max_length=512)]


class Census(_Part, frozen=True, kw_only=True):
    """The frame that tells in which packs a tree's nodes lie: hash of its plain bytes, and its place."""

    id: Hash
    place: PlaceRow


class TreeRootRow(_Part, frozen=True, kw_only=True):
    """The root of a version's tree: its census, its content digest, and its root's node id and place."""

    census: Census
    digest: Hash
    node: Hash
    place: PlaceRow


class Statistics(_Part, frozen=True, kw_only=True):
    """Entries, bytes in them, and how many entries differ from the merged parents."""

    files: _Count
    bytes: _Count
    added: _Count
    modified: _Count
    removed: _Count


class Producer(_Part, frozen=True, kw_only=True):
    """The task that made a version."""

    kind: _Name
    id: _Name
    name: _Text


class SeriesName(_Part, frozen=True, kw_only=True):
    """What a series is called; the project may be empty."""

    project: Annotated[str, Meta(max_length=1024)]
    name: _Name


class _Entry(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    gc=False,
):
    """What every entry has.

    Attributes:
        commit: The id of the intention to append it; of a version, the version's id.
        prev: The hash of the object before it. The log sets it; an entry without it has no place yet and
            can't be encoded.
        time: ns since 1970, a label and nothing more.
    """

    commit: Id16
    prev: Hash = ""
    time: _Count


class VersionEntry(_Entry, frozen=True, kw_only=True, tag="version"):
    """A manifest. `opens` is given only where this entry makes the series; `tags` are sorted."""

    series: Id16
    opens: SeriesName | None = None
    version: Annotated[str, Meta(min_length=1, max_length=128)]
    parents: _Ids
    tree: TreeRootRow
    stats: Statistics
    tags: _Labels
    description: _Text | None = None
    metadata: dict[_Name, _Text | Blob] = {}
    producer: Producer | None = None

    def __post_init__(self) -> None:
        _refuse(not _is_sorted_set(self.tags), "tags that are not sorted or are repeated")


class TagsEntry(_Entry, frozen=True, kw_only=True, tag="tags"):
    """Labels added to a version and labels removed from it; both sorted, and none in both."""

    version: Id16
    add: _Labels
    remove: _Labels

    def __post_init__(self) -> None:
        _refuse(not (_is_sorted_set(self.add) and _is_sorted_set(self.remove)), "tags that are not sorted")
        _refuse(not set(self.add).isdisjoint(self.remove), "a tag that is both added and removed")


class DescribeEntry(_Entry, frozen=True, kw_only=True, tag="describe"):
    """A version's description, replaced."""

    version: Id16
    description: _Text


class MetadataEntry(_Entry, frozen=True, kw_only=True, tag="metadata"):
    """One piece of a version's metadata, set to a text or a blob; removed where neither is given."""

    version: Id16
    name: _Name
    value: _Text | None = None
    blob: Blob | None = None

    def __post_init__(self) -> None:
        _refuse(self.value is not None and self.blob is not None, "both a value and a blob")


class PublishEntry(_Entry, frozen=True, kw_only=True, tag="publish"):
    """A version is marked published."""

    version: Id16


class ArchiveEntry(_Entry, frozen=True, kw_only=True, tag="archive"):
    """A version is hidden or shown."""

    version: Id16
    archived: bool


class MoveEntry(_Entry, frozen=True, kw_only=True, tag="move"):
    """A series is renamed; without effect where another series holds the name."""

    series: Id16
    project: Annotated[str, Meta(max_length=1024)]
    name: _Name


class DeleteEntry(_Entry, frozen=True, kw_only=True, tag="delete"):
    """These versions are no longer live."""

    versions: _Ids


class _PacksEntry(_Entry, frozen=True, kw_only=True):
    """An entry that lists packs, by rows or, where these would be more than 500, by a blob; never both."""

    packs: Annotated[tuple[PackRow, ...], Meta(max_length=MAX_PACK_ROWS)] | None = None
    listed: Blob | None = msgspec.field(name="list", default=None)

    def __post_init__(self) -> None:
        _refuse((self.packs is None) == (self.listed is None), "not one list of packs")


class HoldEntry(_PacksEntry, frozen=True, kw_only=True, tag="hold"):
    """These packs are live until the hold ends."""

    hold: Id16


class ReleaseEntry(_Entry, frozen=True, kw_only=True, tag="release"):
    """A hold ends."""

    hold: Id16


class CondemnedEntry(_PacksEntry, frozen=True, kw_only=True, tag="condemned"):
    """Nobody may begin to use these packs; never undone."""


class RepackEntry(_PacksEntry, frozen=True, kw_only=True, tag="repack"):
    """These packs are condemned, and `table` tells where their live frames are now."""

    table: Blob


class ArtifactEntry(_Entry, frozen=True, kw_only=True, tag="artifact"):
    """A task's output is kept."""

    task: _Name
    name: _Name
    blob: Blob


class StorageEntry(_Entry, frozen=True, kw_only=True, tag="storage"):
    """A root, by a URL without credentials, gets its storage number; 0 is the store's own root."""

    number: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    url: _Name


class FeatureEntry(_Entry, frozen=True, kw_only=True, tag="feature"):
    """From here on these operations (`read`, `write`, `gc`) need a reader that knows the feature."""

    name: _Name
    operations: Annotated[tuple[_Name, ...], Meta(max_length=16)]


LogEntry = (
    VersionEntry
    | TagsEntry
    | DescribeEntry
    | MetadataEntry
    | PublishEntry
    | ArchiveEntry
    | MoveEntry
    | DeleteEntry
    | HoldEntry
    | ReleaseEntry
    | CondemnedEntry
    | RepackEntry
    | ArtifactEntry
    | StorageEntry
    | FeatureEntry
)

_E = TypeVar("_E", bound=_Entry)

_KINDS: dict[str, type[_Entry]] = {str(kind.__struct_config__.tag): kind for kind in LogEntry.__args__}
_PARTS: dict[str, type[msgspec.Struct]] = {
    "opens": SeriesName,
    "tree": TreeRootRow,
    "census": Census,
    "stats": Statistics,
    "producer": Producer,
    "blob": Blob,
    "table": Blob,
    "list": Blob,
}
"""What the JSON object under a name is, at whatever depth it stands."""

_PACK_LIST_ROW = struct.Struct("<I16s")

_encoder = msgspec.json.Encoder(order="sorted")
_decoder: msgspec.json.Decoder[LogEntry] = msgspec.json.Decoder(LogEntry)


def encode_entry(entry: LogEntry) -> bytes:
    """The whole sealed object of an entry; equal entries have equal bytes.

    Raises:
        InvalidRequest: The entry is too long, or a field is none that a reader would accept.
    """
    try:
        data = seal(LOG_ENTRY, _encoder.encode(entry))
        decode_entry(data, f"The {_kind_of(entry)} entry")
    except (UnicodeEncodeError, CorruptObject, FormatTooNew) as error:
        raise InvalidRequest(
            f"A {_kind_of(entry)} entry can't be written: {error}", "Shorten or correct its texts and lists."
        ) from error
    return data


def decode_entry(data: bytes, what: str) -> LogEntry:
    """The entry of a whole sealed object.

    Args:
        data: The object.
        what: The object as a message names it, such as its key.

    Raises:
        CorruptObject: `data` is no log entry.
        FormatTooNew: Its format, its kind or one of its fields is unknown to this version.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise _corrupt(what, f"it is longer than {MAX_ENTRY_BYTES} bytes")
    payload = unseal(LOG_ENTRY, data, what)
    try:
        entry = _decoder.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _refusal(payload, what, error) from error
    if not entry.prev:
        raise _corrupt(what, "it names no object before it")
    return entry


def with_prev(entry: _E, prev: str) -> _E:
    """The same entry in the place after the object whose hash is `prev`."""
    return msgspec.structs.replace(entry, prev=prev)


def same_body(one: LogEntry, other: LogEntry) -> bool:
    """Whether two entries say the same, wherever in the log each stands and whatever their time labels."""
    return msgspec.structs.replace(one, prev=other.prev, time=other.time) == other


def encode_pack_list(packs: tuple[PackRow, ...]) -> bytes:
    """The plain bytes of the blob that stands for a list of packs: rows of u32 storage and id16 name."""
    return b"".join(_PACK_LIST_ROW.pack(row.storage, bytes.fromhex(row.pack)) for row in packs)


def decode_pack_list(plain: bytes, what: str) -> tuple[PackRow, ...]:
    """The inverse of `encode_pack_list`.

    Raises:
        CorruptObject: `plain` is not made of whole rows; the message names `what`.
    """
    if len(plain) % _PACK_LIST_ROW.size:
        raise _corrupt(what, "it is not made of whole rows")
    return tuple(PackRow(number, name.hex()) for number, name in _PACK_LIST_ROW.iter_unpack(plain))


def _refusal(payload: bytes, what: str, error: Exception) -> CorruptObject | FormatTooNew:
    """What it means that `payload` did not decode."""
    try:
        fields = msgspec.json.decode(payload, type=dict[str, object])
    except (ValueError, RecursionError):
        return _corrupt(what, "it is no JSON object")
    kind = fields.get("kind")
    if not isinstance(kind, str):
        return _corrupt(what, "it has no kind")
    if kind not in _KINDS:
        return too_new(f"{what} is of kind {kind[:80]!r}, which this version of dataset-store does not know.")
    unknown = _unknown_field({name: fields[name] for name in fields if name != "kind"}, _KINDS[kind])
    if unknown is not None:
        return too_new(f"{what} has the field {unknown[:80]!r}, which this version of dataset-store does not know.")
    return _corrupt(what, str(error))


def _unknown_field(fields: dict[str, object], kind: type[msgspec.Struct]) -> str | None:
    """A field of a JSON object, or of one inside it, that its struct does not have."""
    for name, value in fields.items():
        if name not in kind.__struct_encode_fields__:
            return name
        if isinstance(value, dict) and name in _PARTS:
            unknown = _unknown_field(value, _PARTS[name])
            if unknown is not None:
                return unknown
    return None


def _kind_of(entry: LogEntry) -> str:
    return str(type(entry).__struct_config__.tag)


def _is_sorted_set(labels: tuple[str, ...]) -> bool:
    return len(labels) < 2 or all(one < other for one, other in pairwise(labels))


def _refuse(wrong: bool, what: str) -> None:
    """Raise the error that the decoder turns into one about the whole entry."""
    if wrong:
        raise ValueError(f"an entry has {what}")


def _corrupt(what: str, why: str) -> CorruptObject:
    return CorruptObject(f"{what} is no log entry: {why}.", "Run verify.")

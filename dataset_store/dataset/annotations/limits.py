"""What a version is called and labelled with, checked when it is given and not when its log entry is written.

An entry of the log has a bounded length and holds Unicode text only; what it could not hold is refused before a draft
is made or changed, so that no draft turns out to be unfinishable after its upload.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from dataset_store.core.log_entries import (
    MAX_ENTRY_BYTES,
    Blob,
    Census,
    PlaceRow,
    SegmentRow,
    SeriesName,
    Statistics,
    TreeRootRow,
    VersionEntry,
    encode_entry,
)
from dataset_store.dataset.annotations.blobs import is_short
from dataset_store.errors import InvalidRequest

__all__ = [
    "Description",
    "require_description",
    "require_name_text",
    "require_tags",
    "require_writable",
    "version_text",
]

_LONGEST = 1_024
_LONGEST_NUMBER = 128
_MOST_TAGS = 1_024
_ID = "f" * 32
_PLACE = PlaceRow(2**32 - 1, _ID, 2**32 - 1, 2**32 - 1, 2**32 - 1)
_TREE = TreeRootRow(census=Census(id=_ID * 2, place=_PLACE), digest=_ID * 2, node=_ID * 2, place=_PLACE)
_MOST = 2**63 - 1
_SEGMENT = SegmentRow(2**32 - 1, _ID, 2**32 - 1, 2**32 - 1, 2**32 - 1, _MOST, _ID * 2)
_BLOB = Blob(id=_ID * 2, size=_MOST, segments=(_SEGMENT,))


class Description(Struct, frozen=True):
    """All that a user says of a version. `number` is an explicit version number."""

    project: str
    name: str
    number: str | None
    tags: tuple[str, ...]
    text: str | None
    parents: Sequence[str]
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def require_writable(about: Description) -> None:
    """Check that a log entry can hold all this.

    Raises:
        InvalidRequest: It cannot; the message names what is wrong.
    """
    _require_text("name", about.name, _LONGEST)
    if about.project:
        _require_text("project", about.project, _LONGEST)
    if about.number:
        _require_text("version number", about.number, _LONGEST_NUMBER)
    if about.text is not None:
        _require_text("description", about.text or "-", MAX_ENTRY_BYTES)
    require_tags(about.tags)
    try:
        encode_entry(_largest_entry(about))
    except InvalidRequest as error:
        raise InvalidRequest(
            f"The description, tags, metadata and names of {about.project}/{about.name[:80]} are together too long: "
            f"a version's log entry has at most {MAX_ENTRY_BYTES >> 10} KiB.",
            "Shorten the description, or keep long texts in files of the dataset.",
        ) from error


def version_text(number: object) -> str | None:
    """A version number as it is kept: the text of what was given, without spaces around it; None stays."""
    return None if number is None else str(number).strip()


def require_name_text(what: str, value: object) -> None:
    """Check what a series is to be called; `what` is `name` or `project`.

    Raises:
        InvalidRequest: It is empty, too long or no text.
    """
    _require_text(what, value, _LONGEST)


def require_description(text: object) -> None:
    """Check a description; an empty one is fine.

    Raises:
        InvalidRequest: It is too long or no text.
    """
    _require_text("description", text or "-", MAX_ENTRY_BYTES // 2)


def require_tags(tags: Sequence[object]) -> None:
    """Check each of a version's tags.

    Raises:
        InvalidRequest: One is empty, too long or no text, or there are too many.
    """
    if len(tags) > _MOST_TAGS:
        raise InvalidRequest(f"{len(tags):,} tags were given.", f"Give at most {_MOST_TAGS:,}.")
    for tag in tags:
        _require_text("tag", tag, _LONGEST)


def _require_text(what: str, value: object, most: int) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"The {what} {value!r} is no text.", "Give a string.")
    if not value or len(value) > most:
        raise InvalidRequest(
            f"The {what} {value[:40]!r} has {len(value):,} characters.", f"Give at least one and at most {most:,}."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The {what} {value[:40]!r} is no Unicode text.", "Leave out lone surrogates.") from error


def _largest_entry(about: Description) -> VersionEntry:
    """The entry as it would be, with everything else as long as it can be."""
    return VersionEntry(
        commit=_ID,
        prev=_ID * 2,
        time=_MOST,
        series=_ID,
        opens=SeriesName(project=about.project, name=about.name),
        version=about.number or "9" * _LONGEST_NUMBER,
        parents=tuple(about.parents),
        tree=_TREE,
        stats=Statistics(files=_MOST, bytes=_MOST, added=_MOST, modified=_MOST, removed=_MOST),
        tags=tuple(sorted(set(about.tags))),
        description=about.text,
        metadata={name: data.decode() if is_short(data) else _BLOB for name, data in about.metadata.items()},
    )

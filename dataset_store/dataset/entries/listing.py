"""What users see of entries: file entries and lists of paths."""

from itertools import compress
from typing import Any, ClassVar

from msgspec import Struct

from dataset_store.core.entries import EXECUTABLE, KIND_BITS, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import to_texts
from dataset_store.core.shares import share_numbers
from dataset_store.core.wildcards import matching
from dataset_store.dataset.entries.selecting import parts_of

__all__ = ["Described", "FileEntry", "file_entries", "paths_of"]


class Described:
    """An entry that says by name what it is, also to `vars()`, without a dict of its own: those of a million cost."""

    __slots__ = ()
    _more: ClassVar[tuple[str, ...]] = ()

    def as_dict(self) -> dict[str, Any]:
        """What ClearML's entry of this kind says of itself, by name."""
        raise NotImplementedError

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """Every attribute by name, in a dict of the caller's own."""
        return {**self.as_dict(), **{name: getattr(self, name) for name in self._more}}


class FileEntry(Described, Struct, frozen=True):
    """One file of a version: a value, which cannot be changed.

    It has the attributes of ClearML's `FileEntry`, and more.

    Attributes:
        relative_path: Its path; bytes that are not UTF-8 are surrogate escapes.
        hash: Its content id in hex, what `b3sum` prints.
        size: In bytes.
        parent_dataset_id: The version that introduced it.
        executable: Whether its owner may execute it.
        mtime_ns: Its time of modification, ns since 1970.
        kind: `file`, `symlink` or `directory` (an empty one).
        artifact_name: `data` where the first part of a local copy holds it (`part=0`), `data_001` where the next one
            does, and so on.
        local_path: Always None: where a file was added from is not kept with it.
    """

    relative_path: str
    hash: str
    size: int
    parent_dataset_id: str
    executable: bool
    mtime_ns: int
    kind: str
    artifact_name: str = "data"
    _more = ("local_path", "executable", "mtime_ns", "kind")

    @property
    def local_path(self) -> str | None:  # noqa: D102 - it stands among the attributes
        return None

    def as_dict(self) -> dict[str, Any]:
        """What ClearML's `FileEntry` says of itself, by name."""
        return {
            "relative_path": self.relative_path,
            "hash": self.hash,
            "parent_dataset_id": self.parent_dataset_id,
            "size": self.size,
            "artifact_name": self.artifact_name,
        }


def file_entries(entries: Entries) -> list[FileEntry]:
    """One object for each row but external links. For lists of paths alone use `paths_of`, which is far cheaper."""
    parts = parts_of(int(entries.sizes.sum()))
    artifacts = ["data", *(f"data_{part:03}" for part in range(1, parts))]
    is_file = (entries.kinds & KIND_BITS) != Kind.EXTERNAL
    numbers = share_numbers(entries, parts)[is_file]
    entries = entries.take(is_file)
    origins = [origin.hex() for origin in entries.origin_ids]
    columns = (entries.kinds, entries.sizes, entries.mtimes, entries.origins, numbers)
    rows = zip(to_texts(entries.keys), entries.content_ids, *(column.tolist() for column in columns), strict=True)
    return [
        FileEntry(
            path,
            content_id.tobytes().hex(),
            size,
            origins[origin],
            bool(kind & EXECUTABLE),
            mtime,
            Kind(kind & KIND_BITS).name.lower(),
            artifacts[part],
        )
        for path, content_id, kind, size, mtime, origin, part in rows
    ]


def paths_of(entries: Entries, pattern: str | None = None, *, recursive: bool = True) -> list[str]:
    """The paths of the files that a wildcard means, sorted as text. Empty directories are no files."""
    is_file = (entries.kinds & KIND_BITS) != Kind.DIRECTORY
    texts = list(compress(to_texts(entries.keys), is_file.tolist()))
    return sorted(compress(texts, matching(texts, pattern, recursive=recursive)))

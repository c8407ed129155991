"""What users see of entries: file entries and lists of paths."""

from dataclasses import dataclass

from dataset_store.core.entries import EXECUTABLE, KIND_BITS, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import to_text
from dataset_store.core.wildcards import matching

__all__ = ["FileEntry", "file_entries", "paths_of"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version.

    Attributes:
        relative_path: Its path; bytes that are not UTF-8 are surrogate escapes.
        hash: Its content id in hex, what `b3sum` prints.
        size: In bytes.
        parent_dataset_id: The version that introduced it.
        executable: Whether its owner may execute it.
        mtime_ns: Its time of modification, ns since 1970.
        kind: `file`, `symlink` or `directory` (an empty one).
    """

    relative_path: str
    hash: str
    size: int
    parent_dataset_id: str
    executable: bool
    mtime_ns: int
    kind: str


def file_entries(entries: Entries) -> list[FileEntry]:
    """One object for each row but external links. For lists of paths alone use `paths_of`, which is far cheaper."""
    entries = entries.take((entries.kinds & KIND_BITS) != Kind.EXTERNAL)
    origins = [origin.hex() for origin in entries.origin_ids]
    columns = (entries.kinds, entries.sizes, entries.mtimes, entries.origins)
    rows = zip(entries.keys, entries.content_ids, *(column.tolist() for column in columns), strict=True)
    return [
        FileEntry(
            to_text(key),
            content_id.tobytes().hex(),
            size,
            origins[origin],
            bool(kind & EXECUTABLE),
            mtime,
            Kind(kind & KIND_BITS).name.lower(),
        )
        for key, content_id, kind, size, mtime, origin in rows
    ]


def paths_of(entries: Entries, pattern: str | None = None, *, recursive: bool = True) -> list[str]:
    """The paths of the files that a wildcard means, sorted as text. Empty directories are no files."""
    texts = [
        to_text(key)
        for key, kind in zip(entries.keys, (entries.kinds & KIND_BITS).tolist(), strict=True)
        if kind != Kind.DIRECTORY
    ]
    meant = matching(texts, pattern, recursive=recursive)
    return sorted(text for text, is_meant in zip(texts, meant, strict=True) if is_meant)

"""How versions look: as documents with `--json`, as titles and rows of tables without."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_store.cli.output import age, size, table, timestamp
from dataset_store.core.version_numbers import title_of

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.overview import VersionSummary

__all__ = [
    "changes_table",
    "counted",
    "identity",
    "summary_document",
    "title",
    "versions_table",
]

_PLURALS = {"entry": "entries"}


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `2 files`."""
    return f"{number} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"


def title(dataset: "Dataset") -> str:
    """What people call a version: `project/name 1.0.0`."""
    return title_of(dataset.project, dataset.name, dataset.version)


def identity(dataset: "Dataset") -> dict[str, Any]:
    """Which version a document is about."""
    return {
        "id": dataset.id,
        "project": dataset.project,
        "name": dataset.name,
        "version": dataset.version,
        "state": "final" if dataset.is_final() else "draft",
    }


def summary_document(row: "VersionSummary") -> dict[str, Any]:
    """A row of a table of versions as a document; sums of a draft are null."""
    return {
        "id": row.id,
        "project": row.project,
        "name": row.name,
        "version": row.number or None,
        "state": "final" if row.final else "draft",
        "tags": list(row.tags),
        "description": row.description,
        "parents": list(row.parents),
        "created": timestamp(row.created_ns),
        "published": row.published,
        "archived": row.archived,
        "deleted": row.deleted,
        "entries": row.entries,
        "bytes": row.bytes,
        "added": row.added,
        "modified": row.modified,
        "removed": row.removed,
    }


def changes_table(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Paths as lines, in order, each with how it changed; `found` are paths by that."""
    rows = sorted((path, how) for how, paths in found.items() for path in paths)
    return table(("CHANGE", "PATH"), [(how, path) for path, how in rows])


def versions_table(rows: Sequence["VersionSummary"], current: str | None = None) -> list[str]:
    """Versions and drafts as lines; the version `current` is marked with a star."""
    header = ("", "DATASET", "VERSION", "ENTRIES", "SIZE", "CREATED", "TAGS", "ID")
    cells = [
        (
            "*" if row.id == current else "",
            title_of(row.project, row.name, ""),
            row.number if row.final else f"{row.number} (draft)".lstrip(),
            "" if row.entries is None else str(row.entries),
            "" if row.bytes is None else size(row.bytes),
            age(row.created_ns),
            ",".join(row.tags),
            row.id,
        )
        for row in rows
    ]
    return table(header, cells, right=[3, 4])

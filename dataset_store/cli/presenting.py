"""How versions look: as documents with `--json`, as titles and rows of tables without."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_store.cli.output import age, shown, size, table, timestamp
from dataset_store.core.version_numbers import rank, title_of

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.catalog.overview import VersionSummary

__all__ = [
    "NOT_APPLIED",
    "changes_document",
    "changes_table",
    "changes_told",
    "counted",
    "identity",
    "in_order",
    "summary_document",
    "title",
    "versions_lines",
]

NOT_APPLIED = "Nothing was written: run it again with --apply."
"""What a command says that only told what it would do."""

_PLURALS = {"entry": "entries", "log entry": "log entries"}
_HOW = ("added", "modified", "removed")


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


def changes_document(found: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Paths by how they changed, in the one order in which that is told everywhere."""
    return {how: list(found[how]) for how in _HOW}


def changes_told(found: Mapping[str, Sequence[str]] | Mapping[str, int]) -> str:
    """How much changed: `2 added, 1 modified, 0 removed`; what is not in `found` is not told."""
    counts = {how: many if isinstance(many, int) else len(many) for how, many in found.items()}
    return ", ".join(f"{counts[how]} {how}" for how in _HOW if how in counts)


def changes_table(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Paths as lines, in order, each with how it changed; `found` are paths by that."""
    rows = sorted((path, how) for how, paths in found.items() for path in paths)
    return table(("CHANGE", "PATH"), [(how, path) for path, how in rows])


def in_order(rows: Iterable["VersionSummary"]) -> list["VersionSummary"]:
    """Versions by project and name, the lowest number first; behind them drafts, the oldest first."""
    several = list(rows)
    finals = sorted(
        (row for row in several if row.final),
        key=lambda row: (row.project, row.name, rank(row.number), row.created_ns),
    )
    return finals + sorted((row for row in several if not row.final), key=lambda row: row.created_ns)


def versions_lines(rows: Sequence["VersionSummary"], store: str, current: str | None = None) -> list[str]:
    """Versions and drafts as lines with a sum at the end; the version `current` is marked with a star."""
    header = ("", "DATASET", "VERSION", "ENTRIES", "SIZE", "CREATED", "TAGS", "ID")
    cells = [
        (
            "*" if row.id == current else "",
            title_of(row.project, row.name, ""),
            row.number + _marks(row),
            "" if row.entries is None else str(row.entries),
            "" if row.bytes is None else size(row.bytes),
            age(row.created_ns),
            ",".join(row.tags),
            row.id,
        )
        for row in rows
    ]
    finals = sum(row.final for row in rows)
    told = f"{counted(finals, 'version')}, {counted(len(rows) - finals, 'draft')} in {shown(store)}"
    return [*table(header, cells, right=[3, 4]), told]


def _marks(row: "VersionSummary") -> str:
    return " (draft)" if not row.final else " (archived)" if row.archived else ""

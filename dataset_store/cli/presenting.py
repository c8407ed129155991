"""How versions look: as documents with `--json`, as titles and rows of tables without."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_store.cli.output import age, shown, size, table, timestamp

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.overview import VersionSummary

__all__ = [
    "changes_table",
    "counted",
    "identity",
    "lineage_lines",
    "summary_document",
    "title",
    "title_of",
    "versions_table",
]

_PLURALS = {"entry": "entries"}


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `2 files`."""
    return f"{number} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"


def title(dataset: "Dataset") -> str:
    """What people call a version: `project/name 1.0.0`."""
    return title_of(dataset.project, dataset.name, dataset.version)


def title_of(project: str, name: str, number: str) -> str:
    """As `title`, from its parts; a draft's number may be empty."""
    return f"{project}/{name} {number}".lstrip("/").rstrip()


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


def lineage_lines(rows: Sequence["VersionSummary"]) -> list[str]:
    """A lineage as a graph, every child above its parents."""
    from dataset_store.core.graph_lines import graph_lines

    by_id = {row.id: row for row in rows}
    lines = graph_lines(list(by_id), {row.id: row.parents for row in rows})
    width = max(len(graph) for graph, _ in lines)
    return [
        f"{graph:{width}}  {_told(by_id[shown_id], by_id)}".rstrip() if shown_id else graph for graph, shown_id in lines
    ]


def _told(row: "VersionSummary", others: Mapping[str, "VersionSummary"]) -> str:
    """A version in one line: what it is called, when it was made, what it changed, and of what it was merged."""
    called = title_of(row.project, row.name, row.number)
    state = "draft" if not row.final else "deleted" if row.deleted else "published" if row.published else ""
    changes = "" if row.added is None else f"+{row.added} ~{row.modified} -{row.removed}"
    parents = [title_of(one.project, one.name, one.number) for parent in row.parents if (one := others.get(parent))]
    of = f"of {' and '.join(parents)}" if len(parents) > 1 else ""
    parts = (called, row.id, age(row.created_ns), changes, state, ",".join(row.tags), of)
    return shown("  ".join(part for part in parts if part))


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

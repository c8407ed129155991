"""What a version comes from, as rows, as a graph of text, and as drawings."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from dataset_store.core.graph_drawing import mermaid, svg
from dataset_store.core.graph_lines import graph_lines
from dataset_store.core.version_numbers import title_of
from dataset_store.dataset.catalog.overview import VersionSummary

__all__ = ["Lineage", "label_of"]


class Lineage(Sequence[VersionSummary]):
    """A version or draft and all its ancestors, deleted ones too, every child before its parents."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[VersionSummary]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> VersionSummary: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[VersionSummary]: ...

    def __getitem__(self, index: int | slice) -> VersionSummary | Sequence[VersionSummary]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[VersionSummary]:
        return iter(self._rows)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """A graph as text, every child above its parents, a version or a joint to a line."""
        by_id = {row.id: row for row in self}
        lines = graph_lines(list(by_id), self._parents())
        width = max(len(graph) for graph, _ in lines)
        return [f"{graph:{width}}  {_told(by_id[at], by_id)}".rstrip() if at else graph for graph, at in lines]

    def mermaid(self) -> str:
        """A Mermaid flow chart, for pages that draw such."""
        return mermaid([row.id for row in self], self._parents(), {row.id: label_of(row) for row in self})

    def svg(self) -> str:
        """A stand-alone SVG image, without script."""
        return svg([row.id for row in self], self._parents(), {row.id: label_of(row) for row in self})

    def _repr_html_(self) -> str:
        return self.svg()

    def _parents(self) -> dict[str, tuple[str, ...]]:
        return {row.id: row.parents for row in self}


def label_of(row: VersionSummary) -> str:
    """A version in a few words: what it is called, what it changed, its state and tags."""
    return "  ".join(part for part in (_called(row), _changes(row), _state(row), ", ".join(row.tags)) if part)


def _told(row: VersionSummary, others: Mapping[str, VersionSummary]) -> str:
    """A version in one line: what it is called, when it was made, what it changed, and of what it was merged."""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created_ns // 10**9))
    parents = [_called(one) for parent in row.parents if (one := others.get(parent))]
    of = f"of {' and '.join(parents)}" if len(parents) > 1 else ""
    parts = (_called(row), row.id, made, _changes(row), _state(row), ",".join(row.tags), of)
    return "  ".join(part for part in parts if part)


def _called(row: VersionSummary) -> str:
    return title_of(row.project, row.name, row.number) + ("" if row.final else " (draft)")


def _state(row: VersionSummary) -> str:
    return "deleted" if row.deleted else "published" if row.published else ""


def _changes(row: VersionSummary) -> str:
    return "" if row.added is None else f"+{row.added} ~{row.modified} -{row.removed}"

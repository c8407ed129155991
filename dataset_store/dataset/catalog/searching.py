"""Searching datasets by parts of their names: what `Dataset.list_datasets` gives."""

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from dataset_store.core.catalog import Catalog, Query, Version
from dataset_store.core.tag_filters import TagFilter
from dataset_store.dataset.catalog.overview import VersionSummary, drafts_of, summary_of
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import InvalidRequest

__all__ = ["Search", "found_as_dict", "search"]

_PLAIN = re.compile(r"(\^?)((?:[\w /-]|\\[^\w\s]|\\ )*)(\$?)")
"""Patterns that are plain text, as `re.escape` writes it, perhaps anchored."""

_ESCAPE = re.compile(r"\\(.)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Search(Struct, frozen=True):
    """Which versions are meant; what is not given does not matter.

    Attributes:
        project: Exactly this one, or with `subprojects` those below it too (`a` and `a/b`, not `ab`).
        partial_name: A regular expression that the name must hold somewhere.
        ids: Only these.
        drafts: This machine's drafts too.
    """

    project: str | None
    partial_name: str | None
    tags: TagFilter
    ids: Collection[str] | None
    subprojects: bool
    archived: bool
    drafts: bool


def search(workspace: Workspace, meant: Search) -> list[VersionSummary]:
    """The versions that are meant, finalized last first, before them drafts; one request where nothing is new.

    Raises:
        InvalidRequest: `partial_name` is no regular expression.
    """
    name = _pattern(meant.partial_name)
    catalog = workspace.refresh()
    query = Query(tags=meant.tags, include_archived=meant.archived)
    found = _named(catalog, meant, name) if meant.ids is None else _among(catalog, meant, name)
    versions = [version for version in found if query.accepts(version)]
    versions.sort(key=lambda version: version.slot, reverse=True)
    rows = [summary_of(workspace, version) for version in versions]
    return _drafts(workspace, meant, name) + rows


def _named(catalog: Catalog, meant: Search, name: re.Pattern[str] | None) -> Iterator[Version]:
    """The live versions of the series that are called as is meant."""
    called = (series for each in _names(catalog, name) for series in catalog.series_called(each))
    for series in called:
        if _in_project(series.project, meant):
            yield from catalog.versions_of(series.id)


def _among(catalog: Catalog, meant: Search, name: re.Pattern[str] | None) -> Iterator[Version]:
    """The same of the versions whose ids are given."""
    versions = (catalog.version(version_id) for version_id in meant.ids or ())
    for version in versions:
        series = None if version is None or version.deleted else catalog.series(version.series)
        if version and series and _in_project(series.project, meant) and (name is None or name.search(series.name)):
            yield version


def _names(catalog: Catalog, pattern: re.Pattern[str] | None) -> Collection[str]:
    """The names that hold a pattern. Of many names and a plain text, looking for the text is much the fastest."""
    if pattern is None:
        return catalog.names()
    plain = _PLAIN.fullmatch(pattern.pattern)
    if plain is None:
        return [name for name in catalog.names() if pattern.search(name)]
    begins, escaped, ends = plain.groups()
    text = _ESCAPE.sub(r"\1", escaped)
    if begins and ends:
        # A dollar sign also stands before a line's end that ends the name.
        return [name for name in (text, f"{text}\n") if catalog.series_called(name)]
    found = [name for name in catalog.names() if text in name]
    return [name for name in found if pattern.search(name)] if begins or ends else found


def found_as_dict(row: VersionSummary) -> dict[str, object]:
    """A row as ClearML's `Dataset.list_datasets` gives it; `created` is a time in UTC."""
    return {
        "name": row.name,
        "created": _EPOCH + timedelta(microseconds=row.created_ns // 1_000),
        "project": row.project,
        "id": row.id,
        "tags": list(row.tags),
        "version": row.number,
        "status": row.status,
    }


def _drafts(workspace: Workspace, meant: Search, name: re.Pattern[str] | None) -> list[VersionSummary]:
    rows = drafts_of(workspace) if meant.drafts else []
    return [
        row
        for row in reversed(rows)
        if _in_project(row.project, meant)
        and (name is None or name.search(row.name))
        and meant.tags.accepts(set(row.tags))
        and (meant.ids is None or row.id in meant.ids)
    ]


def _in_project(project: str, meant: Search) -> bool:
    return meant.project in {None, project} or (meant.subprojects and project.startswith(f"{meant.project}/"))


def _pattern(partial_name: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(partial_name) if partial_name is not None else None
    except re.error as error:
        raise InvalidRequest(
            f"{partial_name!r} is no regular expression: {error}.",
            "A character that is to mean itself needs a backslash before it.",
        ) from error

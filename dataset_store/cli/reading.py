"""Commands about versions that are there: get, list, tag."""

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_store.cli.output import json_out, lines_out, shown, size, table
from dataset_store.cli.presenting import counted, identity, summary_document, title, versions_table
from dataset_store.cli.session import folder_remembers, is_named, store_url, version_meant
from dataset_store.errors import InvalidRequest, TargetNotEmpty

if TYPE_CHECKING:
    from dataset_store.core.catalog import Query
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.listing import FileEntry
    from dataset_store.dataset.overview import VersionSummary

__all__ = ["get", "list_", "tag"]

T = TypeVar("T")


def get(arguments: Namespace) -> int:
    """Print the path of a version's local copy, or make a mutable one."""
    if arguments.overwrite and arguments.copy is None:
        raise InvalidRequest("--overwrite says what to do with the folder of --copy.", "Add --copy DIR.")
    dataset = version_meant(arguments)
    path = dataset.get_local_copy() if arguments.copy is None else _mutable_copy(dataset, arguments)
    if arguments.json:
        json_out(identity(dataset) | {"path": path, "mutable": arguments.copy is not None})
    else:
        lines_out([path])
    return 0


def _mutable_copy(dataset: "Dataset", arguments: Namespace) -> str:
    try:
        return dataset.get_mutable_local_copy(arguments.copy, overwrite=arguments.overwrite)
    except TargetNotEmpty as error:
        raise TargetNotEmpty(error.what, "Choose another folder, or add --overwrite.") from error


def tag(arguments: Namespace) -> int:
    """Change a version's tags, or print them."""
    if arguments.set is not None and (arguments.add is not None or arguments.remove is not None):
        raise InvalidRequest("--set names all tags, --add and --remove some.", "Give one or the other.")
    dataset = version_meant(arguments)
    tags = _changed_tags(dataset, arguments)
    if arguments.json:
        json_out(identity(dataset) | {"tags": tags})
    else:
        lines_out([shown(one) for one in tags])
    return 0


def _changed_tags(dataset: "Dataset", arguments: Namespace) -> list[str]:
    """The tags that a version has once those that were asked for are changed."""
    if arguments.set is not None:
        dataset.tags = arguments.set
    add, remove = set(arguments.add or ()), set(arguments.remove or ())
    if add - remove:
        dataset.add_tags(sorted(add - remove))
    if remove:
        dataset.remove_tags(sorted(remove))
    return sorted(dataset.tags)


def list_(arguments: Namespace) -> int:
    """List files of the version that is meant; where none is meant, or on request, versions."""
    about_files = arguments.filter is not None or arguments.modified
    if arguments.versions:
        if about_files or arguments.id is not None:
            raise InvalidRequest("--versions lists versions, not files.", "Leave out --id, --filter and --modified.")
        return _list_versions(arguments)
    if not about_files and not is_named(arguments) and folder_remembers(arguments) is None:
        return _list_versions(arguments)
    dataset = version_meant(arguments)
    return _list_changes(dataset, arguments) if arguments.modified else _list_files(dataset, arguments)


def _list_files(dataset: "Dataset", arguments: Namespace) -> int:
    entries = dataset.file_entries
    entries = _kept(entries, [entry.relative_path for entry in entries], arguments.filter)
    total = sum(entry.size for entry in entries)
    if arguments.json:
        files = [_file_document(entry) for entry in entries]
        json_out(identity(dataset) | {"files": files, "total": {"files": len(files), "bytes": total}})
        return 0
    rows = [(size(entry.size), entry.hash[:16], _path_cell(entry)) for entry in entries]
    lines_out(_headed(dataset, table(("SIZE", "CONTENT ID", "PATH"), rows, right=[0])))
    lines_out([f"{counted(len(entries), 'file')}, {size(total)}"])
    return 0


def _list_changes(dataset: "Dataset", arguments: Namespace) -> int:
    found = {
        "added": dataset.list_added_files(),
        "modified": dataset.list_modified_files(),
        "removed": dataset.list_removed_files(),
    }
    changes = {how: _kept(paths, paths, arguments.filter) for how, paths in found.items()}
    if arguments.json:
        json_out(identity(dataset) | changes)
        return 0
    rows = sorted((path, how) for how, paths in changes.items() for path in paths)
    lines_out(_headed(dataset, table(("CHANGE", "PATH"), [(how, path) for path, how in rows])))
    lines_out([", ".join(f"{len(paths)} {how}" for how, paths in changes.items())])
    return 0


def _list_versions(arguments: Namespace) -> int:
    from dataset_store.core.catalog import Query
    from dataset_store.dataset.overview import drafts_of, versions_of
    from dataset_store.dataset.workspace import open_workspace

    workspace = open_workspace()
    query = Query(arguments.project, arguments.name, arguments.version, tuple(arguments.tags or ()))
    versions = versions_of(workspace, query)
    drafts = [draft for draft in drafts_of(workspace) if _draft_is_meant(draft, query)]
    if arguments.json:
        json_out({"store": store_url(), "versions": [summary_document(row) for row in (*versions, *drafts)]})
        return 0
    current = folder_remembers(arguments)
    lines_out(versions_table([*versions, *drafts], current.id if current else None))
    lines_out([f"{counted(len(versions), 'version')}, {counted(len(drafts), 'draft')} in {shown(store_url())}"])
    return 0


def _draft_is_meant(draft: "VersionSummary", query: "Query") -> bool:
    return (
        query.project in {None, draft.project}
        and query.name in {None, draft.name}
        and query.version in {None, draft.number}
        and (not query.tags or not set(query.tags).isdisjoint(draft.tags))
    )


def _kept(items: Sequence[T], paths: Sequence[str], patterns: Sequence[str] | None) -> list[T]:
    """The items whose paths match any of the patterns; all where there are none."""
    if patterns is None:
        return list(items)
    from dataset_store.core.wildcards import matching

    meant = zip(*(matching(paths, pattern) for pattern in patterns), strict=True)
    return [item for item, matches in zip(items, meant, strict=True) if any(matches)]


def _headed(dataset: "Dataset", lines: Sequence[str]) -> list[str]:
    state = "" if dataset.is_final() else " (draft)"
    return [f"{shown(title(dataset))}{state} {dataset.id}", *lines]


def _path_cell(entry: "FileEntry") -> str:
    return entry.relative_path + ("/" if entry.kind == "directory" else "")


def _file_document(entry: "FileEntry") -> dict[str, Any]:
    return {
        "path": entry.relative_path,
        "kind": entry.kind,
        "size": entry.size,
        "hash": entry.hash,
        "executable": entry.executable,
        "mtime_ns": entry.mtime_ns,
        "origin": entry.parent_dataset_id,
    }

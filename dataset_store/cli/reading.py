"""Commands about versions that are there: get, list, log, status, cat, tag."""

import os
import secrets
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_store.cli.output import json_out, lines_out, shown, size, table
from dataset_store.cli.presenting import (
    changes_table,
    counted,
    identity,
    lineage_lines,
    summary_document,
    title,
    versions_table,
)
from dataset_store.cli.session import folder_remembers, is_named, store_url, version_meant
from dataset_store.errors import InvalidRequest, TargetNotEmpty
from dataset_store.local.os_errors import naming_writes

if TYPE_CHECKING:
    from dataset_store.core.catalog import Query
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.listing import FileEntry
    from dataset_store.dataset.overview import VersionSummary

__all__ = ["cat", "get", "list_", "log", "status", "tag"]

T = TypeVar("T")


def get(arguments: Namespace) -> int:
    """Print the path of a version's local copy, or make a mutable one."""
    _require_one_target(arguments)
    dataset = version_meant(arguments)
    path = _mutable_copy(dataset, arguments) if arguments.copy is not None else _local_copy(dataset, arguments)
    if arguments.json:
        json_out(identity(dataset) | {"path": path, "mutable": arguments.copy is not None})
    else:
        lines_out([path])
    return 0


def _require_one_target(arguments: Namespace) -> None:
    if arguments.copy is not None and (arguments.link is not None or arguments.files is not None):
        raise InvalidRequest("--copy makes a whole copy of its own.", "Leave out --link and --files.")
    if arguments.overwrite and arguments.copy is None and arguments.link is None:
        raise InvalidRequest("--overwrite says what to do with the folder of --copy or --link.", "Add one of them.")


def _local_copy(dataset: "Dataset", arguments: Namespace) -> str:
    path = dataset.get_local_copy(part=arguments.part, num_parts=arguments.num_parts, files=arguments.files)
    link: str | None = arguments.link
    if link is None:
        return path
    _link(path, link, overwrite=arguments.overwrite)
    return os.path.abspath(link)


def status(arguments: Namespace) -> int:
    """Tell what a folder changes in a version, without writing."""
    dataset = version_meant(arguments)
    report = dataset.compare_folder(arguments.folder)
    found = {"removed": report.missing, "modified": report.modified, "added": report.extra}
    if arguments.json:
        json_out(identity(dataset) | {"folder": arguments.folder, "matches": report.matches} | found)
        return 0
    lines_out(_headed(dataset, changes_table(found) if any(found.values()) else []))
    lines_out([", ".join(f"{len(paths)} {how}" for how, paths in found.items())])
    return 0


def log(arguments: Namespace) -> int:
    """Draw what a version comes from."""
    from dataset_store.dataset.overview import lineage_of
    from dataset_store.dataset.workspace import open_workspace

    dataset = version_meant(arguments)
    rows = lineage_of(open_workspace(), dataset.id)
    if arguments.json:
        json_out(identity(dataset) | {"lineage": [summary_document(row) for row in rows]})
    else:
        lines_out(lineage_lines(rows))
    return 0


def cat(arguments: Namespace) -> int:
    """Write files of a version to standard output."""
    dataset = version_meant(arguments)
    sys.stdout.flush()
    for path in arguments.paths:
        with dataset.open(path) as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()
    return 0


def _link(path: str, link: str, *, overwrite: bool) -> None:
    """Make a symbolic link; one that is there is replaced in one step, and nothing else ever is."""
    link = link.rstrip("/")
    if not link:
        raise InvalidRequest("--link needs the path of the link to make.", "Give one.")
    with naming_writes(link):
        if overwrite and os.path.islink(link):
            _replace_link(path, link)
            return
        try:
            os.symlink(path, link)
        except FileExistsError as error:
            raise TargetNotEmpty(
                f"There is something at {link!r}.",
                "Choose another place, or add --overwrite to replace a symbolic link.",
            ) from error


def _replace_link(path: str, link: str) -> None:
    temporary = f"{link}.{secrets.token_hex(4)}.part"
    os.symlink(path, temporary)
    try:
        os.rename(temporary, link)
    except OSError:
        os.unlink(temporary)
        raise


def _mutable_copy(dataset: "Dataset", arguments: Namespace) -> str:
    try:
        return dataset.get_mutable_local_copy(
            arguments.copy, overwrite=arguments.overwrite, part=arguments.part, num_parts=arguments.num_parts
        )
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
    lines_out(_headed(dataset, changes_table(changes)))
    lines_out([", ".join(f"{len(paths)} {how}" for how, paths in changes.items())])
    return 0


def _list_versions(arguments: Namespace) -> int:
    from dataset_store.core.catalog import Query
    from dataset_store.core.tag_filters import parse_tags
    from dataset_store.dataset.overview import drafts_of, versions_of
    from dataset_store.dataset.workspace import open_workspace

    workspace = open_workspace()
    query = Query(arguments.project, arguments.name, arguments.version, parse_tags(arguments.tags or ()))
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
        and query.tags.accepts(set(draft.tags))
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

"""Commands about versions that are there: get, list, log, status, cat, tag."""

import os
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import to_builtins

from dataset_store.cli.output import bytes_out, json_out, lines_out, note, shown, size, table
from dataset_store.cli.presenting import (
    changes_document,
    changes_table,
    changes_told,
    counted,
    identity,
    in_order,
    summary_document,
    title,
    versions_lines,
)
from dataset_store.cli.references import id_against
from dataset_store.cli.session import folder_remembers, is_named, store_url, version_meant
from dataset_store.errors import InvalidRequest, TargetNotEmpty
from dataset_store.local.os_errors import naming_writes

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.catalog.differences import Change, TableChange
    from dataset_store.dataset.entries.links import LinkEntry
    from dataset_store.dataset.entries.listing import FileEntry

__all__ = ["cat", "diff", "get", "list_", "log", "status", "tag"]

T = TypeVar("T")

_PIECE = 1 << 20


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
    besides = [flag for flag in ("link", "files") if getattr(arguments, flag) is not None]
    if arguments.copy is not None and besides:
        flags = " and ".join(f"--{flag}" for flag in besides)
        raise InvalidRequest("--copy makes a whole copy of its own.", f"Leave out {flags}.")
    if arguments.overwrite and arguments.copy is None and arguments.link is None:
        raise InvalidRequest("--overwrite says what to do with the folder of --copy or --link.", "Add one of them.")


def _local_copy(dataset: "Dataset", arguments: Namespace) -> str:
    path = dataset.get_local_copy(part=arguments.part, num_parts=arguments.num_parts, files=arguments.files)
    link: str | None = arguments.link
    if link is None:
        return path
    _link(path, link, overwrite=arguments.overwrite)
    _keep_while_linked(path, link)
    return os.path.abspath(link)


def status(arguments: Namespace) -> int:
    """Tell what a folder changes in a version, without writing."""
    dataset = version_meant(arguments)
    report = dataset.compare_folder(arguments.folder)
    found = changes_document({"added": report.extra, "modified": report.modified, "removed": report.missing})
    if arguments.json:
        json_out(identity(dataset) | {"folder": arguments.folder, "matches": report.matches} | found)
        return 0
    lines_out(_headed(dataset, changes_table(found) if any(found.values()) else []))
    lines_out([changes_told(found)])
    return 0


def log(arguments: Namespace) -> int:
    """Draw what a version comes from."""
    dataset = version_meant(arguments)
    lineage = dataset.log()
    if arguments.json:
        json_out(identity(dataset) | {"lineage": [summary_document(row) for row in lineage]})
    elif arguments.mermaid or arguments.svg:
        lines_out((lineage.mermaid() if arguments.mermaid else lineage.svg()).splitlines())
    else:
        lines_out([shown(line) for line in lineage.lines()])
    return 0


def diff(arguments: Namespace) -> int:
    """Tell what a version changes in another: paths and sizes, and of tables rows and columns."""
    dataset = version_meant(arguments)
    found = dataset.diff(None if arguments.against is None else id_against(arguments.against, dataset))
    tables = found.tables()
    if arguments.json:
        document: dict[str, Any] = {"changes": [to_builtins(one) for one in found], "bytes_added": found.bytes_added}
        json_out(identity(dataset) | document | {"tables": [to_builtins(one) for one in tables]})
        return 0
    rows = [(one.how, _size_change(one), _path_change(one)) for one in found]
    lines_out(_headed(dataset, table(("CHANGE", "SIZE", "PATH"), rows, right=[1]) if rows else []))
    lines_out([shown(_table_told(one)) for one in tables])
    lines_out([f"{found}; {'+' if found.bytes_added >= 0 else '-'}{size(abs(found.bytes_added))}"])
    return 0


def _path_change(one: "Change") -> str:
    return f"{one.old_path} -> {one.path}" if one.old_path else one.path


def _size_change(one: "Change") -> str:
    if one.old_size is None or one.new_size is None:
        return size(one.new_size or one.old_size or 0)
    return size(one.new_size) if one.old_size == one.new_size else f"{size(one.old_size)} -> {size(one.new_size)}"


def _table_told(one: "TableChange") -> str:
    """What changed in a table: `t.parquet: 10 -> 12 rows; columns +b -c ~d`."""
    columns = [*(f"+{name}" for name in one.columns_added), *(f"-{name}" for name in one.columns_removed)]
    columns += [f"~{name}" for name in one.columns_changed]
    old, new = ("?" if rows is None else str(rows) for rows in (one.old_rows, one.new_rows))
    return f"{one.path}: {old} -> {new} rows" + (f"; columns {' '.join(columns)}" if columns else "")


def cat(arguments: Namespace) -> int:
    """Write files of a version to standard output."""
    dataset = version_meant(arguments)
    for path in arguments.paths:
        with dataset.open(path) as file:
            while piece := file.read(_PIECE):
                bytes_out(piece)
    return 0


def _link(path: str, link: str, *, overwrite: bool) -> None:
    """Make a symbolic link; another link, or an empty folder, is replaced in one step, and nothing else ever is."""
    link = link.rstrip("/")
    if not link:
        raise InvalidRequest("--link needs the path of the link to make.", "Give one.")
    with naming_writes(link):
        os.makedirs(os.path.dirname(os.path.abspath(link)), exist_ok=True)
        held = os.readlink(link) if os.path.islink(link) else None
        if held == path:
            return
        if os.path.lexists(link) and not (overwrite and held is not None) and not _is_empty_folder(link):
            raise TargetNotEmpty(
                f"There is something at {link!r}.",
                "Choose another place, or add --overwrite to replace a symbolic link.",
            )
        _replace_link(path, link)


def _is_empty_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path)


def _keep_while_linked(path: str, link: str) -> None:
    """See to it that the cache keeps a copy as long as a link leads to it."""
    from dataset_store.dataset.workspace import open_workspace

    open_workspace().copies.pin(os.path.basename(path), os.path.abspath(link.rstrip("/")))


def _replace_link(path: str, link: str) -> None:
    temporary = f"{link}.{os.urandom(4).hex()}.part"
    os.symlink(path, temporary)
    try:
        if _is_empty_folder(link):
            os.rmdir(link)
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
        if arguments.overwrite or not os.path.isdir(arguments.copy):
            raise
        raise TargetNotEmpty(error.what, "Choose another folder, or add --overwrite.") from error


def tag(arguments: Namespace) -> int:
    """Change a version's tags, or print them."""
    if arguments.set is not None and (arguments.add is not None or arguments.remove is not None):
        raise InvalidRequest("--set names all tags, --add and --remove some.", "Give one or the other.")
    dataset = version_meant(arguments)
    absent = sorted(set(arguments.remove or ()) - set(dataset.tags))
    tags = _changed_tags(dataset, arguments)
    if absent:
        note(f"note: it had no tag {', '.join(map(repr, absent))}")
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
    listed = [*map(_file_document, dataset.file_entries), *map(_link_document, dataset.link_entries)]
    entries = sorted(_kept(listed, [one["path"] for one in listed], arguments.filter), key=lambda one: str(one["path"]))
    total = sum(entry["size"] for entry in entries)
    if arguments.json:
        json_out(identity(dataset) | {"files": entries, "total": {"files": len(entries), "bytes": total}})
        return 0
    rows = [(size(entry["size"]), (entry["hash"] or "")[:16], _path_cell(entry)) for entry in entries]
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
    lines_out([changes_told(changes)])
    return 0


def _list_versions(arguments: Namespace) -> int:
    from dataset_store.core.catalog import Query
    from dataset_store.core.tag_filters import parse_tags
    from dataset_store.dataset.catalog.overview import draft_is_meant, drafts_of, versions_of
    from dataset_store.dataset.workspace import open_workspace

    workspace = open_workspace()
    query = Query(arguments.project, arguments.name, arguments.version, parse_tags(arguments.tags or ()))
    versions = versions_of(workspace, query)
    rows = in_order([*versions, *(draft for draft in drafts_of(workspace) if draft_is_meant(draft, query))])
    if arguments.json:
        json_out({"store": store_url(), "versions": [summary_document(row) for row in rows]})
        return 0
    current = folder_remembers(arguments)
    lines_out(versions_lines(rows, store_url(), current.id if current else None))
    return 0


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


def _path_cell(entry: dict[str, Any]) -> str:
    end = "/" if entry["kind"] == "directory" else f" -> {entry['link']}" if entry["kind"] == "external" else ""
    return str(entry["path"]) + end


def _link_document(entry: "LinkEntry") -> dict[str, Any]:
    return {
        "path": entry.relative_path,
        "kind": "external",
        "size": entry.size,
        "hash": entry.hash,
        "link": entry.link,
        "etag": entry.etag,
        "origin": entry.parent_dataset_id,
    }


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

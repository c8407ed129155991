"""Commands about whole versions: publish, describe, rename, move, squash, delete, search, compare."""

from argparse import Namespace

from dataset_store.cli.output import json_out, lines_out, shown
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
from dataset_store.cli.references import full_id, full_ids, project_meant
from dataset_store.cli.session import archived_meant, folder_remembers, store_url, version_meant
from dataset_store.core.version_numbers import title_of

__all__ = ["archive", "compare", "delete", "move", "publish", "rename", "search", "set_description", "squash"]


def publish(arguments: Namespace) -> int:
    """Mark a version published."""
    dataset = version_meant(arguments)
    dataset.publish()
    lines_out([f"{shown(title(dataset))} is published: {dataset.id}"])
    return 0


def archive(arguments: Namespace) -> int:
    """Hide a version from searches, or show it again."""
    dataset = archived_meant(arguments) if arguments.undo else version_meant(arguments)
    if arguments.undo:
        dataset.unarchive()
    else:
        dataset.archive()
    lines_out([f"{shown(title(dataset))} is {'shown again' if arguments.undo else 'archived'}: {dataset.id}"])
    return 0


def set_description(arguments: Namespace) -> int:
    """Change a version's description."""
    dataset = version_meant(arguments)
    dataset.set_description(arguments.description)
    lines_out([f"{shown(title(dataset))} is described: {dataset.id}"])
    return 0


def delete(arguments: Namespace) -> int:
    """Delete a version, or all of a dataset."""
    from dataset_store.core.catalog import Query
    from dataset_store.dataset.dataset import require_one_way
    from dataset_store.dataset.upkeep import deleting
    from dataset_store.dataset.workspace import open_workspace

    named = (arguments.project, arguments.name, arguments.version)
    require_one_way(arguments.id, named)
    gone = deleting.delete(
        open_workspace(),
        None if arguments.id is None else full_id(arguments.id),
        Query(*named, include_archived=True),
        force=arguments.force,
        entire_dataset=arguments.entire_dataset,
    )
    called = shown(title_of(gone.project, gone.name, gone.number))
    if not gone.versions:
        lines_out([f"{called} (draft) is deleted"])
        return 0
    lines_out(
        [
            f"{called} is deleted: {counted(gone.versions, 'version')}",
            "What no version needs any more stays in the store until it is collected.",
        ]
    )
    return 0


def rename(arguments: Namespace) -> int:
    """Give a dataset another name."""
    from dataset_store.dataset import Dataset

    project = project_meant(arguments.project, arguments.name)
    Dataset.rename(arguments.new_name, project, arguments.name)
    lines_out([shown(title_of(project, arguments.new_name, ""))])
    return 0


def move(arguments: Namespace) -> int:
    """Put a dataset into another project."""
    from dataset_store.dataset import Dataset

    Dataset.move_to_project(arguments.new_project, project_meant(arguments.project, arguments.name), arguments.name)
    lines_out([shown(title_of(arguments.new_project, arguments.name, ""))])
    return 0


def search(arguments: Namespace) -> int:
    """Look for versions by parts of their names."""
    from dataset_store.core.tag_filters import parse_tags
    from dataset_store.dataset.catalog import searching
    from dataset_store.dataset.workspace import open_workspace

    meant = searching.Search(
        project=arguments.project,
        partial_name=arguments.name,
        tags=parse_tags(arguments.tags or ()),
        ids=None if arguments.ids is None else full_ids(arguments.ids),
        subprojects=not arguments.non_recursive_project_search,
        archived=arguments.archived,
        drafts=arguments.not_only_completed,
    )
    rows = in_order(searching.search(open_workspace(), meant))
    if arguments.json:
        json_out({"store": store_url(), "versions": [summary_document(row) for row in rows]})
        return 0
    current = folder_remembers(arguments)
    lines_out(versions_lines(rows, store_url(), current.id if current else None))
    return 0


def squash(arguments: Namespace) -> int:
    """Make one version of several that stands on its own."""
    from dataset_store.dataset import Dataset

    dataset = Dataset.squash(arguments.name, dataset_ids=full_ids(arguments.ids), output_url=arguments.storage)
    lines_out([f"{shown(title(dataset))} is final: {dataset.id}"])
    return 0


def compare(arguments: Namespace) -> int:
    """Tell what one version has that another has not."""
    from dataset_store.dataset import Dataset

    source, target = (Dataset.get(full_id(text)) for text in (arguments.source, arguments.target))
    found = changes_document(
        {
            "added": target.list_added_files(source.id),
            "modified": target.list_modified_files(source.id),
            "removed": target.list_removed_files(source.id),
        }
    )
    if arguments.json:
        json_out({"source": identity(source), "target": identity(target)} | found)
        return 0
    if arguments.verbose:
        lines_out(changes_table(found))
    lines_out([changes_told(found)])
    return 0

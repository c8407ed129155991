"""Commands about whole versions: publish, describe, rename, move, squash, delete, search, compare."""

from argparse import Namespace

from dataset_store.cli.output import json_out, lines_out, shown
from dataset_store.cli.presenting import (
    changes_table,
    counted,
    identity,
    summary_document,
    title,
    versions_table,
)
from dataset_store.cli.session import folder_remembers, store_url, version_meant
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
    dataset = version_meant(arguments)
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
    from dataset_store.dataset import Dataset

    Dataset.delete(
        dataset_id=arguments.id,
        dataset_project=arguments.project,
        dataset_name=arguments.name,
        dataset_version=arguments.version,
        force=arguments.force,
        entire_dataset=arguments.entire_dataset,
    )
    lines_out(["Deleted; what no version needs any more stays in the store until it is collected."])
    return 0


def rename(arguments: Namespace) -> int:
    """Give a dataset another name."""
    from dataset_store.dataset import Dataset

    Dataset.rename(arguments.new_name, arguments.project, arguments.name)
    lines_out([shown(title_of(arguments.project, arguments.new_name, ""))])
    return 0


def move(arguments: Namespace) -> int:
    """Put a dataset into another project."""
    from dataset_store.dataset import Dataset

    Dataset.move_to_project(arguments.new_project, arguments.project, arguments.name)
    lines_out([shown(title_of(arguments.new_project, arguments.name, ""))])
    return 0


def search(arguments: Namespace) -> int:
    """Look for versions by parts of their names."""
    from dataset_store.core.tag_filters import parse_tags
    from dataset_store.dataset import searching
    from dataset_store.dataset.workspace import open_workspace

    meant = searching.Search(
        project=arguments.project,
        partial_name=arguments.name,
        tags=parse_tags(arguments.tags or ()),
        ids=arguments.ids,
        subprojects=not arguments.non_recursive_project_search,
        archived=True,
        drafts=arguments.not_only_completed,
    )
    rows = searching.search(open_workspace(), meant)
    if arguments.json:
        json_out({"store": store_url(), "versions": [summary_document(row) for row in rows]})
        return 0
    current = folder_remembers(arguments)
    lines_out(versions_table(rows, current.id if current else None))
    lines_out([f"{counted(len(rows), 'version')} in {shown(store_url())}"])
    return 0


def squash(arguments: Namespace) -> int:
    """Make one version of several that stands on its own."""
    from dataset_store.dataset import Dataset

    dataset = Dataset.squash(arguments.name, dataset_ids=arguments.ids, output_url=arguments.storage)
    lines_out([f"{shown(title(dataset))} is final: {dataset.id}"])
    return 0


def compare(arguments: Namespace) -> int:
    """Tell what one version has that another has not."""
    from dataset_store.dataset import Dataset

    source, target = Dataset.get(arguments.source), Dataset.get(arguments.target)
    found = {
        "removed": target.list_removed_files(source.id),
        "modified": target.list_modified_files(source.id),
        "added": target.list_added_files(source.id),
    }
    if arguments.json:
        json_out({"source": identity(source), "target": identity(target)} | found)
        return 0
    if arguments.verbose:
        lines_out(changes_table(found))
    lines_out([", ".join(f"{counted(len(paths), 'file')} {how}" for how, paths in found.items())])
    return 0

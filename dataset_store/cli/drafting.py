"""Commands that make a version: create, add, remove, sync, upload, close."""

import os
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataset_store.cli.output import lines_out, note, shown, size
from dataset_store.cli.presenting import changes_told, counted, title
from dataset_store.cli.references import parents_meant
from dataset_store.cli.session import draft_meant, folder_remembers, remember_draft, remember_final, use_remembered
from dataset_store.core.wildcards import is_wildcard
from dataset_store.errors import InvalidRequest, PathNotFound, PendingUploads

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.making import Counts

__all__ = ["add", "close", "create", "remove", "sync", "upload"]


def create(arguments: Namespace) -> int:
    """Begin a version, remember it in this folder, print its id."""
    dataset = _begin(arguments, parents_meant(arguments), arguments.description)
    remember_draft(dataset)
    lines_out([dataset.id])
    return 0


def add(arguments: Namespace) -> int:
    """Add files and folders, and links to others."""
    if not arguments.files and not arguments.links:
        raise InvalidRequest("Neither --files nor --links was given.", "See `dataset-store add --help`.")
    _require_own_places(arguments.files or ())
    dataset = draft_meant(arguments)
    if arguments.files:
        counts = _added_files(dataset, arguments)
        lines_out([changes_told({"added": counts.added, "modified": counts.modified})])
        _note_nothing_matched(arguments.wildcard, counts, "file")
    if arguments.links:
        counts = _added_links(dataset, arguments)
        lines_out([f"links: {changes_told({'added': counts.added, 'modified': counts.modified})}"])
        _note_nothing_matched(arguments.wildcard, counts, "link")
    return 0


def _require_own_places(files: Sequence[str]) -> None:
    """Refuse several files that would become one: a file is added under its name alone."""
    held: dict[str, str] = {}
    for path in files:
        if os.path.isdir(path):
            continue
        other = held.setdefault(os.path.basename(path), path)
        if os.path.abspath(other) != os.path.abspath(path):
            raise InvalidRequest(
                f"{other!r} and {path!r} would both become {os.path.basename(path)!r}; nothing was added.",
                "Add them one by one with --dataset-folder, or add the folders that hold them.",
            )


def _added_files(dataset: "Dataset", arguments: Namespace) -> "Counts":
    from dataset_store.dataset.making import Counts, add_counting

    each = [
        add_counting(
            dataset,
            path,
            wildcard=arguments.wildcard,
            dataset_path=arguments.dataset_folder,
            recursive=not arguments.non_recursive,
            follow_links=arguments.follow_links,
        )
        for path in arguments.files
    ]
    if arguments.verbose:
        for path, counts in zip(arguments.files, each, strict=True):
            note(f"{shown(path)}: {changes_told({'added': counts.added, 'modified': counts.modified})}")
    return Counts(*map(sum, zip(*each, strict=True)))


def _added_links(dataset: "Dataset", arguments: Namespace) -> "Counts":
    from dataset_store.dataset.making import link_counting

    return link_counting(
        dataset,
        arguments.links,
        wildcard=arguments.wildcard,
        dataset_path=arguments.dataset_folder,
        recursive=not arguments.non_recursive,
    )


def _note_nothing_matched(wildcards: Sequence[str] | None, counts: "Counts", what: str) -> None:
    if wildcards and not counts.matched:
        note(f"note: no {what} matches {' or '.join(map(repr, wildcards))}")


def remove(arguments: Namespace) -> int:
    """Remove files."""
    from dataset_store.dataset.making import entries_meant

    dataset = draft_meant(arguments)
    recursive = not arguments.non_recursive
    meant = entries_meant(dataset, arguments.files, recursive=recursive)
    nothing = [pattern for pattern, count in zip(arguments.files, meant, strict=True) if not count]
    for pattern in nothing:
        if not is_wildcard(pattern):
            raise PathNotFound(
                f"The version has no {pattern!r}; nothing was removed.", "List its files with `dataset-store list`."
            )
    removed = sum(
        dataset.remove_files(pattern, recursive=recursive, verbose=arguments.verbose) for pattern in arguments.files
    )
    lines_out([f"{counted(removed, 'file')} removed"])
    for pattern in nothing:
        note(f"note: nothing matches {pattern!r}")
    return 0


def sync(arguments: Namespace) -> int:
    """Make a version hold what a folder holds, and unless told otherwise upload and finalize it."""
    dataset, begins = _synced_version(arguments)
    changes = _synced(dataset, arguments, discard_on_error=begins)
    lines_out([changes_told(changes)])
    nothing_changed = not any(changes.values()) and not dataset.is_dirty()  # what the store lost is stored again
    if begins and nothing_changed and not arguments.skip_close and _says_nothing(dataset, arguments):
        dataset.discard()
        lines_out(["Nothing changed: the new version was discarded."])
        return 0
    if begins:
        remember_draft(dataset)
    if not arguments.skip_close:
        _close(dataset, arguments)
    elif begins:
        lines_out([f"{shown(title(dataset))} is begun: {dataset.id}"])
    return 0


def upload(arguments: Namespace) -> int:
    """Send what the store lacks."""
    dataset = draft_meant(arguments)
    dataset.upload(verbose=arguments.verbose, output_url=arguments.storage)
    lines_out(_sent(dataset))
    lines_out([f"{shown(title(dataset))} is uploaded: {dataset.id}"])
    return 0


def close(arguments: Namespace) -> int:
    """Upload what was not, and finalize."""
    dataset = draft_meant(arguments)
    if arguments.disable_upload and dataset.is_dirty():
        raise PendingUploads(
            f"Files of the version {dataset.id} wait for upload.",
            "Run `dataset-store upload` first, or close without --disable-upload.",
        )
    _close(dataset, arguments)
    return 0


def _begin(arguments: Namespace, parents: Sequence[str] | None, description: str | None = None) -> "Dataset":
    if arguments.name is None and parents is None:
        raise InvalidRequest("A dataset needs a name.", "Add --name NAME, or --parents ID to take it from a parent.")
    from dataset_store.dataset import Dataset

    return Dataset.create(
        dataset_name=arguments.name,
        dataset_project=arguments.project,
        dataset_tags=arguments.tags,
        parent_datasets=parents,
        dataset_version=arguments.version,
        output_uri=arguments.storage,
        description=description,
    )


def _synced_version(arguments: Namespace) -> tuple["Dataset", bool]:
    """The version that a sync is about, and whether it was begun for it.

    Raises:
        InvalidRequest: The flags contradict each other.
    """
    if arguments.parents or arguments.name is not None:
        if arguments.id is not None:
            raise InvalidRequest(
                "--id means a version that is there, --name and --parents a new one.", "Give one or the other."
            )
        return _begin(arguments, parents_meant(arguments)), True
    current = folder_remembers(arguments) if arguments.id is None else None
    follows = current is not None and current.final
    labels = (arguments.project, *(() if follows else (arguments.version, arguments.tags)))
    if any(labels):
        raise InvalidRequest(
            "--project, --version and --tags are of a new version, and none is asked for.", "Add --name or --parents."
        )
    return (_following(arguments), True) if follows else (draft_meant(arguments), False)


def _following(arguments: Namespace) -> "Dataset":
    """The next version after the final one that this folder remembers."""
    parent = use_remembered(arguments)
    dataset = _begin(arguments, [parent.id])
    lines_out([f"next version of {shown(title(parent))}"])
    return dataset


def _says_nothing(dataset: "Dataset", arguments: Namespace) -> bool:
    """Whether a version in which no file changed differs in nothing else either from the only one it comes from."""
    from dataset_store.dataset import Dataset

    parents = dataset.get_dependency_graph()[dataset.id]
    if len(parents) != 1 or arguments.tags or arguments.version or dataset.description:
        return False
    parent = Dataset.get(parents[0])
    return (parent.project, parent.name) == (dataset.project, dataset.name)


def _synced(dataset: "Dataset", arguments: Namespace, *, discard_on_error: bool) -> dict[str, int]:
    """How many files changed, by how. A draft that was only made for this does not outlive an error."""
    try:
        removed, added, modified = dataset.sync_folder(
            arguments.folder,
            dataset_path=arguments.dataset_folder,
            verbose=arguments.verbose,
            follow_links=arguments.follow_links,
        )
    except BaseException:
        if discard_on_error:
            dataset.discard()
        raise
    return {"added": added, "modified": modified, "removed": removed}


def _close(dataset: "Dataset", arguments: Namespace) -> None:
    """Upload what was not, finalize, and tell. A failure between the two leaves a draft that can be closed again."""
    if arguments.storage is not None and not getattr(arguments, "disable_upload", False):
        dataset.upload(verbose=arguments.verbose, output_url=arguments.storage)
    dataset.finalize(auto_upload=True, verbose=arguments.verbose)
    remember_final(dataset)
    lines_out(_sent(dataset))
    lines_out([f"{shown(title(dataset))} is final: {dataset.id}"])


def _sent(dataset: "Dataset") -> list[str]:
    """What an upload made of the files, as one line; none where nothing was to be sent."""
    done = dataset.last_upload
    if done is None or not done.files:
        return []
    new = f"{size(done.new_bytes)} of it new" if done.new_bytes else "nothing of it new"
    return [f"{counted(done.files, 'file')} of {size(done.bytes)}, {new}: {size(done.stored)} sent"]

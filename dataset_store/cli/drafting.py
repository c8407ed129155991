"""Commands that make a version: create, add, remove, sync, upload, close."""

from argparse import Namespace
from typing import TYPE_CHECKING

from dataset_store.cli.output import lines_out, shown
from dataset_store.cli.presenting import counted, title
from dataset_store.cli.session import draft_meant, remember_draft, remember_final
from dataset_store.errors import InvalidRequest, PendingUploads

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset

__all__ = ["add", "close", "create", "remove", "sync", "upload"]


def create(arguments: Namespace) -> int:
    """Begin a version, remember it in this folder, print its id."""
    dataset = _begin(arguments, arguments.description)
    remember_draft(dataset)
    lines_out([dataset.id])
    return 0


def add(arguments: Namespace) -> int:
    """Add files and folders, and links to others."""
    if not arguments.files and not arguments.links:
        raise InvalidRequest("Neither --files nor --links was given.", "See `dataset-store add --help`.")
    dataset = draft_meant(arguments)
    added = sum(
        dataset.add_files(
            path,
            wildcard=arguments.wildcard,
            dataset_path=arguments.dataset_folder,
            recursive=not arguments.non_recursive,
            verbose=arguments.verbose,
        )
        for path in arguments.files or ()
    )
    told = [f"{counted(added, 'file')} added"] if arguments.files else []
    if arguments.links:
        linked = dataset.add_external_files(
            arguments.links,
            wildcard=arguments.wildcard,
            dataset_path=arguments.dataset_folder,
            recursive=not arguments.non_recursive,
            verbose=arguments.verbose,
        )
        told.append(f"{counted(linked, 'link')} added")
    lines_out(told)
    return 0


def remove(arguments: Namespace) -> int:
    """Remove files."""
    dataset = draft_meant(arguments)
    removed = sum(
        dataset.remove_files(pattern, recursive=not arguments.non_recursive, verbose=arguments.verbose)
        for pattern in arguments.files
    )
    lines_out([f"{counted(removed, 'file')} removed"])
    return 0


def sync(arguments: Namespace) -> int:
    """Make a version hold what a folder holds, and unless told otherwise upload and finalize it."""
    begins = _sync_begins(arguments)
    dataset = _begin(arguments, None) if begins else draft_meant(arguments)
    changes = _synced(dataset, arguments, discard_on_error=begins)
    lines_out([_changed(changes)])
    if begins and not any(changes) and not arguments.skip_close:
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


def _begin(arguments: Namespace, description: str | None) -> "Dataset":
    if arguments.name is None and arguments.parents is None:
        raise InvalidRequest("A dataset needs a name.", "Add --name NAME, or --parents ID to take it from a parent.")
    from dataset_store.dataset import Dataset

    return Dataset.create(
        dataset_name=arguments.name,
        dataset_project=arguments.project,
        dataset_tags=arguments.tags,
        parent_datasets=arguments.parents,
        dataset_version=arguments.version,
        output_uri=arguments.storage,
        description=description,
    )


def _sync_begins(arguments: Namespace) -> bool:
    """Whether a sync makes a new version.

    Raises:
        InvalidRequest: The flags contradict each other.
    """
    begins = arguments.parents is not None or arguments.name is not None
    if begins and arguments.id is not None:
        raise InvalidRequest(
            "--id means a version that is there, --name and --parents a new one.", "Give one or the other."
        )
    if not begins and any(value is not None for value in (arguments.project, arguments.version, arguments.tags)):
        raise InvalidRequest(
            "--project, --version and --tags are of a new version, and none is asked for.", "Add --name or --parents."
        )
    return begins


def _synced(dataset: "Dataset", arguments: Namespace, *, discard_on_error: bool) -> tuple[int, int, int]:
    """Files removed, added and modified. A draft that was only made for this does not outlive an error."""
    try:
        return dataset.sync_folder(arguments.folder, dataset_path=arguments.dataset_folder, verbose=arguments.verbose)
    except BaseException:
        if discard_on_error:
            dataset.discard()
        raise


def _close(dataset: "Dataset", arguments: Namespace) -> None:
    """Upload what was not, finalize, and tell. A failure between the two leaves a draft that can be closed again."""
    if arguments.storage is not None and not getattr(arguments, "disable_upload", False):
        dataset.upload(verbose=arguments.verbose, output_url=arguments.storage)
    dataset.finalize(auto_upload=True, verbose=arguments.verbose)
    remember_final(dataset)
    lines_out([f"{shown(title(dataset))} is final: {dataset.id}"])


def _changed(changes: tuple[int, int, int]) -> str:
    removed, added, modified = changes
    return f"{counted(removed, 'file')} removed, {added} added, {modified} modified"

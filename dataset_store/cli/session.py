"""What commands share: the store in force, the version that is meant, and the messages of the library.

A working folder remembers one version. It is meant wherever a command names none, and its store with it, unless
another store is named on the command line. Where the environment or the user's file name another, that is said.

No password is shown or remembered: what is remembered of a store is the URL without it, and a URL that is given now
lends its own where the two are otherwise the same.
"""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dataset_store.cli.arguments import STORE_VARIABLE
from dataset_store.cli.output import note, problem, shown
from dataset_store.cli.references import full_id, require_one_dataset
from dataset_store.core.urls import redacted, scheme_of
from dataset_store.errors import DatasetNotFound, PathNotFound, VersionIsFinal
from dataset_store.local.current_draft import CurrentVersion, forget, recall, remember
from dataset_store.local.settings import load_settings, stores_named

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset

__all__ = [
    "archived_meant",
    "draft_meant",
    "folder_remembers",
    "is_named",
    "library_messages",
    "progress_shown",
    "remember_draft",
    "remember_final",
    "store_given",
    "store_url",
    "use_remembered",
    "version_meant",
]

_BEGIN = "Begin one with `dataset-store create --name NAME`, or name one with --id."


def store_url() -> str:
    """The store in force as it may be shown and kept: a URL without user and password, or an absolute path."""
    return redacted(store_given())


def store_given() -> str:
    """The store in force as it is opened: never shown, for it may hold a password."""
    return _absolute(load_settings().store)


def _absolute(store: str) -> str:
    return store if scheme_of(store) else os.path.abspath(os.path.expanduser(store))


def is_named(arguments: Namespace) -> bool:
    """Whether the call itself says which version is meant."""
    flags = ("id", "project", "name", "version", "tags")
    return any(getattr(arguments, flag, None) is not None for flag in flags)


def draft_meant(arguments: Namespace) -> "Dataset":
    """The draft that a call means, by `--id` or as remembered.

    Raises:
        DatasetNotFound: There is none.
        VersionIsFinal: It is final already.
    """
    found = _by_id(full_id(arguments.id)) if arguments.id is not None else use_remembered(arguments)
    if found.is_final():
        raise VersionIsFinal(
            f"The version {found.id} is final and takes no more changes.",
            f"Begin the next one with `dataset-store create --parents {found.id}`.",
        )
    return found


def version_meant(arguments: Namespace) -> "Dataset":
    """The version or draft that a call means: by `--id`, by project, name, version and tags, or as remembered.

    Raises:
        DatasetNotFound: There is none.
        Conflict: Several have an id that begins so, or datasets of several projects have the name.
        InvalidRequest: An id was given together with other names.
    """
    if not is_named(arguments):
        return use_remembered(arguments)
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.workspace import open_workspace

    alone = all(part is None for part in (arguments.project, arguments.name, arguments.version))
    found = Dataset.get(
        dataset_id=full_id(arguments.id) if arguments.id is not None and alone else arguments.id,
        dataset_project=arguments.project,
        dataset_name=arguments.name,
        dataset_version=arguments.version,
        dataset_tags=getattr(arguments, "tags", None),
    )
    require_one_dataset(open_workspace().catalog, arguments)
    return found


def archived_meant(arguments: Namespace) -> "Dataset":
    """As `version_meant`, but by name it finds archived versions, before all others. Raises likewise."""
    if not is_named(arguments) or arguments.id is not None:
        return version_meant(arguments)
    from dataset_store.core.catalog import Query
    from dataset_store.dataset.workspace import open_workspace

    workspace = open_workspace()
    query = Query(arguments.project, arguments.name, arguments.version, include_archived=True)
    found = workspace.refresh().matching(query)
    require_one_dataset(workspace.catalog, arguments, archived=True)
    first = next((version for version in found if version.archived), None)
    return _by_id(first.id if first is not None else workspace.resolve(query).id)


def folder_remembers(arguments: Namespace) -> CurrentVersion | None:
    """What this folder remembers, if that is in the store that the call names, or the call names none."""
    current = recall(load_settings().data, _folder())
    if current is None or (arguments.store is not None and current.store != store_url()):
        return None
    return current


def use_remembered(arguments: Namespace) -> "Dataset":
    """The version that this folder remembers; its store is in force from here on.

    Raises:
        DatasetNotFound: There is none, or not any more.
    """
    current = folder_remembers(arguments)
    if current is None:
        store = f" in the store {store_url()}" if arguments.store is not None else ""
        raise DatasetNotFound(f"No version was begun in this folder{store}, and none is named.", _BEGIN)
    _use_store(current.store, arguments)
    try:
        return _by_id(current.id)
    except DatasetNotFound as error:
        forget(load_settings().data, _folder())
        raise DatasetNotFound(
            f"The version {current.id} that this folder remembered is not in {current.store} any more.", _BEGIN
        ) from error


def _use_store(remembered: str, arguments: Namespace) -> None:
    """Put the store of a remembered version in force; say so where another one is named."""
    if remembered == store_url():
        return
    named = [_absolute(store) for store in stores_named()]
    os.environ[STORE_VARIABLE] = next((store for store in named if redacted(store) == remembered), remembered)
    if named and not getattr(arguments, "json", False):
        note(
            f"note: the version begun in this folder is in {shown(remembered)}, which is used and not "
            f"{shown(redacted(named[0]))}; --store names another"
        )


def remember_draft(dataset: "Dataset") -> None:
    """Make a draft the one that this folder is about; a draft that it was about before is only named."""
    before = recall(load_settings().data, _folder())
    if before is not None and not before.final and before.id != dataset.id:
        note(f"The version {before.id} begun here before is kept; reach it with --id.")
    remember(load_settings().data, _folder(), CurrentVersion(store_url(), dataset.id, final=False))


def remember_final(dataset: "Dataset") -> None:
    """Forget a draft that was closed; the folder is about the final version now, unless it is about another draft."""
    before = recall(load_settings().data, _folder())
    if before is None or before.final or before.id == dataset.id:
        remember(load_settings().data, _folder(), CurrentVersion(store_url(), dataset.id, final=True))


@contextmanager
def library_messages(*, verbose: bool) -> Iterator[None]:
    """Show what the library logs on standard error: warnings and what must be told, with `verbose` all the rest."""
    logger = logging.getLogger("dataset_store")
    handler, level = _Messages(), logger.level
    if not verbose:
        handler.addFilter(_is_to_be_told)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show the progress of every long operation, where standard error is a terminal: else nothing is loaded for it."""
    if not sys.stderr.isatty():
        yield
        return
    from dataset_store.dataset.progress import everything_shown

    with everything_shown():
        yield


class _Messages(logging.Handler):
    """Log records as lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            problem(record.levelname.capitalize(), text)
        else:
            note(f"note: {shown(text)}" if _is_to_be_told(record) else shown(text))


def _is_to_be_told(record: logging.LogRecord) -> bool:
    """Whether people are to see a message that they did not ask for."""
    return record.levelno >= logging.WARNING or getattr(record, "tell", False)


def _by_id(version_id: str) -> "Dataset":
    from dataset_store.dataset import Dataset

    return Dataset.get(dataset_id=version_id)


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise PathNotFound("The working folder was removed.", "Change to another and repeat.") from error

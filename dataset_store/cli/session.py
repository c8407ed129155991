"""What commands share: the store in force, the version that is meant, and the messages of the library.

A working folder remembers one version. It is meant wherever a command names none, and its store with it, unless
another store is named on the command line.
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
from dataset_store.errors import DatasetNotFound, PathNotFound, VersionIsFinal
from dataset_store.local.current_draft import CurrentVersion, forget, recall, remember
from dataset_store.local.settings import load_settings

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset

__all__ = [
    "draft_meant",
    "folder_remembers",
    "is_named",
    "library_messages",
    "progress_shown",
    "remember_draft",
    "remember_final",
    "store_url",
    "use_remembered",
    "version_meant",
]

_BEGIN = "Begin one with `dataset-store create --name NAME`, or name one with --id."


def store_url() -> str:
    """The store in force: a URL or an absolute path."""
    store = load_settings().store
    return store if "://" in store else os.path.abspath(os.path.expanduser(store))


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
    found = _by_id(arguments.id) if arguments.id is not None else use_remembered(arguments)
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
        InvalidRequest: An id was given together with other names.
    """
    if not is_named(arguments):
        return use_remembered(arguments)
    from dataset_store.dataset import Dataset

    return Dataset.get(
        dataset_id=arguments.id,
        dataset_project=arguments.project,
        dataset_name=arguments.name,
        dataset_version=arguments.version,
        dataset_tags=getattr(arguments, "tags", None),
    )


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
    os.environ[STORE_VARIABLE] = current.store
    try:
        return _by_id(current.id)
    except DatasetNotFound as error:
        forget(load_settings().data, _folder())
        raise DatasetNotFound(
            f"The version {current.id} that this folder remembered is not in {current.store} any more.", _BEGIN
        ) from error


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
    """Show what the library logs on standard error: warnings, and with `verbose` what it tells besides."""
    logger = logging.getLogger("dataset_store")
    handler, level = _Messages(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
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
            note(shown(text))


def _by_id(version_id: str) -> "Dataset":
    from dataset_store.dataset import Dataset

    return Dataset.get(dataset_id=version_id)


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise PathNotFound("The working folder was removed.", "Change to another and repeat.") from error

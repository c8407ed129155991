"""Which version a working folder is about: the draft begun there, or the version last closed there.

One small file for each folder, replaced whole, so a reader sees one state or the other. It is a convenience and never
the only way to a draft: a file that cannot be understood counts as none. This module never looks whether the draft or
the store still exists.
"""

import os

import msgspec

from dataset_store.core.digest import hash32
from dataset_store.local.durable import replace_file
from dataset_store.local.os_errors import reading_error, writing_error
from dataset_store.local.private import make_private

__all__ = ["CurrentVersion", "forget", "recall", "remember"]


class CurrentVersion(msgspec.Struct, frozen=True):
    """What is remembered.

    Attributes:
        store: The URL or absolute path of the store.
        id: The id of the draft, which is also that of the version it becomes.
        final: Whether it was closed here.
        folder: The working folder, for people who look into the file.
    """

    store: str
    id: str
    final: bool
    folder: str = ""


def recall(data: str, folder: str) -> CurrentVersion | None:
    """What a working folder is about; None where nothing was begun in it.

    Args:
        data: The folder that holds this user's drafts.
        folder: The working folder.

    Raises:
        AccessDenied, StorageFailed: The file is there and cannot be read.
    """
    path = _path(data, folder)
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=CurrentVersion)
    except (FileNotFoundError, ValueError, RecursionError):  # of JSON, or of UTF-8 in it
        return None
    except OSError as error:
        raise reading_error(error, path) from error


def remember(data: str, folder: str, current: CurrentVersion) -> None:
    """Make `current` what a working folder is about. It survives a power cut as the draft itself does.

    Raises:
        AccessDenied, DiskFull, StorageFailed: It cannot be written; what was remembered before still is.
    """
    path = _path(data, folder)
    known = msgspec.structs.replace(current, folder=_real(folder))
    try:
        make_private(os.path.dirname(path))
        replace_file(path, msgspec.json.encode(known))
    except OSError as error:
        raise writing_error(error, path) from error


def forget(data: str, folder: str) -> None:
    """Let a working folder be about nothing. That it was so already is no error."""
    path = _path(data, folder)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise writing_error(error, path) from error


def _path(data: str, folder: str) -> str:
    name = hash32(os.fsencode(os.path.realpath(folder))).hex()[:32]
    return os.path.join(data, "current", name)


def _real(folder: str) -> str:
    """The folder as text that JSON can hold, whatever its bytes."""
    return os.fsencode(os.path.realpath(folder)).decode("utf-8", "backslashreplace")

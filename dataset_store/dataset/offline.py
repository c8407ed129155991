"""Offline mode: versions made without their store, in folders of their own, and taken into a store later.

A session is a folder that holds a small store and the drafts of one version, so it can be moved to another machine once
its files were uploaded into it. Taking it in makes a draft of the same name, number, tags and content in the store in
force.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from dataset_store.dataset.workspace import Workspace, new_commit_id, workspace_for
from dataset_store.errors import InvalidRequest, PathNotFound
from dataset_store.local.drafts import draft_ids
from dataset_store.local.settings import Settings, load_settings

__all__ = [
    "is_offline",
    "new_session",
    "opened_session",
    "require_online",
    "session_folder",
    "set_offline",
    "version_in_session",
]

_STORE = "store"
_state = {"offline": False}


def set_offline(offline: bool) -> None:
    """Turn offline mode on or off, for this process."""
    _state["offline"] = bool(offline)


def is_offline() -> bool:
    """Whether versions are made offline now."""
    return _state["offline"]


def require_online(doing: str) -> None:
    """Refuse what needs the store.

    Raises:
        InvalidRequest: Offline mode is on.
    """
    if is_offline():
        raise InvalidRequest(f"Cannot {doing} in offline mode.", "Turn it off first: Dataset.set_offline(False).")


def new_session() -> Workspace:
    """The workspace of a new session, under this user's data."""
    settings = load_settings()
    return workspace_for(_within(settings, os.path.join(settings.data, "offline", new_commit_id())), create=True)


def session_folder(workspace: Workspace) -> str | None:
    """The folder of the session that a workspace is of; None where it is of a store."""
    folder = workspace.settings.data
    return folder if workspace.settings.store == os.path.join(folder, _STORE) and _is_session(folder) else None


@contextmanager
def opened_session(path: str) -> Iterator[Workspace]:
    """The workspace of a session's folder, or of an archive of one.

    Raises:
        PathNotFound: There is no such folder or file.
        InvalidRequest: It is no session.
        InvalidPath, UnsupportedFileType, CorruptObject: The archive cannot be extracted.
    """
    if not os.path.exists(path):
        raise PathNotFound(f"There is nothing at {path!r}.", "Give a session's folder, or a zip file of one.")
    if os.path.isdir(path):
        yield _opened(path)
        return
    import tempfile  # noqa: PLC0415  (sessions come as folders)

    from dataset_store.local.archives import ARCHIVES, extract_archive  # noqa: PLC0415

    if not path.lower().endswith(ARCHIVES):
        raise InvalidRequest(f"{path!r} is neither a folder nor an archive.", "Give a session's folder, or a zip file.")
    with tempfile.TemporaryDirectory(prefix="dataset-store-") as folder:
        extract_archive(path, folder)
        _make_writable(folder)
        yield _opened(folder)


def version_in_session(workspace: Workspace) -> str:
    """The id of the one version or draft of a session.

    Raises:
        InvalidRequest: There is none, or several.
    """
    finals = [version.id for version in workspace.refresh().live_versions()]
    found = sorted({*finals, *draft_ids(workspace.drafts_directory)})
    if len(found) != 1:
        raise InvalidRequest(f"The session holds {len(found)} versions.", "A session is of exactly one.")
    return found[0]


def _opened(path: str) -> Workspace:
    folder = os.path.abspath(path)
    inner = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    # An archive often holds the folder itself.
    candidates = [folder, *(one for one in inner if os.path.isdir(one))]
    held = next((one for one in candidates if _is_session(one)), None)
    if held is None:
        raise InvalidRequest(f"{path!r} is no offline session.", "Give the folder of get_offline_mode_folder().")
    return workspace_for(_within(load_settings(), held))


def _within(settings: Settings, folder: str) -> Settings:
    return replace(settings, store=os.path.join(folder, _STORE), data=folder, single_writer=False)


def _is_session(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, _STORE, "config"))


def _make_writable(folder: str) -> None:
    """What was extracted is read-only; a session is written when it is taken in."""
    for directory, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o600)

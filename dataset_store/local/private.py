"""Folders that only their user may use: the cache, and what this machine keeps of drafts.

What lies there is believed: a local copy is handed out without reading it again, a draft says which files are sent. So
a folder that somebody else owns or may write is refused, unless the user has said that those are trusted; and what is
made here nobody else may enter, whatever the umask. Never: changes the mode of a folder that was there.
"""

import os
import stat
from contextlib import suppress

from dataset_store.errors import AccessDenied
from dataset_store.local.os_errors import shown

__all__ = ["make_private", "require_private"]

_MODE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(path: str) -> None:
    """Make a folder and those above it that are missing; nobody else may enter what was made.

    Raises:
        OSError: It cannot be made.
    """
    if not os.path.isdir(path):
        make_private(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path, _MODE)


def require_private(path: str, variable: str) -> None:
    """See that nobody else can have put anything into a folder; one that is not there is fine.

    Args:
        path: The folder.
        variable: What names another one, for the message.

    Raises:
        AccessDenied: Another user than this one and root owns it, or may write it.
    """
    try:
        found = os.stat(path)
    except OSError:
        return
    if found.st_uid not in {os.geteuid(), 0}:
        problem = f"belongs to another user (uid {found.st_uid})"
    elif found.st_mode & _OTHERS_WRITE:
        problem = f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return
    raise AccessDenied(
        f"The folder {shown(path)} {problem}, so what lies there cannot be trusted.",
        f"Name a folder of your own with {variable}, take the right to write from others (chmod go-w), or set "
        "shared_folders if you trust everybody who can write there.",
    )

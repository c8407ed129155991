"""URLs as text: their scheme, and what of them may be shown. Nothing here asks whether anything is there."""

import re
from typing import Final

from dataset_store.errors import InvalidRequest

__all__ = ["WEB", "has_secrets", "is_remote", "redacted", "require_whole_scheme", "scheme_of"]

WEB: Final = frozenset({"http", "https"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
"""A scheme, of two letters at least, with a slash too few behind it."""


def scheme_of(url: str) -> str:
    """The scheme of a URL in lower case; the empty text for a plain path."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def is_remote(url: str) -> bool:
    """Whether a URL names something that this machine's own file system does not."""
    return scheme_of(url) not in {"", "file", "local"}


def redacted(url: str) -> str:
    """A URL as it may be shown and kept: without user and password, and of a web server without query and fragment.

    In a bucket or on a disk `?` and `#` are characters of a name like any others. What is shown of what may be shown is
    the same again, so nothing that is kept is ever refused for what was left of it.
    """
    shown = _without_secrets(url)
    while shown != url:  # what stood behind one password may itself read like another
        url, shown = shown, _without_secrets(shown)
    return shown


def _without_secrets(url: str) -> str:
    if not is_remote(url):
        return url
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" not in authority and ":" in authority and "@" in path and not authority.rpartition(":")[2].isdecimal():
        authority, slash, path = path.rpartition("@")[2].partition("/")  # of a password that holds a slash
    shown = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    return shown.partition("#")[0].partition("?")[0] if scheme.lower() in WEB else shown


def has_secrets(url: str) -> bool:
    """Whether a URL holds what must not be kept or shown."""
    return redacted(url) != url


def require_whole_scheme(url: str) -> None:
    """Refuse a URL with a slash too few, which would be the path of a folder called like a scheme.

    Raises:
        InvalidRequest: It is one; `./` before it makes it a path.
    """
    typed = _ONE_SLASH.match(url)
    if typed is not None:
        meant = f"{typed[1]}://{'/' if typed[1].lower() == 'file' else ''}{url[typed.end() :]}"
        raise InvalidRequest(
            f"The URL {redacted(meant).replace('://', ':/', 1)} lacks a slash.",
            f"Did you mean {redacted(meant)}? A folder of such a name is written with ./ before it.",
        )

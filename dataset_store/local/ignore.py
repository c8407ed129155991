"""Which files of a folder are left out: `.datasetignore` files, with the rules of `.gitignore`.

A file's rules hold for what lies below its directory; deeper files come first, later lines before earlier ones, and
what lies in a directory that is left out cannot be brought back. The file itself is an entry like any other.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Final

from msgspec import Struct

from dataset_store.core.paths import PathKey, to_path
from dataset_store.errors import InvalidRequest
from dataset_store.local.os_errors import reading_error, shown

__all__ = ["IGNORE_FILE", "Rules", "read_rules"]

IGNORE_FILE: Final = b".datasetignore"
_DIRECTORY_MARK: Final = "ps_d"
"""The group by which pathspec's patterns mark the slash after a directory."""

_ANY_ABOVE: Final = "^(?:.+/)?"
_ANY_FOLDERS: Final = "(?:/.+)?"
"""What pathspec makes of `**/` before the first name, and of `/**/` between two."""

_CHARACTERS: Final = r"\[\^?\]?(?:\\.|[^\]\\])*\]"
_SETS: Final = re.compile(rf"\\.|\[\^/\]|(?P<set>{_CHARACTERS})", re.DOTALL)
"""Sets of characters, such as `[a-z]`; other things only lest a bracket in them be taken for the beginning of one."""

_BETWEEN_STARS: Final = re.compile(
    rf"\[\^/\]\*((?>\\.|{_CHARACTERS}(?!\*)|[^\\/()\[\]]|\(\?!/\))*?)(?=\[\^/\]\*)", re.DOTALL
)
"""A star, and what must stand between it and the next one of the same name."""

_MOST_BYTES: Final = 1 << 20
_log = logging.getLogger(__name__)


class Rules(Struct, frozen=True):
    """The rules of one file, for what lies below `directory` (relative to the folder), and the rules above it.

    `patterns` are the last line first, each with whether it leaves out or brings back.
    """

    directory: PathKey
    patterns: Sequence[tuple[bool, re.Pattern[str]]]
    above: "Rules | None"

    def leaves_out(self, directory: PathKey, name: bytes, *, is_directory: bool) -> bool:
        """Whether an entry of a directory is left out."""
        rules: Rules | None = self
        while rules is not None:
            own = directory[len(rules.directory) + 1 :] if rules.directory else directory
            path = os.fsdecode(to_path(PathKey(own + b"\0" + name if own else name)))
            for include, pattern in rules.patterns:
                if _means(pattern, path, is_directory=is_directory):
                    return include
            rules = rules.above
        return False


def read_rules(opened: int, directory: PathKey, path: bytes, above: Rules | None) -> Rules:
    """The rules of the ignore file in a directory.

    Args:
        opened: The directory's descriptor.
        directory: The directory, relative to the folder.
        path: Of the file, for messages.
        above: The rules that hold in the directory above.

    Raises:
        AccessDenied, StorageFailed: It cannot be read.
        InvalidRequest: The file is too long.
    """
    try:
        with open(os.open(IGNORE_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=opened), "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise reading_error(error, path) from error
    if len(data) > _MOST_BYTES:
        raise InvalidRequest(f"{shown(path)} has more than {_MOST_BYTES:,} bytes.", "Write fewer rules.")
    return Rules(directory, [*_patterns(data, path)][::-1], above)


def _patterns(data: bytes, path: bytes) -> Iterator[tuple[bool, re.Pattern[str]]]:
    """The patterns of an ignore file, line by line; a line that is none is told of and passed over, as git does."""
    for line in os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).split("\n"):
        try:
            found = import_module("pathspec").GitIgnoreSpec.from_lines([line.removesuffix("\r")]).patterns
        except (ValueError, re.error) as error:
            _log.warning("%s holds what is no rule, %r: %s", shown(path), line, error)
            continue
        yield from ((one.include, _in_one_pass(one.regex)) for one in found if one.include is not None)


def _in_one_pass(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """A pattern of pathspec as git means it, which never tries a name in all the ways that its stars could share it.

    What stands between two stars is best found where it comes first: the later one is free to take the rest. So a rule
    with many stars costs about as much as one with one, whoever wrote it. A set of characters never means a slash.
    """
    within = _SETS.sub(lambda found: f"(?!/){found[0]}" if found["set"] else found[0], pattern.pattern)
    once = _BETWEEN_STARS.sub(r"(?>[^/]*?\1)", within)
    first, *between, last = once.split(_ANY_FOLDERS) if _ANY_FOLDERS in once else (once, "")
    if not last:
        return re.compile(once)
    if first.startswith(_ANY_ABOVE):
        first = f"^(?>(?:.+?/)??{first.removeprefix(_ANY_ABOVE)}(?=/))"
    found = "".join(f"(?>(?:/.+?)??{names}(?=/))" for names in between)
    return re.compile(f"{first}{found}{_ANY_FOLDERS}{last}")


def _means(pattern: re.Pattern[str], path: str, *, is_directory: bool) -> bool:
    """Whether a pattern means this entry itself: pathspec's also match what lies below what they mean."""
    if _DIRECTORY_MARK not in pattern.groupindex:
        return pattern.search(path) is not None
    whole = path + "/" if is_directory else path
    return any(found.end(_DIRECTORY_MARK) in {-1, len(whole)} for found in pattern.finditer(whole))

"""Which paths of a dataset a wildcard means, and which of a folder.

`matching` is for paths of a dataset. Recursive, a pattern means every path that it matches as a whole (`*` also matches
`/`), every path whose file name it matches below its folder part, and everything below a folder that it names. Not
recursive, it means the paths with as many names as itself, name by name. A path that is there under that very name is
meant by it, and no other.

`globbed` is for files of a folder, and means what `pathlib.Path.glob` finds, or recursive `rglob`: name by name, where
`**` stands for any number of folders, and as the last name for all files below.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase, translate

__all__ = ["globbed", "is_wildcard", "matching"]

_ANY_FOLDERS = "**"


def is_wildcard(text: str) -> bool:
    """Whether a path holds a character that stands for others."""
    return any(character in text for character in "*?[")


def matching(paths: Sequence[str], pattern: str | None, *, recursive: bool = True) -> list[bool]:
    """Whether each path is meant; no pattern, or an empty one, means all."""
    wanted = str(pattern or "").strip("/")  # scripts give path objects too
    if not wanted or (wanted == "*" and recursive):
        return [True] * len(paths)
    if is_wildcard(wanted):
        itself = [path == wanted or (recursive and path.startswith(wanted + "/")) for path in paths]
        if any(itself):
            return itself
    if recursive:
        return [_matches_anywhere(path, wanted) for path in paths]
    names = wanted.split("/")
    return [_matches_by_name(path.split("/"), names) for path in paths]


def globbed(paths: Sequence[str], pattern: str, *, recursive: bool) -> list[bool]:
    """Whether each path, relative to a folder, is found there by a pattern; an empty pattern finds all."""
    names = [name for name in pattern.split("/") if name not in {"", "."}]
    if recursive or not names:
        names = [_ANY_FOLDERS, *names]
    if names[-1] == _ANY_FOLDERS:
        names.append("*")
    wanted = [None if name == _ANY_FOLDERS else re.compile(translate(name)) for name in names]
    return [_is_found(path.split("/"), wanted) for path in paths]


def _is_found(names: Sequence[str], wanted: Sequence[re.Pattern[str] | None]) -> bool:
    if not wanted:
        return not names
    first, rest = wanted[0], wanted[1:]
    if first is None:
        # The names after the last `**` can only be the last ones of the path.
        starts = range(len(names)) if None in rest else range(max(0, len(names) - len(rest)), len(names))
        return any(_is_found(names[start:], rest) for start in starts)
    return bool(names) and first.match(names[0]) is not None and _is_found(names[1:], rest)


def _matches_anywhere(path: str, pattern: str) -> bool:
    folder, _, name = pattern.rpartition("/")
    below = f"{folder}/*/{name}" if folder else f"*/{name}"
    return (
        fnmatchcase(path, pattern)
        or fnmatchcase(path, below)
        or path.startswith(pattern + "/")
        or fnmatchcase(path, pattern + "/*")
    )


def _matches_by_name(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))

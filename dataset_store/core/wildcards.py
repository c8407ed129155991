"""Which paths of a dataset a wildcard means.

Recursive, a pattern means every path that it matches as a whole (`*` also matches `/`), every path whose file name it
matches below its folder part, and everything below a folder that it names. Not recursive, it means the paths with as
many names as itself, name by name. A path that is there under that very name is meant by it, and no other.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

__all__ = ["is_wildcard", "matching"]


def is_wildcard(text: str) -> bool:
    """Whether a path holds a character that stands for others."""
    return any(character in text for character in "*?[")


def matching(paths: Sequence[str], pattern: str | None, *, recursive: bool = True) -> list[bool]:
    """Whether each path is meant; no pattern, or an empty one, means all."""
    wanted = (pattern or "").strip("/")
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

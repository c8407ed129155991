r"""Paths of entries: parsed once into a key, checked wherever bytes are not trusted.

A *path* is what a user writes: names joined by `/`. Its *key* is the same names joined by a zero byte. Names
are bytes that hold neither, so plain byte order of keys is order by names, and what lies below a directory is
one contiguous range, `directory + b"\0"` to `directory + b"\1"`. The empty key stands for the root, which
is a directory and never an entry.

Promises: a `PathKey` that came out of `to_key`, `check_key` or `check_keys` cannot name anything outside the
folder that it is joined to, and `to_key(to_path(key)) == key`.

This module never asks the file system anything: whether a link's target exists is not known here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import le
from typing import Final, NewType, cast

from msgspec import Struct

from dataset_store.core.arrays import np
from dataset_store.errors import CorruptObject, InvalidPath

_SLASHES_FOR_ZEROS: Final = bytes.maketrans(b"/\0", b"\0/")

__all__ = [
    "MAX_COMPONENTS",
    "MAX_NAME_BYTES",
    "MAX_PATH_BYTES",
    "ROOT",
    "PathKey",
    "PortabilityProblem",
    "check_key",
    "check_keys",
    "child_key",
    "directory_key",
    "link_stays_inside",
    "parent_key",
    "portability_problems",
    "starts_below",
    "to_key",
    "to_path",
    "to_text",
    "to_texts",
]

PathKey = NewType("PathKey", bytes)
"""The names of a path joined by a zero byte."""

ROOT: Final = PathKey(b"")
MAX_NAME_BYTES: Final = 255
MAX_PATH_BYTES: Final = 16_384
MAX_COMPONENTS: Final = 1_000

_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789\u00b9\u00b2\u00b3"]
)
_WINDOWS_CHARACTERS: Final = frozenset('<>:"|?*\\' + "".join(map(chr, range(32))))
_FORBIDDEN_BYTES: Final = bytes(ord(one) for one in _WINDOWS_CHARACTERS if one != "\0")
_RESERVED_NAME: Final = re.compile(rb"\0(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[1-9]) *[.\0]")
"""Finds one in lower-case names with zero bytes around them."""


def directory_key(path: object) -> PathKey:
    """The directory of a dataset that a user names by text or a path object.

    `./a//b/` is `a/b`; nothing, `/` and `.` are the root.

    Raises:
        InvalidPath: It is none; `..` is never resolved.
    """
    names = [name for name in str(path or "").split("/") if name not in {"", "."}]
    return to_key("/".join(names)) if names else ROOT


def to_key(path: str | bytes) -> PathKey:
    """Parse a path relative to a dataset's root.

    Args:
        path: Names joined by `/`. Text is encoded as UTF-8; surrogate escapes become the bytes they stand
            for.

    Raises:
        InvalidPath: It is empty, absolute or too long, or one of its names is empty, `.`, `..`, too long, or
            holds a zero byte.
    """
    try:
        raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    except UnicodeEncodeError as error:
        raise InvalidPath(f"The path {_shown(path)} is not text.", "Rename the file.") from error
    if b"\0" in raw:
        raise InvalidPath(f"The path {_shown(path)} holds a zero byte.", "No file can have such a name.")
    if raw.startswith(b"/"):
        raise InvalidPath(f"The path {_shown(path)} is absolute.", "Give it relative to the dataset's root.")
    key = raw.replace(b"/", b"\0")
    problem = _problem_of(key)
    if problem:
        raise InvalidPath(f"The path {_shown(path)} {problem[0]}.", problem[1])
    return PathKey(key)


def to_path(key: PathKey) -> bytes:
    """The path of a key: its names joined by `/`."""
    return key.replace(b"\0", b"/")


def to_text(key: PathKey) -> str:
    """The path of a key as text; bytes that are not UTF-8 become surrogate escapes."""
    return to_path(key).decode("utf-8", "surrogateescape")


def to_texts(keys: Sequence[PathKey]) -> list[str]:
    """As `to_text` of each, in a fraction of the time: no key has a slash, so slashes part them."""
    if not keys:
        return []
    return b"/".join(keys).translate(_SLASHES_FOR_ZEROS).decode("utf-8", "surrogateescape").split("\0")


def check_key(key: bytes) -> PathKey:
    """Check one stored key by the rules of `to_key`.

    Raises:
        CorruptObject: No path has this key.
    """
    if b"/" in key:
        raise CorruptObject(f"The stored key {_shown(key)} has a slash in a name.", _NOT_OURS)
    problem = _problem_of(key)
    if problem:
        raise CorruptObject(f"The stored key {_shown(key)} {problem[0]}.", _NOT_OURS)
    return PathKey(key)


def check_keys(keys: Sequence[bytes]) -> Sequence[PathKey]:
    """Check the keys of a node: each one valid, strictly ascending, none an ancestor of another.

    Args:
        keys: n stored keys; the check is linear in their bytes and works on all of them at once.

    Returns:
        The same object, now known to hold keys.

    Raises:
        CorruptObject: Any of the rules is broken; the message names the first key that breaks it.
    """
    check_key_tables([keys])
    return cast("Sequence[PathKey]", keys)


def check_key_tables(tables: Sequence[Sequence[bytes]]) -> None:
    """As `check_keys` of each: the names of all are looked at together. Raises as it does."""
    keys = list(chain.from_iterable(tables))
    if keys and not _names_are_valid(keys):
        for key in keys:
            check_key(key)
    for some in tables:
        _check_order(some)


def _check_order(keys: Sequence[bytes]) -> None:
    # A key and everything below it sort before key + 1, so one comparison tests order and ancestry.
    floors = [key + b"\1" for key in keys]
    if not all(map(le, floors, keys[1:])):
        place = next(i for i, (floor, key) in enumerate(zip(floors, keys[1:], strict=False)) if key < floor)
        pair = f"{_shown(keys[place])} and {_shown(keys[place + 1])}"
        raise CorruptObject(f"The stored keys {pair} are out of order or one lies below the other.", _NOT_OURS)


def parent_key(key: PathKey) -> PathKey:
    """The directory that holds `key`; the root is its own parent."""
    return PathKey(key.rpartition(b"\0")[0])


def child_key(directory: PathKey, name: bytes) -> PathKey:
    """The key of `name` in `directory`. Both must already be valid."""
    return PathKey(directory + b"\0" + name if directory else name)


def starts_below(key: PathKey, directory: PathKey) -> bool:
    """Whether `key` lies below `directory`; nothing lies below itself, everything else below the root."""
    return key.startswith(directory + b"\0") if directory else bool(key)


def link_stays_inside(depth: int, target: bytes) -> bool:
    """Whether a symbolic link cannot leave the folder, whatever other links the folder holds.

    That is so if the target is relative and every `..` stands before the first name: the link's own
    directories are real ones, and links met after that are inside by the same rule. A `..` after a name could
    follow another link and climb from there.

    Args:
        depth: How many directories lie between the folder's root and the link; 0 for a link in the root.
        target: The text of the link.
    """
    if not target or target.startswith(b"/") or b"\0" in target or len(target) > 4_095:
        return False
    names = [name for name in target.split(b"/") if name not in (b"", b".")]
    climbs = names.count(b"..")
    return climbs <= depth and all(name == b".." for name in names[:climbs])


class PortabilityProblem(Struct, frozen=True):
    """A reason why some other system could not hold these entries as they are.

    Attributes:
        reason: `same-name` (they differ only by case or Unicode form), `reserved-name`, `trailing-character`,
            `forbidden-character` (all three on Windows), or `not-utf-8`.
        keys: The entry or directory concerned; for `same-name` both.
    """

    reason: str
    keys: tuple[PathKey, ...]

    def __str__(self) -> str:
        return f"{self.reason}: " + ", ".join(repr(to_text(key)) for key in self.keys)


def portability_problems(keys: Iterable[PathKey]) -> list[PortabilityProblem]:
    """What stands against copying these entries to any system, for a warning.

    Args:
        keys: Entries in any order; their directories are looked at too, each once.
    """
    keys = list(keys)
    return [] if _is_portable(keys) else _problems_one_by_one(keys)


def _is_portable(keys: Sequence[PathKey]) -> bool:
    """Whether nothing at all stands against these, found in a look at all names together; else one by one is due."""
    text = b"\0".join((b"", *keys, b""))
    if (
        not text.isascii()
        or b".\0" in text
        or b" \0" in text
        or len(text.translate(None, _FORBIDDEN_BYTES)) < len(text)
    ):
        return False
    lower = text.lower()
    if _RESERVED_NAME.search(lower):
        return False
    if lower == text:
        return True
    names = set(keys)
    for key in {parent_key(key) for key in keys}:
        directory = key
        while directory not in names and directory:
            names.add(directory)
            directory = parent_key(directory)
    return len({name.lower() for name in names}) == len(names)


def _problems_one_by_one(keys: Iterable[PathKey]) -> list[PortabilityProblem]:
    first_with: dict[str, PathKey] = {}
    problems: list[PortabilityProblem] = []
    for key, folded in _with_directories(keys):
        other = first_with.setdefault(folded, key)
        name = key.rpartition(b"\0")[2]
        # Directories that collide are reported; the equal names inside them follow from that.
        if other != key and other.rpartition(b"\0")[2] != name:
            problems.append(PortabilityProblem("same-name", (other, key)))
        reason = _problem_on_windows(name)
        if reason:
            problems.append(PortabilityProblem(reason, (key,)))
    return problems


_NOT_OURS: Final = "The object holding it was damaged or made by something else; run verify."


def _shown(path: str | bytes) -> str:
    """A path for a message: escaped, and cut where it is very long."""
    return repr(path) if len(path) <= 300 else f"{path[:300]!r}…"


def _problem_of(key: bytes) -> tuple[str, str] | None:
    """What is wrong with a key that holds no slash, and what to do about it."""
    if not key:
        return "is empty", "Give the path of a file below the dataset's root."
    if len(key) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES:,} bytes", "Shorten the names of its folders."
    return _problem_of_names(key.split(b"\0"))


def _problem_of_names(names: list[bytes]) -> tuple[str, str] | None:
    """The same, of its names."""
    if len(names) > MAX_COMPONENTS:
        return f"has more than {MAX_COMPONENTS:,} names", "Nest the folders less deeply."
    if b"" in names:
        return "has an empty name", "Leave out doubled and trailing slashes."
    if b"." in names or b".." in names:
        return "has a name that is . or ..", "Give the path without them."
    if max(map(len, names)) > MAX_NAME_BYTES:
        return f"has a name longer than {MAX_NAME_BYTES} bytes", "Shorten that name."
    return None


def _names_are_valid(keys: Sequence[bytes]) -> bool:
    """The rules of `_problem_of` and the one about slashes, for all keys at once."""
    text = b"/" + b"/".join(keys) + b"/"
    if text.count(b"/") != len(keys) + 1:
        return False
    text = text.replace(b"/", b"\0")  # now a zero byte stands on both sides of every name
    if any(bad in text for bad in (b"\0\0", b"\0.\0", b"\0..\0")):
        return False
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)
    if int(np.diff(ends).max()) > MAX_NAME_BYTES + 1:
        return False
    longest = max(map(len, keys))
    if longest < 2 * MAX_COMPONENTS:  # too short for that many names
        return True
    return longest <= MAX_PATH_BYTES and all(key.count(b"\0") < MAX_COMPONENTS for key in keys)


def _with_directories(keys: Iterable[PathKey]) -> Iterator[tuple[PathKey, str]]:
    """Each key, and before it each of its directories not met so far, with its folded text."""
    folded: dict[PathKey, str] = {ROOT: ""}
    for key in keys:
        chain = []
        directory = parent_key(key)
        while directory not in folded:
            chain.append(directory)
            directory = parent_key(directory)
        for directory in reversed(chain):
            folded[directory] = f"{folded[parent_key(directory)]}/{_fold(directory)}"
            yield directory, folded[directory]
        yield key, f"{folded[parent_key(key)]}/{_fold(key)}"


def _fold(key: PathKey) -> str:
    """The last name as a system sees it that tells neither case nor Unicode forms apart."""
    name = key.rpartition(b"\0")[2]
    if name.isascii():
        return name.decode("ascii").lower()
    import unicodedata  # noqa: PLC0415  (nearly all names are plain)

    text = unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape")).casefold()
    return unicodedata.normalize("NFC", text)


def _problem_on_windows(name: bytes) -> str | None:
    """Why a name cannot stand on Windows, or on any system that wants UTF-8."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "not-utf-8"
    if not _WINDOWS_CHARACTERS.isdisjoint(text):
        return "forbidden-character"
    if text.endswith((".", " ")):
        return "trailing-character"
    return "reserved-name" if text.partition(".")[0].rstrip(" ").lower() in _RESERVED else None

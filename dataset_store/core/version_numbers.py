"""Version numbers: which of two is higher, and which one comes next.

A number is *semantic* when it is one or more decimal components with optional pre-release and build parts:
`1.2.0`, `v2`, `2024.09`, `1.0.0-rc.1+linux`. Semantic numbers compare by value, so that `1.10` is above `1.9`
and equal to `1.10.0`; a pre-release is below its release, and the build part and the `v` count for nothing.
Any other text is a valid version number too, below every semantic one; among such texts nothing is higher.

This module never refuses a text and never knows which numbers are taken.
"""

import re
from functools import lru_cache
from typing import Final

__all__ = ["FIRST", "Rank", "increment", "is_semantic", "rank", "rank_key", "title_of"]

FIRST: Final = "1.0.0"
"""The number of a series' first version, where none is chosen."""

_Identifier = tuple[int, int, str]
Rank = tuple[int, tuple[int, ...], int, tuple[_Identifier, ...]]
"""Compares as the version numbers do; equal for numbers of which neither is higher."""

_NUMBER = "[0-9]{1,18}"
_SEMANTIC = re.compile(
    rf"(?P<core>(?P<release>[vV]?(?P<parts>{_NUMBER}(?:\.{_NUMBER})*))(?:-(?P<pre>[0-9A-Za-z.-]+))?)"
    r"(?:\+[0-9A-Za-z.-]+)?"
)
_LAST_DIGITS = re.compile(r"([0-9]+)(?=[^0-9]*\Z)")
_NOT_SEMANTIC: Final[Rank] = (0, (), 0, ())
_MORE, _END = b"\1", b"\0"


def is_semantic(number: str) -> bool:
    """Whether a version number has a value to compare by."""
    return _SEMANTIC.fullmatch(number) is not None


@lru_cache(maxsize=4096)  # a store has few numbers and many series
def rank(number: str) -> Rank:
    """The sort key of a version number."""
    match = _SEMANTIC.fullmatch(number)
    if match is None:
        return _NOT_SEMANTIC
    parts = [int(part) for part in match["parts"].split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    pre = match["pre"]
    if pre is None:
        return 1, tuple(parts), 1, ()
    return 1, tuple(parts), 0, tuple(_identifier(text) for text in pre.split("."))


@lru_cache(maxsize=4096)
def rank_key(number: str) -> bytes:
    """Bytes that compare as the ranks of numbers do; none begins with another that differs."""
    semantic, parts, is_release, identifiers = rank(number)
    return b"".join(
        (
            bytes([semantic]),
            *(_MORE + _uint64(part) for part in parts),
            _END + bytes([is_release]),
            *(
                _MORE + bytes([is_word]) + (_text(word) if is_word else _uint64(value))
                for is_word, value, word in identifiers
            ),
            _END,
        )
    )


def increment(number: str) -> str:
    """The number after a semantic one: its last numeric component plus 1, as wide as before, no build part.

    `1.0.0` gives `1.0.1`, `1.0.0-rc.1` gives `1.0.0-rc.2`, `2024.09` gives `2024.10`; a pre-release of which
    that would not be higher (`1.0.0-9a`) gives its release, a release whose last component cannot be higher one more
    component; a number that is not semantic gives `1.0.0`.
    """
    match = _SEMANTIC.fullmatch(number)
    if match is None:
        return FIRST
    following = _LAST_DIGITS.sub(_plus_one, match["core"])
    release = match["release"]
    return next((one for one in (following, release) if rank(one) > rank(number)), f"{release}.1")


def _plus_one(digits: re.Match[str]) -> str:
    return str(int(digits[1]) + 1).zfill(len(digits[1]))


def _uint64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _text(word: str) -> bytes:
    return word.encode() + _END


def _identifier(text: str) -> _Identifier:
    """Part of a pre-release: numbers by value, below words."""
    if text.isdecimal() and len(text) <= 18:
        return 0, int(text), ""
    return 1, 0, text


def title_of(project: str, name: str, number: str) -> str:
    """What people call a version: `project/name 1.0.0`; a draft's number may be empty."""
    return f"{project}/{name} {number}".lstrip("/").rstrip()

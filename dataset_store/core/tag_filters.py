"""What a list of tags asks for: any of them by default, with operators between them.

The operators are those of ClearML's `tags` arguments (docstring of `Task.get_task`, clearml 2.1.12): `__$all` or
`__$and`, and `__$or` or `__$any`, hold for the tags that follow until the next of them, and each begins a group; a
version must satisfy every group. `__$not` turns the one tag that follows round within its group. A tag written with a
`-` before it must not be there, whatever the group. So

    ["__$all", "a", "b", "c", "__$or", "d", "__$not", "e", "__$and", "__$or", "f", "g"]

means a and b and c and (d or not e) and (f or g).
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from msgspec import Struct

from dataset_store.errors import InvalidRequest

__all__ = ["ANY_TAGS", "TagFilter", "TagGroup", "parse_tags"]

_EVERY: Final = frozenset(["__$all", "__$and"])
_SOME: Final = frozenset(["__$or", "__$any"])
_NOT: Final = "__$not"
_OPERATOR: Final = "__$"


class TagGroup(Struct, frozen=True):
    """Conditions of which some, or with `every` all, must hold: tags that are there, and tags that are not."""

    every: bool
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def accepts(self, tags: AbstractSet[str]) -> bool:
        """Whether a version with these tags satisfies it."""
        holds = [*(tag in tags for tag in self.present), *(tag not in tags for tag in self.absent)]
        return all(holds) if self.every else any(holds)

    def in_words(self) -> str:
        """Its conditions as a list."""
        return ", ".join([*map(repr, self.present), *(f"not {tag!r}" for tag in self.absent)])

    @property
    def one_of(self) -> tuple[str, ...]:
        """Tags of which every version that it accepts carries at least one; none where there are no such tags."""
        if self.every:
            return self.present[:1]
        return () if self.absent else self.present


class TagFilter(Struct, frozen=True):
    """Groups that must all be satisfied, and tags that must not be there. An empty one accepts everything."""

    groups: tuple[TagGroup, ...] = ()
    never: tuple[str, ...] = ()

    def accepts(self, tags: AbstractSet[str]) -> bool:
        """Whether a version with these tags is meant."""
        return tags.isdisjoint(self.never) and all(group.accepts(tags) for group in self.groups)

    def in_words(self) -> list[str]:
        """Each group, and what must not be there, as a phrase that follows `has`."""
        phrases = [f"{'all' if group.every else 'one'} of the tags {group.in_words()}" for group in self.groups]
        return phrases + [f"not the tag {tag!r}" for tag in self.never]

    @property
    def present(self) -> list[str]:
        """The tags that are asked for, without operators and without those that must be absent."""
        return sorted({tag for group in self.groups for tag in group.present})

    @property
    def asks_for_tags(self) -> bool:
        """Whether any tag is asked for, rather than only excluded."""
        return any(group.present for group in self.groups)

    @property
    def one_of(self) -> tuple[str, ...]:
        """Tags of which every version that it accepts carries at least one; none where there are no such tags."""
        found = [group.one_of for group in self.groups if group.one_of]
        return min(found, key=len, default=())


ANY_TAGS: Final = TagFilter()
"""Accepts everything."""


def parse_tags(tags: Iterable[object]) -> TagFilter:
    """What a list of tags and operators asks for.

    Raises:
        InvalidRequest: An operator is not known, or `__$not` stands before no tag, or a tag is empty or no text.
    """
    groups: list[TagGroup] = []
    never: list[str] = []
    every, present, absent = False, list[str](), list[str]()
    turned = False
    for word in tags:
        if not isinstance(word, str) or not word.removeprefix("-"):
            raise InvalidRequest(f"The tag {word!r} is no text, or empty.", "Give a string, or a list of them.")
        if turned and word.startswith(_OPERATOR):
            raise _no_tag_follows()
        if word in _EVERY or word in _SOME:
            groups.append(TagGroup(every, tuple(present), tuple(absent)))
            every, present, absent = word in _EVERY, [], []
        elif word == _NOT:
            turned = True
        elif word.startswith(_OPERATOR):
            raise InvalidRequest(
                f"{word!r} is no operator of tags.", f"There are {', '.join(sorted(_EVERY | _SOME | {_NOT}))}."
            )
        elif turned:
            absent.append(word)
            turned = False
        elif word.startswith("-"):
            never.append(word[1:])
        else:
            present.append(word)
    if turned:
        raise _no_tag_follows()
    groups.append(TagGroup(every, tuple(present), tuple(absent)))
    return TagFilter(tuple(group for group in groups if group.present or group.absent), tuple(never))


def _no_tag_follows() -> InvalidRequest:
    return InvalidRequest(f"After {_NOT!r} there is no tag.", "Put the tag to exclude right behind it.")

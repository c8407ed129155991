"""What the fold tells of versions: immutable values, and the question that picks among them.

A value is what the log said up to one slot; later entries make new values and leave it as it is. This module
never looks anything up: see `catalog`.
"""

from collections.abc import Mapping

from msgspec import Struct

from dataset_store.core.log_entries import Blob, VersionEntry
from dataset_store.core.tag_filters import ANY_TAGS, TagFilter

__all__ = ["Invalid", "Query", "Series", "Version"]


class Version(Struct, frozen=True):
    """One version as the fold has it: its manifest and what later entries changed.

    Attributes:
        slot: Where its entry stands.
        entry: The manifest as it was committed.
        series: The id of the series that it belongs to; differs from the manifest's where that was folded
            into another.
        metadata: A text, or a blob, by name.
    """

    slot: int
    entry: VersionEntry
    series: str
    tags: frozenset[str]
    description: str | None
    metadata: Mapping[str, str | Blob]
    published: bool = False
    archived: bool = False
    deleted: bool = False

    @property
    def id(self) -> str:
        """The version's id: its commit id."""
        return self.entry.commit

    @property
    def number(self) -> str:
        """The version number."""
        return self.entry.version


class Series(Struct, frozen=True):
    """A series and the name that it has now; `slot` is where it was opened."""

    id: str
    project: str
    name: str
    slot: int


class Invalid(Struct, frozen=True):
    """A `version` entry that readers ignore, and why."""

    slot: int
    commit: str
    why: str


class Query(Struct, frozen=True):
    """Which versions are meant; what is not given does not matter.

    Attributes:
        project, name, version: Exactly these.
        tags: Versions whose tags this accepts.
    """

    project: str | None = None
    name: str | None = None
    version: str | None = None
    tags: TagFilter = ANY_TAGS
    only_published: bool = False
    include_archived: bool = False

    @property
    def by_tag(self) -> bool:
        """Whether a tag is asked for, so that the highest slot decides instead of the highest number."""
        return self.tags.asks_for_tags

    def in_words(self) -> str:
        """What it asks for, as a phrase that follows `has`."""
        parts = {"project": self.project, "name": self.name, "version": self.version}
        words = [f"the {what} {value!r}" for what, value in parts.items() if value is not None]
        return " and ".join(words + self.tags.in_words() + ["been published"] * self.only_published)

    def accepts(self, version: Version) -> bool:
        """Whether a version passes every condition but those on its series' name."""
        return (
            (self.version is None or version.number == self.version)
            and (self.include_archived or not version.archived)
            and (version.published or not self.only_published)
            and self.tags.accepts(version.tags)
        )

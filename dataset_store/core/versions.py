"""What the fold tells of versions: immutable values, and the question that picks among them.

A value is what the log said up to one slot; later entries make new values and leave it as it is. This module
never looks anything up: see `catalog`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dataset_store.core.log_entries import Blob, VersionEntry

__all__ = ["Invalid", "Query", "Series", "Version"]


@dataclass(frozen=True, slots=True)
class Version:
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


@dataclass(frozen=True, slots=True)
class Series:
    """A series and the name that it has now; `slot` is where it was opened."""

    id: str
    project: str
    name: str
    slot: int


@dataclass(frozen=True, slots=True)
class Invalid:
    """A `version` entry that readers ignore, and why."""

    slot: int
    commit: str
    why: str


@dataclass(frozen=True, slots=True)
class Query:
    """Which versions are meant; what is not given does not matter.

    Attributes:
        project, name, version: Exactly these.
        tags: Versions that carry any of these.
        all_tags: Versions that carry each of these.
        without_tags: Versions that carry none of these.
    """

    project: str | None = None
    name: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    all_tags: tuple[str, ...] = ()
    without_tags: tuple[str, ...] = ()
    only_published: bool = False
    include_archived: bool = False

    @property
    def by_tag(self) -> bool:
        """Whether a tag is asked for, so that the highest slot decides instead of the highest number."""
        return bool(self.tags or self.all_tags)

    def accepts(self, version: Version) -> bool:
        """Whether a version passes every condition but those on its series' name."""
        return (
            (self.version is None or version.number == self.version)
            and (self.include_archived or not version.archived)
            and (version.published or not self.only_published)
            and self._accepts_tags(version.tags)
        )

    def _accepts_tags(self, tags: frozenset[str]) -> bool:
        return (
            (not self.tags or not tags.isdisjoint(self.tags))
            and tags.issuperset(self.all_tags)
            and tags.isdisjoint(self.without_tags)
        )

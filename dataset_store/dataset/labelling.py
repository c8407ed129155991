"""Labelling a version: what can be changed of a final one too. Each change is one entry of the log."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dataset_store.dataset.annotations.limits import require_description, require_tags, version_text
from dataset_store.dataset.handle import Handle
from dataset_store.errors import NotFinal

if TYPE_CHECKING:
    from dataset_store.dataset.annotations.reports import Logger, Report

__all__ = ["Labelling", "labels"]


class Labelling(Handle):
    """Tags, description, metadata, and whether it is published or archived."""

    __slots__ = ()

    @property
    def version(self) -> str:
        """The version number; of a draft without an explicit one, the number that it would get now.

        Assigning gives a draft an explicit number: text, of which spaces around it are left out, or a number.
        """
        return self._number()

    @version.setter
    def version(self, number: object) -> None:
        from dataset_store.dataset.annotations import describing

        describing.relabel(self._workspace, self._open_draft("renumber"), number=version_text(number))

    @property
    def tags(self) -> list[str]:
        """The version's tags, sorted. Assigning replaces them, also after finalize."""
        if self._draft is not None:
            return list(self._draft.labels.tags)
        return sorted(self._workspace.version(self.id).tags)

    @tags.setter
    def tags(self, values: Sequence[str] | str) -> None:
        from dataset_store.dataset.annotations import describing
        from dataset_store.dataset.catalog import changing

        wanted = set(labels(values))
        if self._draft is not None:
            describing.relabel(self._workspace, self._draft, tags=wanted)
            return
        require_tags(list(wanted))
        changing.change_tags(self._workspace, self.id, lambda _now: frozenset(wanted))

    def add_tags(self, tags: Sequence[str] | str) -> None:
        """Add a tag or several, also after finalize; tags that others add meanwhile stay.

        A plain text is a tag for each of its words; in a list a tag may have spaces.
        """
        wanted = tags.split() or [tags] if isinstance(tags, str) else labels(tags)
        require_tags(wanted)
        self._change_tags(set(wanted), set())

    def remove_tags(self, tags: Sequence[str] | str) -> None:
        """Remove a tag or several, also after finalize; tags that others add meanwhile stay."""
        self._change_tags(set(), set(labels(tags)))

    def _change_tags(self, add: set[str], remove: set[str]) -> None:
        from dataset_store.dataset.catalog import changing

        if self._draft is not None:
            self.tags = sorted((set(self.tags) | add) - remove)
        else:
            changing.change_tags(self._workspace, self.id, lambda now: (now | add) - remove)

    def set_description(self, description: str) -> None:
        """Give it another description, also after finalize; an empty one takes it away.

        Raises:
            InvalidRequest: A log entry cannot hold it.
        """
        from dataset_store.dataset.annotations import describing
        from dataset_store.dataset.catalog import changing

        require_description(description)
        if self._draft is not None:
            describing.relabel(self._workspace, self._draft, description=description)
        else:
            changing.describe(self._workspace, self.id, description)

    def set_metadata(self, metadata: Any, metadata_name: str = "metadata", ui_visible: bool = True) -> None:
        """Keep a value with the version, under a name; also after finalize. A later one of that name replaces it.

        Args:
            metadata: A dict, list, text, number or truth value that JSON has (keys become text, tuples lists), or a
                date or time; a pandas DataFrame or Series, also with cells of these kinds; a numpy array of numbers,
                truth values, times or text; a pyarrow Table; or None, which removes it.
            metadata_name: Its name, at most 1,024 characters.
            ui_visible: Accepted without effect: all of it is shown.

        Raises:
            InvalidRequest: It is of another kind or would come back changed (nothing is pickled), or it is too long.
        """
        from dataset_store.dataset.annotations.arrow import encode_value
        from dataset_store.dataset.annotations.metadata import require_name, set_piece

        require_name(metadata_name)
        data = None if metadata is None else encode_value(metadata)
        set_piece(self._workspace, self.id, self._draft, metadata_name, data)

    def get_metadata(self, metadata_name: str = "metadata") -> Any:
        """The value kept under a name, as it was; None where there is none.

        Raises:
            CorruptObject, ObjectMissing: The store is damaged.
        """
        from dataset_store.dataset.annotations.arrow import decode_value
        from dataset_store.dataset.annotations.metadata import piece_of, require_name

        data = piece_of(self._workspace, self.id, self._draft, require_name(metadata_name))
        return None if data is None else decode_value(data, what=f"The metadata {metadata_name!r}")

    @property
    def metadata_names(self) -> list[str]:
        """The names of the values kept with the version, in the order in which they were set."""
        from dataset_store.dataset.annotations.metadata import metadata_names

        return list(metadata_names(self._workspace, self.id, self._draft))

    def get_logger(self) -> "Logger":
        """What makes reports (texts, tables, plots) that are kept with the version, also after finalize."""
        from dataset_store.dataset.annotations.metadata import add_report
        from dataset_store.dataset.annotations.reports import Logger

        def keep(line: bytes) -> None:
            add_report(self._workspace, self.id, self._draft, line)

        return Logger(keep, self.get_default_storage())

    @property
    def reports(self) -> "list[Report]":
        """The reports kept with the version, in the order in which they were made."""
        from dataset_store.dataset.annotations.metadata import reports_of

        return reports_of(self._workspace, self.id, self._draft)

    def publish(self, raise_on_error: bool = True) -> bool:
        """Mark it published; there is no way back. Repeating is no error.

        Args:
            raise_on_error: With False, return False where it is not final.

        Raises:
            NotFinal: It is not finalized.
        """
        from dataset_store.dataset.catalog import changing

        if self._draft is not None:
            if not raise_on_error:
                return False
            raise NotFinal(f"Cannot publish the version {self.id}: it is not final.", "Finalize it first.")
        changing.publish(self._workspace, self.id)
        return True

    def archive(self) -> None:
        """Hide it from searches by name and tag; by id, and as a parent, it can still be read.

        Raises:
            NotFinal: It is not finalized.
        """
        from dataset_store.dataset.catalog import changing

        changing.set_archived(self._workspace, self._final().id, archived=True)

    def unarchive(self) -> None:
        """Show it in searches again.

        Raises:
            NotFinal: It is not finalized.
        """
        from dataset_store.dataset.catalog import changing

        changing.set_archived(self._workspace, self._final().id, archived=False)


def labels(tags: Iterable[str] | str | None) -> list[str]:
    """A list of tags, of one or several."""
    return [tags] if isinstance(tags, str) else list(tags or ())

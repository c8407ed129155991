"""What every dataset object is: a version being made, or a final one, and what it is called."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from dataset_store.core.catalog import Version
from dataset_store.core.entries import Entries
from dataset_store.core.paths import ROOT, PathKey
from dataset_store.dataset.workspace import Workspace, workspace_at
from dataset_store.errors import NotFinal, VersionIsFinal
from dataset_store.local.drafts import Draft
from dataset_store.storage.trees import root_of

if TYPE_CHECKING:
    from dataset_store.dataset.uploads.uploading import UploadReport

__all__ = ["Handle"]

H = TypeVar("H", bound="Handle")


class Handle:
    """One version of a dataset: its id, and its draft while it has one."""

    __slots__ = ("_held", "_sent", "_version_id", "_workspace")

    def __init__(self, workspace: Workspace, draft: Draft | None, version_id: str) -> None:
        self._workspace = workspace
        self._held = draft
        self._sent: UploadReport | None = None
        self._version_id = version_id

    @property
    def id(self) -> str:
        """The version's id, 32 hex digits, the same before and after finalize."""
        return self._version_id

    @property
    def name(self) -> str:
        """The dataset's name, as it is now."""
        return self._draft.opened.name if self._draft else self._series_name()[1]

    @property
    def project(self) -> str:
        """The project, empty for none."""
        return self._draft.opened.project if self._draft else self._series_name()[0]

    @property
    def description(self) -> str | None:
        """The text kept with it, as it is now."""
        if self._draft is not None:
            return self._draft.labels.description
        return self._workspace.version(self.id).description

    @property
    def status(self) -> str:
        """ClearML's name for how far it is: `in_progress`, `completed` or `published`."""
        from dataset_store.dataset.catalog.overview import status_name

        final = self._draft is None
        return status_name(final=final, published=final and self._workspace.version(self.id).published)

    def is_final(self) -> bool:
        """Whether it is finalized."""
        return self._draft is None

    def is_dirty(self) -> bool:
        """Whether files were added or changed that are not uploaded yet."""
        return self._draft is not None and len(self._draft.pending()) > 0

    def get_dependency_graph(self) -> dict[str, list[str]]:
        """Every version of its lineage, itself first, with the ids of its parents."""
        from dataset_store.dataset.catalog.lineage import dependency_graph

        return dependency_graph(self._workspace.catalog, self.id, self._parents())

    def get_default_storage(self) -> str:
        """Where its packs lie, or would go: the URL of the store's root, or of the one given as `output_uri`."""
        from dataset_store.dataset.catalog.outputs import output_of

        draft = self._draft
        output = draft.output if draft is not None else output_of(self._workspace.catalog, self._final())
        return output or self._workspace.store.backend.describe()

    def __eq__(self, other: object) -> bool:
        """Whether it is the same version of the same store."""
        if not isinstance(other, Handle):
            return NotImplemented
        return (self._workspace.store_id, self.id) == (other._workspace.store_id, other.id)

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes: where it is, without credentials; those come from the other's own settings."""
        return _reopened, (type(self), self._workspace.store.backend.describe(), self.id)

    def __repr__(self) -> str:
        state = "final" if self.is_final() else "draft"
        return f"<Dataset {self.project}/{self.name} {self._number()} {state} {self.id}>"

    def _repr_html_(self) -> str:
        from dataset_store.dataset.catalog.notebook import version_html
        from dataset_store.dataset.catalog.overview import draft_row, summary_of

        draft = self._draft
        row = (
            draft_row(self._workspace.catalog, draft)
            if draft is not None
            else summary_of(self._workspace, self._final())
        )
        return version_html(row)

    def _number(self) -> str:
        from dataset_store.dataset.catalog.overview import number_of

        draft = self._draft
        return self._final().number if draft is None else number_of(self._workspace.catalog, draft)

    @property
    def _draft(self) -> Draft | None:
        """The draft as it is now, whoever changed it; None once it is final."""
        from dataset_store.dataset.drafts import beginning

        if self._held is not None and not self._held.is_current():
            self._held = beginning.open_draft(self._workspace, self.id)
            if self._held is None:
                self._workspace.version(self.id)  # raises where it was discarded
        return self._held

    def _entries(self, below: PathKey = ROOT) -> Entries:
        """All, or those below a directory; the entry of that very name, if it is no directory."""
        if self._draft is not None:
            from dataset_store.dataset.drafts import drafting

            return drafting.current_entries(self._workspace, self._draft, below)
        from dataset_store.dataset.entries.selecting import read_at

        return read_at(root_of(self._final().entry.tree), below, self._workspace.store.nodes)

    def _read_entries(self) -> Entries:
        """All, with the content ids of all files: those of a draft that nobody has read yet are read."""
        entries, draft = self._entries(), self._draft
        if draft is None:
            return entries
        from dataset_store.dataset.uploads.unread import read_now

        return read_now(self._workspace, draft, entries)

    def _parents(self) -> Sequence[str]:
        return self._draft.opened.parents if self._draft else self._final().entry.parents

    def _series_name(self) -> tuple[str, str]:
        series = self._workspace.catalog.series(self._final().series)
        return (series.project, series.name) if series else ("", "")

    def _final(self) -> Version:
        if self._draft is not None:
            raise NotFinal(f"The version {self.id} is not final.", "Upload and finalize it first.")
        return self._workspace.version(self.id)

    def _open_draft(self, action: str) -> Draft:
        if self._draft is None:
            raise VersionIsFinal(
                f"Cannot {action} the version {self.id}: it is final.",
                "Make a child version: Dataset.create(parent_datasets=[...]).",
            )
        return self._draft


def _reopened(kind: type[H], store: str, version_id: str) -> H:
    """A dataset object that another process described."""
    from dataset_store.dataset.drafts import beginning

    workspace = workspace_at(store)
    draft = beginning.open_draft(workspace, version_id)
    if draft is None:
        workspace.version(version_id)  # raises where there is none
    return kind(workspace, draft, version_id)

"""What is said of a draft: labels, metadata, reports. All of it is checked against what its log entry can hold."""

from collections.abc import Iterable, Mapping

from dataset_store.core.catalog import Series
from dataset_store.dataset.annotations.blobs import require_bounded
from dataset_store.dataset.annotations.limits import Description, require_tags, require_writable
from dataset_store.dataset.annotations.reports import REPORTS, pieces_of
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import VersionExists
from dataset_store.local.draft_records import Labels, Metadata
from dataset_store.local.drafts import Draft

__all__ = ["annotate", "relabel", "report", "require_free"]

_LONG = 1_024
"""Bytes of a piece of metadata that is no text of its entry, whatever it holds."""


def relabel(
    workspace: Workspace,
    draft: Draft,
    *,
    tags: Iterable[str] | None = None,
    description: str | None = None,
    number: str | None = None,
) -> None:
    """Give a draft other tags, another description or an explicit version number; what is not given stays.

    Raises:
        InvalidRequest: A log entry cannot hold them.
        VersionExists: The version number is taken.
        Conflict: The draft was handed to a commit whose outcome is not known.
    """
    now, opened = draft.labels, draft.opened
    wanted = list(now.tags if tags is None else tags)
    require_tags(wanted)
    text = now.description if description is None else description
    if number is not None:
        series = workspace.refresh().series_named(opened.project, opened.name)
        require_free(workspace, series, number, opened.project, opened.name)
    else:
        number = now.number
    require_writable(
        Description(opened.project, opened.name, number, tuple(wanted), text, opened.parents, pieces_of(draft))
    )
    draft.relabel(Labels(sorted(set(wanted)), text, number))


def require_free(workspace: Workspace, series: Series | None, number: str, project: str, name: str) -> None:
    """Check that a version number can be given.

    Raises:
        VersionExists: A version of the series has it.
    """
    if series is not None and workspace.catalog.numbered(series.id, number):
        raise VersionExists(
            f"The dataset {project}/{name} already has a version {number}.",
            "Choose another number, or leave it out to get the next one.",
        )


def annotate(draft: Draft, name: str, data: bytes | None) -> None:
    """Set a piece of a draft's metadata, or remove it.

    Raises:
        InvalidRequest: It is too long, or a log entry cannot hold it with all the others.
    """
    require_bounded(len(data or b""))
    after = {key: value for key, value in pieces_of(draft).items() if key != name} | ({name: data} if data else {})
    _require_pieces(draft, after)
    draft.annotate(Metadata(name, data))


def report(draft: Draft, line: bytes) -> None:
    """Keep one more report with a draft. Raises as `annotate`."""
    require_bounded(draft.report_bytes + len(line))
    _require_pieces(draft, draft.metadata | {REPORTS: bytes(_LONG)})
    draft.report(line)


def _require_pieces(draft: Draft, pieces: Mapping[str, bytes]) -> None:
    labels, opened = draft.labels, draft.opened
    tags = tuple(labels.tags)
    require_writable(
        Description(opened.project, opened.name, labels.number, tags, labels.description, opened.parents, pieces)
    )

"""Metadata: named values kept with a version, which can be set of final versions too."""

from collections.abc import Sequence

from dataset_store.core.catalog import Catalog
from dataset_store.core.log_entries import Blob, MetadataEntry
from dataset_store.dataset.annotations import describing
from dataset_store.dataset.annotations.blobs import is_short, read_blob, write_blob
from dataset_store.dataset.annotations.reports import REPORTS, Report, decode_reports
from dataset_store.dataset.catalog.changing import commit_entry, require_live
from dataset_store.dataset.workspace import Workspace, new_commit_id, now_ns
from dataset_store.errors import Corrupt, InvalidRequest
from dataset_store.local.drafts import Draft

__all__ = ["add_report", "metadata_names", "piece_of", "report_lines", "reports_of", "require_name", "set_piece"]

_LONGEST_NAME = 1_024


def require_name(name: str) -> str:
    """The name of a piece of metadata.

    Raises:
        InvalidRequest: It is empty or too long, or kept for reports.
    """
    if not isinstance(name, str):
        raise InvalidRequest(f"The name {name!r} is no text.", "Give a string.")
    if name.startswith(REPORTS):
        raise InvalidRequest(f"The name {name!r} is kept for reports.", "Choose another.")
    if not 0 < len(name) <= _LONGEST_NAME:
        raise InvalidRequest(f"{str(name)[:40]!r} is no name for metadata.", f"Give 1 to {_LONGEST_NAME:,} characters.")
    return name


def set_piece(
    workspace: Workspace,
    version_id: str,
    draft: Draft | None,
    name: str,
    data: bytes | None,
    commit: str | None = None,
) -> None:
    """Set a piece of metadata, or remove it; `commit` is as in `commit_entry`.

    Raises:
        DatasetNotFound: There is no such version.
        InvalidRequest: It is too long.
        StorageFailed: The store refused.
    """
    if draft is not None:
        describing.annotate(draft, name, data)
        return
    workspace.refresh()
    blob = None if data is None or is_short(data) else _sent(workspace, version_id, data)
    value = data.decode() if data is not None and blob is None else None

    def entry(catalog: Catalog, commit: str) -> MetadataEntry | None:
        nonlocal blob
        held = require_live(catalog, version_id).metadata.get(name)
        if held == (blob or value):
            return None
        if blob is not None and data is not None and not workspace.store.standings.stands(blob):
            blob = _sent(workspace, version_id, data)  # it lay unused when a collection looked
        return MetadataEntry(commit=commit, time=now_ns(), version=version_id, name=name, value=value, blob=blob)

    commit_entry(workspace, entry, commit)


def piece_of(workspace: Workspace, version_id: str, draft: Draft | None, name: str) -> bytes | None:
    """A piece of metadata; None where there is none of that name.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    if draft is not None:
        return draft.metadata.get(name)
    held = workspace.version(version_id).metadata.get(name)
    if not isinstance(held, Blob):
        return None if held is None else held.encode()
    try:
        with workspace.reading(version_id):
            return read_blob(workspace, held)
    except Corrupt:
        if workspace.version(version_id).metadata.get(name) == held:
            raise
    # It was replaced meanwhile, and collected.
    return piece_of(workspace, version_id, None, name)


def metadata_names(workspace: Workspace, version_id: str, draft: Draft | None) -> Sequence[str]:
    """The names of all pieces but reports, in the order in which they were set."""
    names = draft.metadata if draft is not None else workspace.version(version_id).metadata
    return [name for name in names if not name.startswith(REPORTS)]


def add_report(workspace: Workspace, version_id: str, draft: Draft | None, line: bytes) -> None:
    """Keep a report with a version or draft. Raises as `set_piece`."""
    if draft is not None:
        describing.report(draft, line)
    else:
        set_piece(workspace, version_id, None, f"{REPORTS}/{new_commit_id()}", line)


def reports_of(workspace: Workspace, version_id: str, draft: Draft | None) -> list[Report]:
    """Every report, in the order in which they were made.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    lines = draft.reports if draft is not None else report_lines(workspace, version_id)
    return decode_reports(b"\n".join(lines), what="A report")


def report_lines(workspace: Workspace, version_id: str) -> list[bytes]:
    """The reports of a final version as lines of JSON. Raises as `reports_of`."""
    names = [name for name in workspace.version(version_id).metadata if name.startswith(REPORTS)]
    pieces = [piece_of(workspace, version_id, None, name) or b"" for name in names]
    return [line for piece in pieces for line in piece.splitlines()]


def _sent(workspace: Workspace, version_id: str, data: bytes) -> Blob:
    """The blob of some bytes, in a pack beside the version's own."""
    storage = workspace.version(version_id).entry.tree.place.storage
    writer = workspace.store.pack_writer(storage, workspace.chunks.add_footer)
    blob = write_blob(workspace, writer, data)
    writer.flush()
    return blob

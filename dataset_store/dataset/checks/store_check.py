"""Verifying a whole store: what a survey finds, and which versions and files that affects.

What is affected is found once, at the end, from the bytes that are damaged.
"""

from collections.abc import Sequence

from msgspec import Struct

from dataset_store.core.extents import Extents
from dataset_store.core.log_entries import Blob
from dataset_store.core.paths import to_text
from dataset_store.core.segments import Segment
from dataset_store.dataset.checks.surveying import EVERY_BYTE, Depth, Surveyed, survey_store
from dataset_store.dataset.checks.surviving import Lost, read_surviving
from dataset_store.dataset.workspace import Workspace
from dataset_store.storage.blobs import extents_of_blob, segments_of_blob
from dataset_store.storage.findings import Finding, Severity, in_order
from dataset_store.storage.trees import root_of

__all__ = ["AffectedVersion", "StoreCheck", "affected_versions", "verify_store"]


class AffectedVersion(Struct, frozen=True):
    """A version of which something is damaged: files and metadata by name, and ranges that cannot even be listed."""

    id: str
    paths: tuple[str, ...]
    metadata: tuple[str, ...]
    lost: tuple[Lost, ...]


class StoreCheck(Struct, frozen=True):
    """What was checked of a store, and what was found.

    Attributes:
        findings: The worst first.
        affected: The live versions that are damaged, in the order of their slots.
        slots: Entries of the log.
        versions: Live ones.
        packs: That the storages hold.
        bytes: Of these packs.
        frames: Of data, in packs whose footers can be used.
        frames_read: Of these, how many were decoded and hashed; all other frames were.
        seed: What chose them.
    """

    findings: tuple[Finding, ...]
    affected: tuple[AffectedVersion, ...]
    slots: int
    versions: int
    packs: int
    bytes: int
    frames: int
    frames_read: int
    seed: int

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return all(one.severity is Severity.INFORMATION for one in self.findings)

    @property
    def overlooked(self) -> float | None:
        """The share of damaged data frames that 95 % of such samples meet; None where all or none were read."""
        if self.frames_read in {0, self.frames}:
            return None
        return float(1 - 0.05 ** (1 / self.frames_read))


def verify_store(workspace: Workspace, depth: Depth = EVERY_BYTE, *, show_progress: bool = False) -> StoreCheck:
    """Check a whole store.

    Args:
        workspace: The store.
        depth: How much of the data is read.
        show_progress: Show a bar.

    Raises:
        StorageFailed: A storage cannot be read now; nothing is known to be damaged.
        FormatTooNew: Reading needs a newer version of this package.
    """
    found = survey_store(workspace, depth, show_progress=show_progress)
    assert found.listed is not None  # noqa: S101
    return StoreCheck(
        findings=in_order(found.findings),
        affected=affected_versions(found, workspace),
        slots=found.catalog.head,
        versions=len(found.versions()),
        packs=len(found.listed.packs),
        bytes=sum(info.size for info in found.listed.packs.values()),
        frames=found.frames,
        frames_read=found.frames_read,
        seed=depth.seed,
    )


def _is_damaged(blob: Blob, bad: Extents, hollow: set[Segment]) -> bool:
    return bool(extents_of_blob(blob).touched_by(bad).any()) or not hollow.isdisjoint(segments_of_blob(blob))


def affected_versions(found: Surveyed, workspace: Workspace) -> tuple[AffectedVersion, ...]:
    """Every live version that needs something that is bad, with what of it."""
    if not len(found.bad) and not found.hollow and found.trees.complete:
        return ()
    rows, by_version = found.touched()
    named = found.standing.relocations.named(found.bad)
    affected = []
    for version in sorted(found.versions(), key=lambda one: one.slot):
        marked = by_version[version.id]
        paths = sorted(key for node_id in marked if node_id in rows for key in rows[node_id].keys)
        pieces = {name: piece for name, piece in version.metadata.items() if not isinstance(piece, str)}
        damaged = [name for name, blob in pieces.items() if _is_damaged(blob, named, found.hollow)]
        lost: Sequence[Lost] = ()
        if any(node_id not in rows for node_id in marked):
            tree, stats = version.entry.tree, version.entry.stats
            nodes = workspace.store.nodes
            lost = read_surviving(root_of(tree), stats.files, stats.bytes, nodes, found.trees.packs).lost
        if paths or damaged or lost:
            texts = tuple(to_text(key) for key in paths)
            affected.append(AffectedVersion(version.id, texts, tuple(sorted(damaged)), tuple(lost)))
    return tuple(affected)

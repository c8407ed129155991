"""What can be wrong with a store, as values with stable ids.

The ids, their severities and what to do are one table, to which rows are added and never taken away: whoever watches a
store by `verify --all --json` may rest on it (docs/guides/damage.md shows the same rows).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from dataset_store.core.packfile import PackRef

__all__ = ["FINDINGS", "Finding", "Kind", "Severity", "in_order"]


class Severity(StrEnum):
    """What a finding means: something is lost, only a help for readers is damaged, or nothing is wrong at all."""

    MUST = "must"
    SHOULD = "should"
    INFORMATION = "information"


class Kind(Struct, frozen=True):
    """One kind of finding: how bad it is, what it means, and what to do."""

    severity: Severity
    meaning: str
    advice: str


_RESTORE = "`dataset-store repair`, else a backup of this object"
_LOG = "Bring the object back from a backup or another copy of the store"

FINDINGS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "config-damaged": Kind(Severity.MUST, "The config is not the one that the log was begun with.", _LOG),
        "log-hole": Kind(Severity.MUST, "An entry of the log is gone, though later ones stand.", _LOG),
        "log-cut": Kind(Severity.MUST, "The log ends before what this machine has seen of it.", _LOG),
        "entry-damaged": Kind(Severity.MUST, "A log entry fails its checks, or does not follow the one before.", _LOG),
        "version-invalid": Kind(
            Severity.MUST, "A version's entry breaks the rules of the log; readers ignore it.", "Make the version anew"
        ),
        "table-damaged": Kind(
            Severity.MUST, "A relocation table or list of packs cannot be read; nothing behind it can be judged.", _LOG
        ),
        "checkpoint-damaged": Kind(
            Severity.SHOULD,
            "A checkpoint fails its checks, or differs from the entries that it copies.",
            "Delete the object; readers make it anew",
        ),
        "pack-missing": Kind(Severity.MUST, "A pack that something live needs is not there.", _RESTORE),
        "pack-header-damaged": Kind(
            Severity.SHOULD, "The first 40 bytes of a pack are not what they must be.", _RESTORE
        ),
        "pack-footer-damaged": Kind(
            Severity.SHOULD,
            "A pack's footer cannot be used; its frames may be whole.",
            _RESTORE,
        ),
        "frame-damaged": Kind(Severity.MUST, "A frame that something live needs is not what it must be.", _RESTORE),
        "frame-unverified": Kind(
            Severity.MUST,
            "Frames that something live needs can be compared with nothing, as their pack's footer and other frames of "
            "their run are damaged.",
            _RESTORE,
        ),
        "dead-frame-damaged": Kind(
            Severity.SHOULD, "A frame that nothing live needs is not what it must be.", "`dataset-store repair`"
        ),
        "frame-missing": Kind(Severity.MUST, "Something live names bytes that are no whole frames.", _RESTORE),
        "frame-condemned": Kind(
            Severity.MUST,
            "Something live needs a frame of a pack that was condemned, and no table says where it went.",
            "Copy the pack away before anybody runs gc; `dataset-store repair`",
        ),
        "node-damaged": Kind(Severity.MUST, "A node of a tree or a segment list is not what its id says.", _RESTORE),
        "census-damaged": Kind(
            Severity.SHOULD, "A tree's census is not what its id says; readers do not need it.", _RESTORE
        ),
        "content-lost": Kind(
            Severity.MUST,
            "A frame could be restored in part only, and a live file's bytes are not in it.",
            "`dataset-store repair --folder` with a folder that may have the file",
        ),
        "pack-unnamed": Kind(
            Severity.INFORMATION,
            "Nothing that could be read needs this pack: it is dead, or of an upload under way.",
            "`dataset-store gc`, once nothing is damaged",
        ),
        "pack-condemned": Kind(
            Severity.INFORMATION, "A condemned pack is still there.", "`dataset-store gc`, once nothing is damaged"
        ),
    }
)
"""Every kind of finding by its stable id."""


class Finding(Struct, frozen=True):
    """One thing that was found.

    Attributes:
        id: Its kind, a key of `FINDINGS`.
        object: Which object, by its key below the storage's root; for a version its id.
        problem: What is wrong, a sentence.
        pack: The pack, where it is of one.
        offset: Where in the pack the frame or run of frames begins, in bytes; None where all of it is meant.
        length: Bytes from there on.
    """

    id: str
    object: str
    problem: str
    pack: PackRef | None = None
    offset: int | None = None
    length: int | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return FINDINGS[self.id].severity


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings by severity, object and offset, each once."""
    ranks = {severity: rank for rank, severity in enumerate(Severity)}
    return tuple(sorted(set(findings), key=lambda one: (ranks[one.severity], one.object, one.offset or 0, one.id)))

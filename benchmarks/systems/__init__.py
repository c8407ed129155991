"""The systems that are measured beside each other."""

from benchmarks.systems.archivers import Borg, Casync, Desync, Restic
from benchmarks.systems.base import Home, Kind, System
from benchmarks.systems.clearml import ClearML
from benchmarks.systems.dataset_store import DatasetStore
from benchmarks.systems.plain import Cp, Ostree, Rsync
from benchmarks.systems.repositories import Dvc, DvcLinks, Git, GitLfs, Oxen

__all__ = ["SYSTEMS", "Home", "Kind", "System"]

SYSTEMS: dict[str, System] = {
    one.name: one
    for one in (
        DatasetStore(),
        Restic(),
        Borg(),
        Dvc(),
        Oxen(),
        ClearML(),
        GitLfs(),
        Casync(),
        Desync(),
        Git(),
        Rsync(),
        Ostree(),
        DvcLinks(),
        Cp(),
    )
}

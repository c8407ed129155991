"""Seeded folders, and the edits that make their next versions."""

from benchmarks.workloads.base import Workload
from benchmarks.workloads.large import Digits, Noise, NoiseFar, NoiseXfs
from benchmarks.workloads.small import Chain, Small, SmallBtrfs, SmallFar, Wide
from benchmarks.workloads.tables import Parquet, ParquetPages

__all__ = ["WORKLOADS", "Workload"]

WORKLOADS: dict[str, type[Workload]] = {
    one.name: one
    for one in (
        Noise,
        Digits,
        Small,
        Wide,
        Parquet,
        ParquetPages,
        Chain,
        SmallFar,
        NoiseFar,
        SmallBtrfs,
        NoiseXfs,
    )
}

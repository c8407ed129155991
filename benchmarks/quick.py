"""A few minutes' look at whether something became slow: what we take beside what the machine needs for the least.

Each operation is measured right after its limit, on the same new image, so that a machine that is busy slows both. What
counts is the median of their ratios, and whether it is worse than the one that was accepted, in `quick.json`, by more
than a quarter. What seems so after the first rounds is measured again before it is said.

Images lie in memory, so that ratios are much the same on machines whose disks differ.
"""

import json
import os
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.limits import limits_of
from benchmarks.measuring.image import drop_page_cache, mounted
from benchmarks.measuring.process import measure
from benchmarks.running import Prepared, settle
from benchmarks.systems import SYSTEMS, Home
from benchmarks.systems.base import Commands
from benchmarks.workloads import WORKLOADS

ACCEPTED = Path(__file__).with_name("quick.json")
MARGIN = 1.25
ROUNDS = 5
ATTEMPTS = 3
"""How often so many rounds are measured, as long as something seems to be worse."""

OURS = SYSTEMS["dataset_store"]
SCALES = {"small": 0.1, "large-noise": 0.2, "large-text": 0.2}
ROOM = 6 << 30

Ratios = Mapping[str, list[float]]
"""Of each operation, how many times as long as its limit it took, round by round."""


class Pairs:
    """One workload on one image: each operation right after its limit."""

    def __init__(self, prepared: Prepared, home: Home) -> None:
        self.prepared = prepared
        self.home = home

    def ratios(self) -> Iterator[tuple[str, float]]:
        home, other = self.home, self.home.on("other")
        target = home.copy("copy")
        yield self.pair("first commit", self.prepared.workload.quick_limit, OURS.commit(home, "v1"))
        yield self.pair("no-change commit", "stat", OURS.commit(home, "v2"))
        self.prepared.workload.edit(home.data)
        settle()
        yield self.pair("small commit", "stat", OURS.commit(home, "v3"))
        yield self.pair("cold copy", "cp -a, cold", OURS.copy(other, "v1", target))
        yield self.pair("next copy", "link", OURS.update(other, "v3", target))
        yield self.pair("warm copy", "python -c pass", OURS.again(other, "v3", target))
        yield self.pair("mutable copy", "cp -a", OURS.mutable(other, "v3", home.copy("work")))

    def pair(self, operation: str, limit: str, commands: Commands | None) -> tuple[str, float]:
        assert commands is not None
        scratch = self.home.root / "limits"
        scratch.mkdir()
        cold = operation.startswith("cold")
        least = self.seconds(limits_of(self.home, scratch)[limit], cold=cold)
        shutil.rmtree(scratch)
        os.sync()
        taken = self.seconds(commands, cold=cold)
        return f"{self.prepared.workload.name}: {operation} / {limit}", taken / least

    def seconds(self, commands: Commands, *, cold: bool) -> float:
        if cold:
            drop_page_cache()
        timing = measure(commands, self.home.root / "home")
        return timing.wall + timing.sync


def one_round(prepared: Prepared, scratch: Path) -> Iterator[tuple[str, float]]:
    with mounted(scratch, ROOM) as root:
        home = Home(root)
        for folder in (home.tree, home.copy(""), home.caches, home.on("other").caches):
            folder.mkdir(parents=True)
        prepared.put_into(home.data)
        settle()
        yield from Pairs(prepared, home).ratios()


def worse(ratios: Ratios, accepted: Mapping[str, float]) -> list[str]:
    """What to say of each operation that has become slower than is accepted, or that nobody has accepted."""
    said = []
    for operation, found in ratios.items():
        middle, before = statistics.median(found), accepted.get(operation)
        if before is None:
            said.append(f"{operation}: {middle:.2f}, and there is nothing accepted to compare it with")
        elif middle > MARGIN * before:
            said.append(f"{operation}: {middle:.2f}, accepted was {before:.2f}")
    return said


def check(scratch: Path, *, accept: bool = False) -> int:
    """Measure, and compare with what was accepted, or accept it; 1 where something became slower."""
    accepted = {} if accept else json.loads(ACCEPTED.read_text())
    attempts = 2 if accept else ATTEMPTS
    prepared = [Prepared.make(WORKLOADS[name](scale), scratch) for name, scale in SCALES.items()]
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(attempts):
        for _ in range(ROUNDS):
            for one in prepared:
                for operation, ratio in one_round(one, scratch):
                    ratios[operation].append(ratio)
        for operation, found in ratios.items():
            rounds = " ".join(f"{ratio:.2f}" for ratio in sorted(found))
            print(f"{operation:45} {statistics.median(found):7.2f}   {rounds}", flush=True)
        if not accept and not worse(ratios, accepted):
            break
    if accept:
        medians = {operation: round(statistics.median(found), 2) for operation, found in ratios.items()}
        ACCEPTED.write_text(json.dumps(medians, indent=2) + "\n")
        return 0
    said = worse(ratios, accepted)
    for sentence in said:
        print(f"slower: {sentence}")
    return 1 if said else 0

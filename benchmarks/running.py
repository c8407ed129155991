"""One workload through one system: every operation in turn, measured, and every copy compared with its source."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import limits
from benchmarks.measuring.folders import Contents, contents_of, taken_by
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.process import CommandFailed, Timing, measure
from benchmarks.measuring.samples import Sample
from benchmarks.servers.beside import ask, beside
from benchmarks.systems import Home, System
from benchmarks.systems.base import PEERS, Commands
from benchmarks.workloads import Workload

SETTLED = 2.5
"""Seconds between the last write to a folder and its commit: as in life, and so that no system doubts its times."""


@dataclass
class Prepared:
    """A workload's folder, made once, and what its versions must hold."""

    workload: Workload
    template: Path
    expected: dict[str, Contents] = field(default_factory=dict)

    @classmethod
    def make(cls, workload: Workload, scratch: Path) -> "Prepared":
        template = scratch / f"template-{workload.name}"
        template.mkdir()
        workload.build(template)
        return cls(workload, template)

    def put_into(self, folder: Path) -> None:
        subprocess.run(["cp", "-a", str(self.template), str(folder)], check=True)

    def expect(self, version: str, folder: Path) -> None:
        if version not in self.expected:
            self.expected[version] = contents_of(folder)


class Run:
    """One system with one workload, on an image of its own."""

    def __init__(self, system: System, prepared: Prepared, machine: Machine, home: Home, number: int) -> None:
        self.system = system
        self.prepared = prepared
        self.machine = machine
        self.home = home
        self.number = number
        self.last = f"v{prepared.workload.versions}"

    def samples(self) -> Iterator[Sample]:
        try:
            self.begin()
            yield from self.commits()
            yield from self.questions()
            yield from self.copies()
            yield from self.from_python()
        except CommandFailed as problem:
            yield Sample(self.prepared.workload.name, self.system.name, "failed", self.number, problem=str(problem))

    def begin(self) -> None:
        self.home.tree.mkdir()
        self.home.copy("").mkdir()
        self.home.caches.mkdir(parents=True)
        self.prepared.put_into(self.home.data)
        self.prepared.expect("v1", self.home.data)
        commands = self.system.begin(self.home)
        if commands:
            measure(commands, self.home.root / "home")

    def commits(self) -> Iterator[Sample]:
        settle()
        yield self.measured("first commit", self.system.commit(self.home, "v1"), stores=True)
        yield self.measured("no-change commit", self.system.commit(self.home, "v2"), stores=True)
        self.prepared.workload.edit(self.home.data)
        settle()
        yield self.measured("small commit", self.system.commit(self.home, "v3"), stores=True)
        if self.last != "v3":
            yield self.chain()
        self.prepared.expect(self.last, self.home.data)

    def chain(self) -> Sample:
        """All further versions, as one sample: what they took together, and the store after the last."""
        workload = self.prepared.workload
        samples = []
        for number in range(4, workload.versions + 1):
            workload.edit(self.home.data, number - 2)
            os.sync()
            commands = self.system.commit(self.home, f"v{number}")
            samples.append(self.measured("chain", commands, stores=number == workload.versions))
        return together(samples)

    def questions(self) -> Iterator[Sample]:
        asked: Mapping[str, Callable[[], Commands | None]] = {
            "diff": lambda: self.system.diff(self.home, "v1", self.last),
            "list": lambda: self.system.list(self.home, self.last),
            "verify": lambda: self.system.verify(self.home),
        }
        for operation, commands in asked.items():
            found = commands()
            if found is not None:
                yield self.measured(operation, found)

    def copies(self) -> Iterator[Sample]:
        """On a machine that knows nothing: a copy, then the next version's, the same again, and one to change."""
        home, system, last = self.home.on("other"), self.system, self.last
        home.caches.mkdir()
        target = home.copy("copy")
        before = system.before_copies(home, "v1")
        if before:
            measure(before, self.home.root / "home")
        self.machine.forget()
        yield self.measured("cold copy", system.copy(home, "v1", target), copied=("v1", target))
        commands = system.update(home, last, target)
        if commands is None:
            return
        yield self.measured("next copy", commands, copied=(last, system.updated(last, target)))
        again = system.again(home, last, target)
        if again is not None:
            yield self.measured("warm copy", again)
        mutable = system.mutable(home, last, home.copy("work"))
        if mutable is not None:
            yield self.measured("mutable copy", mutable, copied=(last, home.copy("work")))

    def from_python(self) -> Iterator[Sample]:
        """What a process asks for that has begun already."""
        commands = self.system.from_python(self.home.on("other"), "v1", self.last)
        if commands is not None:
            told = json.loads(measure(commands, self.home.root / "home").output)
            for operation, seconds in told.items():
                workload, system = self.prepared.workload.name, f"{self.system.name}, from Python"
                yield Sample(workload, system, operation, self.number, seconds)

    def measured(
        self, operation: str, commands: Commands, *, stores: bool = False, copied: tuple[str, Path] | None = None
    ) -> Sample:
        far = self.home.far
        if far:
            ask(far, "-", method="DELETE")
        self.machine.fill()
        try:
            timing = measure(commands, self.home.root / "home")
            problem = self.difference(*copied) if copied else None
        except CommandFailed as failed:
            timing, problem = Timing(0, 0, 0, 0, ""), str(failed)
        told = ask(far, "-") if far else {}
        size, files = self.stored(told) if stores else (None, None)
        return Sample(
            self.prepared.workload.name,
            self.system.name,
            operation,
            self.number,
            timing.wall,
            timing.cpu,
            timing.sync,
            timing.peak,
            size,
            files,
            told.get("requests"),
            told["sent"] + told["received"] if far else None,
            problem,
            [self.shortened(shlex.join(one.argv)) for one in commands],
        )

    def stored(self, told: Mapping[str, int]) -> tuple[int, int]:
        """Bytes and files of the store; of objects, where it is far."""
        return (told["bytes"], told["objects"]) if told else taken_by(self.system.stored_in(self.home))

    def difference(self, version: str, target: Path) -> str | None:
        """How a copy differs from what it must hold; None where it does not."""
        folder = self.system.data_in(self.home, version, target)
        if not folder.exists():
            return "no copy"
        found = contents_of(folder.resolve())
        expected = self.prepared.expected[version]
        if found == expected:
            return None
        wrong = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
        return f"{len(wrong)} files differ, as {wrong[0]}"

    def shortened(self, words: str) -> str:
        return without_programs(words).replace(str(self.home.root), "").strip()


def without_programs(words: str) -> str:
    """A command without the folders in which its programs are installed."""
    for folder in (PEERS, Path(sys.prefix)):
        words = re.sub(rf"{re.escape(str(folder))}/(\S*/)?bin/", "", words)
    return words


def settle() -> None:
    """Leave a folder that was just written at rest, and on the disk: its bytes are nobody's to flush."""
    os.sync()
    time.sleep(SETTLED)


def run_limits(prepared: Prepared, machine: Machine, number: int) -> Iterator[Sample]:
    """What the machine takes for the least that the operations need, on a new image."""
    machine.fill()
    with image(prepared.workload, machine) as root:
        home = Home(root)
        home.tree.mkdir()
        home.copy("").mkdir()
        prepared.put_into(home.data)
        settle()
        yield from limits.samples_of(prepared.workload, machine, home, number)


def image(workload: Workload, machine: Machine) -> AbstractContextManager[Path]:
    size = max(2 << 30, int(workload.room * min(1.0, workload.scale * 1.5)))
    return machine.image(size, workload.file_system)


def together(samples: Sequence[Sample]) -> Sample:
    """Samples of one operation that was done again and again, as one: sums, the largest memory, the last store."""
    problem = next((one.problem for one in samples if one.problem), None)
    last = samples[-1]
    return replace(
        last,
        wall=sum(one.wall for one in samples),
        cpu=sum(one.cpu or 0.0 for one in samples),
        sync=sum(one.sync or 0.0 for one in samples),
        peak=max(one.peak or 0 for one in samples),
        requests=None if last.requests is None else sum(one.requests or 0 for one in samples),
        carried=None if last.carried is None else sum(one.carried or 0 for one in samples),
        problem=problem,
    )


def run(system: System, prepared: Prepared, machine: Machine, number: int) -> Iterator[Sample]:
    """Every operation of a system on a workload, on a new image."""
    machine.fill()
    store = beside("far_store") if prepared.workload.far else nullcontext("")
    with image(prepared.workload, machine) as root, system.serving() as service, store as far:
        yield from Run(system, prepared, machine, Home(root, service=service, far=far), number).samples()

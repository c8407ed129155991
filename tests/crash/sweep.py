"""Every file-changing call of a sequence of steps meets every fault, and after each the next command succeeds.

    LD_PRELOAD=fault_shim.so python sweep.py FOLDER [--part 0/2] [--sequence NAME] [--every N] [--plant NAME]

One process that has imported everything, and never starts a thread, forks a child for each point: the child carries out
one step, and a fault meets it at one of its calls. Another child goes on as the user would. Prints a line of JSON.
"""

import argparse
import errno
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import plants
from forking import copy_tree, import_everything, in_child
from sequences import SEQUENCES, Notes, Sequence, World, be_machine, make_inputs, require_sent_once, verify_store
from shim import Mode, Shim

from dataset_store.dataset.copies import filling
from dataset_store.errors import DatasetStoreError
from dataset_store.local.removal import remove_tree
from dataset_store.storage.pack_writer import PackWriter

TO_THE_END = 8
"""One point of so many goes on to the end of its sequence; the others end with the step that was hit."""


@dataclass(frozen=True)
class Fault:
    """What happens at a call of one of some kinds, or at every n-th of these."""

    mode: Mode
    error: int = 0
    kinds: str = "wongsum"
    every: int = 1


FAULTS = {
    "kill": Fault(Mode.KILL),
    "ENOSPC": Fault(Mode.FAIL, errno.ENOSPC),
    "disk stays full": Fault(Mode.FAIL_ON, errno.ENOSPC, "wong", 2),
    "EIO": Fault(Mode.FAIL, errno.EIO),
    "EMFILE": Fault(Mode.FAIL, errno.EMFILE, "or", 3),
    "short write": Fault(Mode.SHORT, 0, "w"),
}


@dataclass(frozen=True)
class Outcome:
    """How a child ended: `fate` is ok, typed, killed, hung, or a problem in words."""

    fate: str
    notes: Notes
    calls: str = ""


@dataclass(frozen=True)
class Point:
    """One call of one step, and what happens there."""

    step: int
    call: int
    fault: str


class Sweep:
    """One sequence in a folder of its own."""

    def __init__(self, folder: Path, sequence: Sequence, shim: Shim) -> None:
        self.folder = folder
        self.sequence = sequence
        self.shim = shim
        folder.mkdir(parents=True)
        self.world = World(folder / "home", folder / "in", make_inputs(sequence, folder / "in"))
        self.world.home.mkdir()
        be_machine(self.world.home)
        PackWriter.__init__.__kwdefaults__["target"] = sequence.pack_bytes
        shim.watch(self.world.home)
        self.notes: list[Notes] = []
        self.calls: list[str] = []

    def record(self) -> None:
        """Carry out all steps without a fault, keeping the home and the calls of each."""
        notes: Notes = {}
        for step in self.sequence.begin:
            notes = self._undisturbed(lambda step=step, notes=notes: self._step(step, notes)).notes
        for at, step in enumerate(self.sequence.steps):
            copy_tree(str(self.world.home), self._snapshot(at))
            self.notes.append(notes)
            done = self._undisturbed(lambda step=step, notes=notes: self._step(step, notes, Mode.COUNT))
            notes = done.notes
            self.calls.append(done.calls)

    def _undisturbed(self, work: Callable[[], Outcome]) -> Outcome:
        status, outcome = in_child(work)
        assert status == 0, status
        assert isinstance(outcome, Outcome)
        assert outcome.fate == "ok", outcome.fate
        return outcome

    def points(self) -> Iterator[Point]:
        """Every call of every step with the faults that can meet it; those of a fault that meets only some in turn."""
        met: Counter[str] = Counter()
        for step, kinds in enumerate(self.calls):
            for call, kind in enumerate(kinds, start=1):
                for name in (name for name, fault in FAULTS.items() if kind in fault.kinds):
                    met[name] += 1
                    if met[name] % FAULTS[name].every == 0:
                        yield Point(step, call, name)

    def meet(self, point: Point, number: int) -> tuple[str, str | None]:
        """Let a fault happen, and go on; the fate of the step, and what was wrong."""
        remove_tree(str(self.world.home))
        copy_tree(self._snapshot(point.step), str(self.world.home))
        fault = FAULTS[point.fault]
        step, notes = self.sequence.steps[point.step], dict(self.notes[point.step])
        status, outcome = in_child(lambda: self._step(step, notes, fault.mode, point.call, fault.error))
        fate = self._fate(status, outcome, fault)
        if fate not in {"ok", "typed", "killed"}:
            return "bad", f"the step: {fate}"
        if isinstance(outcome, Outcome) and fate == "ok":
            notes = outcome.notes
        status, problem = in_child(lambda: self._go_on(point.step, notes, fate, number))
        if status:
            return "bad", f"going on after {fate}: ended with {status}"
        return fate if problem is None else "bad", problem and f"going on after {fate}: {problem}"

    def _fate(self, status: int, outcome: object, fault: Fault) -> str:
        if isinstance(outcome, Outcome):
            return outcome.fate
        if status == signal.SIGKILL and fault.mode == Mode.KILL:
            return "killed"
        return f"ended with {status}"

    def _step(self, step, notes: Notes, mode: Mode = Mode.OFF, call: int = 0, error: int = 0) -> Outcome:
        """Carry out a step; in a child."""
        notes = dict(notes)
        self.shim.arm(mode, call, error)
        try:
            step.run(self.world, notes)
        except DatasetStoreError as failure:
            return Outcome("typed", notes) if mode not in {Mode.OFF, Mode.COUNT} else Outcome(repr(failure), notes)
        except BaseException:  # noqa: BLE001
            return Outcome(traceback.format_exc(), notes)
        finally:
            calls = self.shim.calls() if mode == Mode.COUNT else ""
            self.shim.arm(Mode.OFF)
        return Outcome("ok", notes, calls)

    def _go_on(self, at: int, notes: Notes, fate: str, number: int) -> str | None:
        """What the user does next, and what must hold then; in a child. What was wrong, None if nothing."""
        try:
            self._proceed(at, notes, fate, number)
        except BaseException:  # noqa: BLE001
            return traceback.format_exc()
        return None

    def _proceed(self, at: int, notes: Notes, fate: str, number: int) -> None:
        before = fate == "ok" or number % 2
        if before:
            self._all_hold(at + (fate == "ok"), notes)
        if fate != "ok":
            self.sequence.steps[at].run(self.world, notes)
            if self.sequence.steps[at].name == "upload":
                require_sent_once(self.world)
        until = len(self.sequence.steps) if number % TO_THE_END == 0 else at + 1
        for step in self.sequence.steps[at + 1 : until]:
            step.run(self.world, notes)
        self._all_hold(until, notes)
        if (self.world.home / "store" / "log").exists():
            machines = ("", "-fresh") if self._store_changed(at) or until > at + 1 else ("",)
            verify_store(self.world, notes, machines)

    def _all_hold(self, count: int, notes: Notes) -> None:
        for step in self.sequence.steps[:count]:
            step.holds(self.world, notes)

    def _store_changed(self, at: int) -> bool:
        """Whether the store is another than before the step: else what other machines read was seen before."""
        roots = [root for root in ("store", "elsewhere") if (self.world.home / root).exists()]
        return any(content(self.world.home / root) != content(Path(self._snapshot(at)) / root) for root in roots)

    def _snapshot(self, at: int) -> str:
        return str(self.folder / f"before-{at}")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def part_of(points: list[Point], part: str) -> list[tuple[int, Point]]:
    """Every n-th point, with its number among all."""
    which, count = map(int, part.split("/"))
    return list(islice(enumerate(points), which, None, count))


def swept(sweep: Sweep, part: str, every: int) -> dict[str, object]:
    sweep.record()
    points = list(sweep.points())[::every]
    began = time.perf_counter()
    fates: Counter[str] = Counter()
    problems: dict[str, str] = {}
    mine = part_of(points, part)
    for number, point in mine:
        fate, problem = sweep.meet(point, number)
        fates[f"{point.fault}: {fate}"] += 1
        if problem is not None:
            name = sweep.sequence.steps[point.step].name
            problems[f"{sweep.sequence.name}, {name}, call {point.call}, {point.fault}"] = problem
    names = [step.name for step in sweep.sequence.steps]
    return {
        "sequence": sweep.sequence.name,
        "calls": {name: len(calls) for name, calls in zip(names, sweep.calls, strict=True)},
        "points": len(mine),
        "fates": dict(sorted(fates.items())),
        "seconds": round(time.perf_counter() - began, 1),
        "processor seconds": round(sum(os.times()[:4]), 1),
        "problems": problems,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--sequence", choices=list(SEQUENCES), action="append")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--plant", choices=list(plants.PLANTS))
    arguments = parser.parse_args()
    import_everything()
    filling.SETTLE_NS = 0  # only how soon the next sync trusts the times of the copy's files
    if arguments.plant:
        plants.PLANTS[arguments.plant]()
    gc.freeze()
    for name in arguments.sequence or SEQUENCES:
        sweep = Sweep(arguments.folder / name.replace(" ", "-"), SEQUENCES[name], Shim())
        print(json.dumps(swept(sweep, arguments.part, arguments.every)), flush=True)
        remove_tree(str(sweep.folder))


if __name__ == "__main__":
    sys.exit(main())

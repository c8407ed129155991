"""Commands of the command line are interrupted at random times, and given again.

    python interrupting.py FOLDER TIMES SEED      prints a line of JSON

Each command runs in a fork of this process, which has imported everything; SIGINT and SIGTERM take turns.
"""

import gc
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from forking import copy_tree, import_everything
from sequences import be_machine, read

from dataset_store.cli import main
from dataset_store.local.removal import remove_tree

SOON = 2.0
"""Seconds within which a signal must end a command on a machine that has nothing else to do."""

ENDED = {130, 143}
TO_THE_END = 5
"""After one interruption of so many all later commands are given too."""


@dataclass(frozen=True)
class Interrupted:
    """How a command ended: its exit code (negative: by that signal), and how long after the signal, in seconds."""

    code: int
    seconds: float


class Machine:
    """A folder with inputs and commands, and what it looks like before each command."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        (folder / "in" / "many").mkdir(parents=True)
        for number in range(300):
            (folder / "in" / "many" / str(number)).write_bytes(chance.randbytes(10_000))
        for number in range(6):
            (folder / "in" / f"long{number}").write_bytes(chance.randbytes(3_000_000))
        self.content = read(folder / "in")
        be_machine(self.home)
        (self.home / "work").mkdir()
        self.target = self.home / "mine"
        self.commands = [
            ["sync", "--folder", str(folder / "in"), "--project", "p", "--name", "d", "--skip-close"],
            ["upload"],
            ["close"],
            ["get", "--project", "p", "--name", "d"],
            ["get", "--project", "p", "--name", "d", "--copy", str(self.target), "--overwrite"],
        ]
        self.lasts: list[float] = []

    def record(self) -> None:
        """Give all commands without an interruption, keeping what was there before each and how long it took."""
        for at, command in enumerate(self.commands):
            copy_tree(str(self.home), str(self.folder / f"before-{at}"))
            began = time.perf_counter()
            assert self.give(command).code == 0, command
            self.lasts.append(time.perf_counter() - began)

    def put_back(self, at: int) -> None:
        remove_tree(str(self.home))
        copy_tree(str(self.folder / f"before-{at}"), str(self.home))

    def give(self, command: list[str], delay: float | None = None, number: int = 0) -> Interrupted:
        """Give a command; after `delay` seconds send it a signal."""
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command begins it ends the child at once
        child = os.fork()
        if not child:
            self._be_command(command)
        signal.signal(signal.SIGINT, before)
        if delay is None:
            return Interrupted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0.0)
        time.sleep(delay)
        os.kill(child, number)
        began = time.perf_counter()
        _, status = os.waitpid(child, 0)
        return Interrupted(os.waitstatus_to_exitcode(status), time.perf_counter() - began)

    def _be_command(self, command: list[str]) -> None:
        code = 70
        try:
            signal.alarm(120)
            os.chdir(self.home / "work")
            with open(self.home / "said", "wb") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = main(command)
        finally:
            os._exit(code)

    def interrupt(self, at: int, delay: float, number: int, *, to_the_end: bool) -> tuple[Interrupted, str | None]:
        """Interrupt a command, then give it again; how it ended, and what was wrong."""
        self.put_back(at)
        ended = self.give(self.commands[at], delay, number)
        problem = self._problem_of(ended)
        until = len(self.commands) if to_the_end else at + 1
        for command in self.commands[at:until] if problem is None else []:
            again = self.give(command)
            said = (self.home / "said").read_text()
            landed = command == ["close"] and "is final" in said  # before it was interrupted: then it is done
            if again.code and not landed:
                return ended, f"{command[0]} again: {again.code}, {said}"
        if problem is None and until == len(self.commands) and read(self.target) != self.content:
            problem = "the copy is another"
        return ended, problem

    def _problem_of(self, ended: Interrupted) -> str | None:
        """What is wrong right after a command ended."""
        if ended.code not in {0, -signal.SIGINT, -signal.SIGTERM, *ENDED}:
            return f"ended with {ended.code}: {(self.home / 'said').read_text()}"
        if self.target.exists() and read(self.target) != self.content:
            return "a part of a copy is there"
        litter = sorted(path.name for path in self.home.glob("mine.*"))
        return f"{litter} is left" if litter and ended.code in ENDED else None


def run(folder: Path, times: int, seed: int) -> dict[str, object]:
    """Interrupt commands so many times."""
    chance = random.Random(seed)
    machine = Machine(folder, chance)
    machine.record()
    codes: Counter[str] = Counter()
    late = late_under_load = 0
    longest = 0.0
    problems: list[str] = []
    for at in range(times):
        command, number = at % len(machine.commands), (signal.SIGINT, signal.SIGTERM)[at % 2]
        delay = chance.uniform(0, machine.lasts[command])
        is_loaded = os.getloadavg()[0] > (os.cpu_count() or 1)
        ended, problem = machine.interrupt(command, delay, number, to_the_end=at % TO_THE_END == 0)
        codes["done before" if ended.code == 0 else f"ended with {ended.code}"] += 1
        longest = max(longest, ended.seconds)
        late += ended.seconds > SOON and not is_loaded
        late_under_load += ended.seconds > SOON and is_loaded
        if problem is not None:
            problems.append(f"{machine.commands[command][0]} after {delay:.3f} s, {number.name}: {problem}")
    return {
        "interruptions": times,
        "codes": dict(codes),
        "late": late,
        "late under load": late_under_load,
        "longest": round(longest, 2),
        "problems": problems,
    }


if __name__ == "__main__":
    import_everything()
    gc.freeze()
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))

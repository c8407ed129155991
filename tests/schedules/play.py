"""Schedules of the real code of commit, gc and repack: a seed is a schedule, and either it holds or says what broke.

Run this file with `--run N` (and `--first SEED`, `--jobs J`) for N schedules, and a count of what happened in them.
"""

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from schedule import Scheduler, Violation
from schedule_actors import (
    CONTENTS,
    KEYS,
    HalfDead,
    Twin,
    Writer,
    annotator,
    collect_now,
    collector,
    deleter,
    reader,
    repacker,
)
from schedule_machines import Machine, machines
from schedule_watch import watched
from schedule_world import World

from dataset_store.core.digest import hash32


def play(seed: int) -> World:
    """Play one schedule to its end.

    Raises:
        Violation: An invariant does not hold.
        Exception: The code failed in a way that it does not declare.
    """
    rng = random.Random(seed)
    world = World(rng)
    scheduler = Scheduler(rng, world)
    with machines(rng) as folder, watched(world):
        veteran = Machine(world, scheduler, folder / "0")
        history(veteran)
        cast(scheduler, veteran, folder)
        scheduler.run()
        collect_now(Machine(world, scheduler, folder / "last"))
        world.check_end()
    return world


def history(machine: Machine) -> None:
    """What was there before: versions, deleted ones, collections, as one machine did it."""
    Writer(machine, 1)()
    for _ in range(machine.rng.randint(0, 3)):
        act = machine.rng.choice((Writer, Writer, deleter, collector, repacker))
        act(machine, 1)()
    if machine.rng.random() < 0.7:
        HalfDead(machine, 1)()


def cast(scheduler: Scheduler, veteran: Machine, folder) -> None:
    """Draw the actors of one schedule."""
    rng, world = scheduler.rng, scheduler.world

    def another():
        return Machine(world, scheduler, folder / str(len(list(folder.iterdir()))))

    def write(machine, times):
        writer = Writer(machine, times)
        scheduler.start("writer", writer, writer.heir)

    if rng.random() < 0.1:
        for _ in range(3):
            scheduler.start("reader", reader(another(), 3))
            scheduler.start("repacker", repacker(another(), 4, (0,)))
        return
    write(veteran, 2)
    if rng.random() < 0.2:
        begin_twins(scheduler, another)
    for _ in range(rng.randint(0, 1)):
        write(another(), 2)
    if rng.random() < 0.85:
        scheduler.start("repacker", repacker(another(), 2))
    others = [(deleter, 2), (collector, 3), (collector, 2), (repacker, 2), (reader, 2), (annotator, 2)]
    for act, times in rng.sample(others, rng.randint(1, 4)):
        scheduler.start(act.__name__, act(another(), times))


def begin_twins(scheduler: Scheduler, another) -> None:
    """Two machines make one version; most of the time two different ones."""
    rng, world = scheduler.rng, scheduler.world
    version_id = rng.randbytes(16).hex()
    plans = [{key: rng.choice(CONTENTS) for key in KEYS[:2]} for _ in range(2)]
    world.twins[version_id] = [{key: hash32(content) for key, content in plan.items()} for plan in plans]
    for plan in plans:
        twin = Twin(another(), version_id, plan)
        scheduler.start("twin", twin, twin.heir)


def outcome(seed: int) -> tuple[int, str | None, dict[str, int]]:
    """A seed, what went wrong in its schedule, and what happened in it."""
    try:
        return seed, None, play(seed).happened
    except Violation as broken:
        return seed, str(broken), {}
    except Exception:  # noqa: BLE001  (an error that nothing declares breaks the schedule)
        return seed, traceback.format_exc(), {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=int, default=1_000, help="schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    started = time.perf_counter()
    happened: Counter[str] = Counter()
    bad = []
    seeds = range(arguments.first, arguments.first + arguments.run)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for seed, problem, counts in pool.map(outcome, seeds, chunksize=50):
            happened.update(counts.keys())
            if problem is not None:
                bad.append((seed, problem))
                sys.stdout.write(f"seed {seed}: {problem}\n")
                sys.stdout.flush()
    took = time.perf_counter() - started
    sys.stdout.write(f"{len(bad)} violations in {arguments.run:,} schedules, {took:.0f} s\n")
    for what, count in happened.most_common():
        sys.stdout.write(f"{100 * count / arguments.run:6.2f} % of the schedules: {what}\n")


if __name__ == "__main__":
    main()

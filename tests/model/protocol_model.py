"""Schedules of the commit, gc and repack protocol: a seed is a schedule, and either it holds or says what broke.

`protocol_rules.py` lists the rules, `protocol_actors.py` follows them, `protocol_world.py` is the store, the
log, and the scheduler that works against everyone. Run this file with `--report N` for a table of how soon
each rule, switched off, is caught.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from protocol_actors import (
    Draft,
    Item,
    Machine,
    deleter,
    gc,
    new_draft,
    reader,
    repack,
    repeat,
    writer,
)
from protocol_rules import COST_ONLY, RULES, Rules, story
from protocol_world import ObjectMissing, Scheduler, Steps, Violation, World

ALL_ON = Rules()


def quietly(world: World, steps: Steps) -> None:
    """Run one actor alone, without a fault."""
    reply = None
    try:
        while True:
            reply = world.apply(steps.send(reply))
    except StopIteration:
        pass


def history(world: World) -> Machine:
    """What was there before: versions, deleted ones, a gc, a repack, as one machine did it."""
    m = Machine(world)
    quietly(world, writer(m, [new_draft(world)]))
    for _ in range(world.rng.randint(1, 5)):
        act = world.rng.choice((writer, writer, deleter, gc, repack))
        quietly(world, writer(m, [new_draft(world)]) if act is writer else act(m, 1))
    return m


def start_writer(scheduler: Scheduler, m: Machine, drafts: list[Draft]) -> None:
    def heir() -> Steps | None:
        unfinished = [d for d in drafts if d.sealed and not d.done]
        return repeat(m, unfinished[0]) if unfinished else None

    scheduler.start(writer(m, drafts), heir)


def cast(world: World, scheduler: Scheduler, veteran: Machine) -> None:
    """Draw the actors of one schedule."""
    rng = world.rng
    mood = rng.choice(("writing", "writing", "mixed", "upkeep"))
    others = [(deleter, 2), (gc, 3), (gc, 2), (repack, 2), (repack, 2), (reader, 2), (reader, 2)]
    if mood == "upkeep":
        others = [(reader, 3)] * 3 + [(repack, 4)] * 3 + [(gc, 12)] * 3
    else:
        start_writer(scheduler, veteran, [new_draft(world) for _ in range(2)])
    if mood == "writing":
        others = rng.sample(others, 4)
        for _ in range(rng.randint(1, 2)):
            start_writer(scheduler, Machine(world), [new_draft(world) for _ in range(2)])
        if rng.random() < 0.3:  # a step that runs twice, with one commit id
            d, plans = new_draft(world), (((0, 1), (2, 3)), ((0, 1), (4, 5)))
            for _ in range(2):
                twin = replace(d, plan=rng.choice(plans), root=Item(0), packs=[], held=set())
                start_writer(scheduler, Machine(world), [twin])
    for act, times in others:
        scheduler.start(act(Machine(world), times))


def play(seed: int, rules: Rules = ALL_ON) -> World:
    """Play one schedule to its end.

    Raises:
        Violation: an invariant does not hold.
        ObjectMissing: a live version could not be read.
    """
    world = World(random.Random(seed), rules)
    veteran = history(world)
    scheduler = Scheduler(world)
    cast(world, scheduler, veteran)
    scheduler.run()
    quietly(world, gc(Machine(world), 1))
    world.check_end()
    return world


def violation_of(seed: int, rules: Rules = ALL_ON) -> str | None:
    """What goes wrong in one schedule, or None."""
    try:
        play(seed, rules)
    except (Violation, ObjectMissing) as broken:
        return str(broken)
    return None


def caught_after(rule: str, limit: int, first_seed: int = 0) -> int | None:
    """How many schedules it takes to catch the rule's absence."""
    rules = replace(ALL_ON, **{rule: False})
    return next((i + 1 for i in range(limit) if violation_of(first_seed + i, rules)), None)


def report(count: int) -> Iterator[str]:
    """A Markdown table: what each rule prevents, and in how many of `count` schedules its absence shows."""
    yield f"| rule | schedule it prevents | first caught | caught, of {count:,} |\n|---|---|---|---|\n"
    for rule in RULES + COST_ONLY:
        rules = replace(ALL_ON, **{rule: False})
        caught = [i + 1 for i in range(count) if violation_of(i, rules)]
        first = f"{caught[0]:,}" if caught else "never"
        yield f"| `{rule}` | {story(rule)} | {first} | {len(caught):,} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=int, metavar="N", help="schedules for each rule switched off")
    parser.add_argument("--run", type=int, metavar="N", default=1_000, help="schedules with all rules on")
    arguments = parser.parse_args()
    started = time.perf_counter()
    bad = [(seed, why) for seed in range(arguments.run) if (why := violation_of(seed))]
    took = time.perf_counter() - started
    sys.stdout.write(f"all rules on: {len(bad)} violations in {arguments.run:,} schedules, {took:.1f} s {bad[:5]}\n")
    for row in report(arguments.report) if arguments.report else ():
        sys.stdout.write(row)


if __name__ == "__main__":
    main()

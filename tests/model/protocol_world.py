"""The world of the model: entries and their fold, the store, and the scheduler that is everyone's enemy.

There is no clock. Each store operation is one step of the scheduler, which decides who moves next and what
becomes of the request: applied; lost; applied with the reply lost; applied long after its sender gave up.
Actors are killed at any step and paused without bound. The world checks the invariants as the log grows.
"""

import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from protocol_rules import Rules

Place = tuple[int, int]  # (pack name, frame number)
Frame = tuple[
    str, Any
]  # ("data", chunk) | ("node", places of its children) | ("list", what an entry was too short for)
Steps = Generator[tuple[Any, ...], Any, Any]  # yields one store operation a step, is sent its reply
DEPTH_OF_DATA = 2  # root node 0, leaf node 1, data 2
DONE, EXISTS, UNKNOWN = "done", "exists", "unknown"


class Ending(Exception):
    """A way for an actor's work to end other than well."""


class Violation(Ending):
    """An invariant of the protocol does not hold."""


class Declared(Ending):
    """An outcome that the protocol declares; the actor's job ends, nothing acknowledged is lost."""


class CommitOutcomeUnknown(Declared): ...


class BodyConflict(Declared): ...


class ChunksLost(Declared): ...


class VersionDeleted(Declared): ...


class ObjectMissing(Ending):
    """A live version cannot be read. No actor may ever end with it."""


# ---- the log ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    kind: str  # version | delete | condemned | repack | hold | release
    commit: int
    subject: int = 0  # the version, or the draft of a hold
    root: Place = (0, 0)
    content: tuple[tuple[int, ...], ...] = ()  # what the version's content digest pins
    packs: frozenset[int] = frozenset()  # condemned, or held
    rows: tuple[tuple[Place, Place], ...] = ()  # repack: old place -> new place; condemned: rows to drop
    list_at: Place | None = None  # the pack frame of a list too long for the entry
    forgets: frozenset[int] = frozenset()  # only with condemned_is_never_forgotten off


@dataclass(frozen=True, slots=True)
class State:
    """The fold of the entries before `slot`, which is also the next slot to try. Never changed in place."""

    slot: int = 0
    live: dict[int, Entry] = field(default_factory=dict)
    condemned: frozenset[int] = frozenset()
    rows: dict[Place, Place] = field(default_factory=dict)
    holds: dict[int, frozenset[int]] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()  # drafts whose hold a release has ended
    lists: frozenset[Place] = frozenset()
    last_condemned: int = 0  # slots before which the last entry of each kind stands
    last_repack: int = 0

    @property
    def held(self) -> frozenset[int]:
        return frozenset().union(*self.holds.values())

    def resolve(self, place: Place) -> Place | None:
        """Where the frame lies now, in one step; None when it is condemned and no row moves it."""
        if place[0] not in self.condemned:
            return place
        to = self.rows.get(place)
        return to if to is not None and to[0] not in self.condemned else None


def fold(s: State, e: Entry, rules: Rules) -> State:
    slot = s.slot + 1
    if e.kind == "version":
        holds = {k: v for k, v in s.holds.items() if k != e.subject}
        return replace(s, slot=slot, live={**s.live, e.subject: e}, holds=holds)
    if e.kind == "delete":
        return replace(s, slot=slot, live={k: v for k, v in s.live.items() if k != e.subject})
    if e.kind == "hold":
        held = s.holds.get(e.subject, frozenset()) | e.packs
        return replace(s, slot=slot, holds={**s.holds, e.subject: held})
    if e.kind == "release":
        holds = {k: v for k, v in s.holds.items() if k != e.subject}
        return replace(s, slot=slot, holds=holds, dropped=s.dropped | {e.subject})
    condemned = (s.condemned - e.forgets) | e.packs
    lists = s.lists | {e.list_at} if e.list_at else s.lists
    if e.kind == "condemned":
        gone = {old for old, _ in e.rows}
        rows = {old: new for old, new in s.rows.items() if old not in gone}
        return replace(s, slot=slot, condemned=condemned, rows=rows, lists=lists, last_condemned=slot)
    moved = dict(e.rows)
    if rules.rows_merge_to_one_step:
        rows = {old: moved.get(new, new) for old, new in s.rows.items()} | moved
    else:
        rows = {**s.rows, **moved}
    return replace(s, slot=slot, condemned=condemned, rows=rows, lists=lists, last_repack=slot)


# ---- the store ----------------------------------------------------------------------------------------------


class World:
    """One store, with a perfect memory of all that was ever put, against which every append is checked."""

    def __init__(self, rng: random.Random, rules: Rules) -> None:
        self.rng, self.rules = rng, rules
        self.log: list[Entry] = []
        self.folds = [State()]
        self.packs: dict[int, list[Frame]] = {}
        self.ever: dict[int, list[Frame]] = {}
        self.acknowledged: list[Entry] = []
        self.needed: tuple[int, set[int]] = (0, set())  # (log length, packs that live versions need then)
        self.outcomes: list[str] = []  # declared outcomes in which jobs ended
        self.last_id = 0

    @property
    def state(self) -> State:
        return self.folds[-1]

    def fresh(self) -> int:
        """A random 128-bit name; here: one never given before."""
        self.last_id += 1
        return self.last_id

    def apply(self, op: tuple[Any, ...]) -> Any:
        return getattr(self, "do_" + op[0])(*op[1:])

    def do_get(self, slot: int) -> Entry | None:
        return self.log[slot] if slot < len(self.log) else None

    def do_list(self) -> frozenset[int]:
        return frozenset(self.packs)

    def do_read(self, pack: int) -> list[Frame] | None:
        return self.packs.get(pack)

    def do_put(self, pack: int, frames: list[Frame]) -> str:
        self.packs[pack] = self.ever[pack] = frames
        return DONE

    def do_delete(self, pack: int) -> str:
        if pack in self.packs and pack in self.needed_packs():
            raise Violation(f"pack {pack} was deleted under a live version")
        self.packs.pop(pack, None)
        return DONE

    def do_create(self, slot: int, entry: Entry) -> str:
        if slot < len(self.log):
            if not self.rules.create_is_if_absent and self.log[slot] != entry:
                raise Violation(f"the entry in slot {slot} was replaced")
            return EXISTS
        if slot > len(self.log):
            raise Violation(f"slot {slot} was written while {len(self.log)} is empty")
        self.log.append(entry)
        self.folds.append(fold(self.state, entry, self.rules))
        self.check_append(entry)
        return DONE

    # ---- invariants -----------------------------------------------------------------------------------------

    def check_append(self, entry: Entry) -> None:
        if any(e.commit == entry.commit for e in self.log[:-1]):
            raise Violation(f"commit {entry.commit} stands twice")
        if entry.kind == "version":
            if any(e.kind == "version" and e.subject == entry.subject for e in self.log[:-1]):
                raise Violation(f"draft {entry.subject} became two versions")
            self.check_readable(entry)
        elif entry.kind in ("condemned", "repack"):
            for version in self.state.live.values():
                self.check_readable(version)
            if any(place[0] in self.state.condemned for place in self.state.lists):
                raise Violation("a list that the fold needs was condemned")

    def frames_of(self, version: Entry) -> Iterator[tuple[Place, Frame]]:
        """Every frame of a version in path order, at the place where the fold finds it."""
        todo = [(version.root, 0)]
        while todo:
            named, depth = todo.pop()
            here = self.state.resolve(named)
            if here is None:
                raise Violation(f"version {version.subject} names a condemned frame {named}")
            frames = self.ever.get(here[0], [])
            frame = frames[here[1]] if here[1] < len(frames) else ("missing", ())
            if frame[0] == "node" and depth < DEPTH_OF_DATA:
                todo.extend((child, depth + 1) for child in reversed(frame[1]))
            yield here, frame

    def check_readable(self, version: Entry) -> None:
        chunks = []
        for here, frame in self.frames_of(version):
            if here[0] not in self.packs:
                raise Violation(f"version {version.subject} needs pack {here[0]}, which is not there")
            if frame[0] == "data":
                chunks.append(frame[1])
        if chunks != [chunk for leaf in version.content for chunk in leaf]:
            raise Violation(f"version {version.subject} has wrong bytes")

    def needed_packs(self) -> set[int]:
        if self.needed[0] != len(self.log):
            packs = {here[0] for v in self.state.live.values() for here, _ in self.frames_of(v)}
            self.needed = (len(self.log), packs)
        return self.needed[1]

    def check_end(self) -> None:
        """After a last gc that nothing disturbed."""
        wanted = self.needed_packs() | self.state.held | {pack for pack, _ in self.state.lists}
        if leaked := self.packs.keys() - wanted:
            raise Violation(f"packs {sorted(leaked)} are never collected")
        for version in self.state.live.values():
            self.check_readable(version)
        if any(place[0] not in self.packs for place in self.state.lists):
            raise Violation("a list that the fold needs is gone")
        for entry in self.acknowledged:
            if not any(e.commit == entry.commit and e.content == entry.content for e in self.log):
                raise Violation(f"acknowledged commit {entry.commit} is not in the log")


# ---- the scheduler ------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Actor:
    steps: Steps
    life: int = -1  # steps until it is killed; negative: never
    wakes: int = 0  # it is paused until this step
    if_killed: Any = None  # () -> Steps | None: who goes on after a kill, from what is left on disk
    op: Any = None


class Scheduler:
    """Interleaves actors; every choice comes from one seeded generator, so a seed is a schedule."""

    MAX_STEPS = 20_000

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.late: list[tuple[Any, ...]] = []  # requests under way whose sender has given up on them
        self.now = 0
        self.stick = self.rng.choice((0.0, 0.5, 0.9, 0.97))  # how long one actor runs by itself
        self.faults = self.rng.choice((0.0, 0.1, 0.3))

    def start(self, steps: Steps, if_killed: Any = None) -> None:
        life = self.rng.randint(1, 60) if self.rng.random() < 0.15 else -1
        actor = Actor(steps, life, if_killed=if_killed)
        self.actors.append(actor)
        self.resume(actor, None)

    def resume(self, actor: Actor, reply: Any) -> None:
        try:
            actor.op = actor.steps.send(reply)
        except StopIteration:
            self.actors.remove(actor)
        except ObjectMissing as error:
            raise Violation(f"a live version could not be read: {error}") from error

    def pick(self) -> Actor:
        if self.current in self.actors and self.rng.random() < self.stick:
            return self.current
        if self.current and self.rng.random() < 0.1:
            self.current.wakes = self.now + int(10 ** self.rng.uniform(0.5, 3))
        awake = [a for a in self.actors if a.wakes <= self.now] or self.actors
        self.current = self.rng.choice(awake)
        return self.current

    def deliver(self, op: tuple[Any, ...]) -> Any:
        """Apply the request, unless it is lost or late, and bring back the reply, unless that is lost."""
        if op[0] in ("create", "put", "delete") and self.rng.random() < self.faults:
            fate = self.rng.randrange(3)
            if fate == 0:
                self.world.apply(op)
            elif fate == 1:
                self.late.append(op)
            return UNKNOWN
        return self.world.apply(op)

    def step(self) -> None:
        self.now += 1
        if self.late and self.rng.random() < 0.1:
            self.world.apply(self.late.pop(self.rng.randrange(len(self.late))))
        actor = self.pick()
        actor.life -= 1
        if actor.life == 0:
            self.kill(actor)
        else:
            self.resume(actor, self.deliver(actor.op))

    def kill(self, actor: Actor) -> None:
        self.actors.remove(actor)
        actor.steps.close()
        if actor.op[0] in ("create", "put", "delete") and self.rng.random() < 0.5:
            self.late.append(actor.op)
        heir = actor.if_killed() if actor.if_killed else None
        if heir is not None:
            self.start(heir)

    def run(self) -> None:
        while self.actors:
            self.step()
            if self.now > self.MAX_STEPS:
                raise Violation("no end: somebody goes round in circles")
        self.rng.shuffle(self.late)
        while self.late:
            self.world.apply(self.late.pop())

"""A deterministic scheduler: whatever the real code asks of a storage is one step, and the scheduler decides.

An actor is real code in a greenlet of its own. Each verb of its backend hands a request to the scheduler and waits. The
scheduler decides who moves next and what becomes of the request: carried out; lost; carried out with the reply lost;
carried out long after its sender gave up. Actors are killed at any step and paused without bound. Every choice comes
from one seeded generator, so a seed is a schedule.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from greenlet import greenlet

from dataset_store.errors import OutcomeUnknown, StorageFailed
from dataset_store.storage.backend import CollectedWriter, Traits

MAX_STEPS = 20_000
WRITES = ("put", "create", "delete_many")


class Violation(AssertionError):
    """An invariant of the protocol does not hold."""


class Killed(BaseException):
    """The process ends here; what its handlers still try to do is killed as well."""


class _Lost:
    """The reply that never comes."""


LOST = _Lost()


@dataclass(eq=False)
class Actor:
    """Real code under way: its greenlet, the request that it waits with, and how long it lives."""

    name: str
    run: greenlet
    life: int
    heir: Callable[[], object] | None
    request: tuple = ()
    wakes: int = 0
    is_killed: bool = False


class ScheduledBackend:
    """The port, each verb one step of the scheduler. Outside of a schedule requests are carried out at once."""

    def __init__(self, scheduler):
        self.scheduler = scheduler

    @property
    def traits(self):
        return Traits()

    def describe(self):
        return "schedule://"

    def _ask(self, *request):
        return self.scheduler.ask(request)

    def get_many(self, keys):
        return self._ask("get_many", tuple(keys))

    def get_ranges(self, ranges):
        return self._ask("get_ranges", tuple(ranges))

    def list(self, prefix):
        return iter(self._ask("list", prefix))

    def put(self, key, buffers):
        if self._ask("put", key, b"".join(buffers)) is LOST:
            raise StorageFailed(f"The reply to the put of {key} was lost.")

    def open_writer(self, key):
        return CollectedWriter(self, key)

    def create(self, key, buffers):
        made = self._ask("create", key, b"".join(buffers))
        if made is LOST:
            raise OutcomeUnknown(f"The reply to the create of {key} was lost.")
        return made

    def delete_many(self, keys):
        if self._ask("delete_many", tuple(keys)) is LOST:
            raise StorageFailed("The reply to a delete was lost.")


class Scheduler:
    """Interleaves actors over a world, which carries requests out and checks the invariants."""

    def __init__(self, rng: random.Random, world) -> None:
        self.rng, self.world = rng, world
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.late: list[tuple] = []  # requests under way whose senders have given up on them
        self.steps = 0
        self.stick = rng.choice((0.0, 0.5, 0.9, 0.97))  # how long one actor runs by itself
        self.faults = rng.choice((0.0, 0.05, 0.2))
        self.main = greenlet.getcurrent()

    # --- what actors call ---

    def ask(self, request):
        actor = next((one for one in self.actors if one.run is greenlet.getcurrent()), None)
        if actor is None:
            return self.world.carry_out(request)
        if actor.is_killed:
            raise Killed
        actor.request = request
        reply = self.main.switch()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def start(self, name: str, work: Callable[[], object], heir: Callable[[], object] | None = None) -> None:
        """Begin an actor, which runs to its first request; `heir` gives the work that goes on after a kill."""
        life = self.rng.randint(1, 60) if self.rng.random() < 0.15 else -1
        actor = Actor(name, greenlet(work), life, heir)
        self.actors.append(actor)
        self._resume(actor)

    # --- the schedule ---

    def run(self) -> None:
        """Until every actor is done and every late request has arrived."""
        while self.actors:
            self._step()
            if self.steps > MAX_STEPS:
                raise Violation(f"no end: {[actor.name for actor in self.actors]} go round in circles")
        self.rng.shuffle(self.late)
        while self.late:
            self._arrive(self.late.pop())

    def _step(self) -> None:
        self.steps += 1
        if self.late and self.rng.random() < 0.1:
            self._arrive(self.late.pop(self.rng.randrange(len(self.late))))
        actor = self._pick()
        actor.life -= 1
        if actor.life == 0:
            self._kill(actor)
        else:
            self._resume(actor, self._deliver(actor.request))

    def _pick(self) -> Actor:
        if self.current in self.actors and self.rng.random() < self.stick:
            return self.current
        if self.current and self.rng.random() < 0.1:
            self.current.wakes = self.steps + int(10 ** self.rng.uniform(0.5, 3))
        awake = [actor for actor in self.actors if actor.wakes <= self.steps] or self.actors
        self.current = self.rng.choice(awake)
        return self.current

    def _deliver(self, request):
        """Carry the request out, unless it is lost or late, and bring back the reply, unless that is lost."""
        if request[0] in WRITES and self.rng.random() < self.faults:
            fate = self.rng.randrange(3)
            if fate == 0:
                self._arrive(request)
            elif fate == 1:
                self.late.append(request)
            return LOST
        try:
            return self.world.carry_out(request)
        except Violation:
            raise
        except Exception as error:  # noqa: BLE001  (raised where the actor waits)
            return error

    def _arrive(self, request) -> None:
        self.world.carry_out(request)

    def _resume(self, actor: Actor, reply=None) -> None:
        """Let an actor go on to its next request, or to its end."""
        with suppress(Killed):
            actor.run.switch(reply) if actor.request else actor.run.switch()
        if actor.run.dead:
            self.actors.remove(actor)

    def _kill(self, actor: Actor) -> None:
        actor.is_killed = True
        if actor.request[0] in WRITES and self.rng.random() < 0.5:
            self.late.append(actor.request)
        with suppress(Killed):
            actor.run.throw(Killed)
        self.actors.remove(actor)
        work = actor.heir() if actor.heir else None
        if work is not None:
            self.start(actor.name, work)

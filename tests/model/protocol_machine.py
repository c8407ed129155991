"""What one machine knows of the store, and how it reads the tail, decides a slot, uploads, and finds frames."""

from protocol_world import (
    DEPTH_OF_DATA,
    DONE,
    EXISTS,
    UNKNOWN,
    BodyConflict,
    CommitOutcomeUnknown,
    Declared,
    Ending,
    Entry,
    Frame,
    ObjectMissing,
    Place,
    State,
    Steps,
    VersionDeleted,
    World,
)

CHUNKS = 6  # different chunks in the world; few, so that drafts find each other's


class TailMoved(Ending):
    """A pack that the fold names is gone: the fold is old, or the store is broken."""


class Machine:
    """The entries read so far, their fold, and the packs whose footers and nodes were read. Outlives actors."""

    def __init__(self, world: World) -> None:
        self.world, self.rules, self.rng = world, world.rules, world.rng
        self.entries: list[Entry] = []
        self.state = State()
        self.packs: dict[int, list[Frame]] = {}

    def tail(self) -> Steps:
        """Read forward from the last slot known until a slot is empty."""
        while (entry := (yield ("get", self.state.slot))) is not None:
            self.entries.append(entry)
            self.state = self.world.folds[self.state.slot + 1]  # what fold(self.state, entry) gives
        return self.state

    def settle(self, slot: int, body: Entry) -> Steps:
        """Decide a slot: True if the body stands there, False if another's entry does."""
        for _ in range(self.rng.randint(1, 3)):  # then its patience ends
            reply = yield ("create", slot, body)
            if reply == DONE or (reply == UNKNOWN and not self.rules.unknown_is_read_back):
                return True
            if reply == EXISTS and not self.rules.own_id_is_looked_for:
                return False
            if reply == UNKNOWN and not self.rules.slot_is_decided_before_the_next:
                slot += 1
            elif (found := (yield ("get", slot))) is not None:
                return self.is_own(found, body) or not self.rules.read_back_compares_the_id
        raise CommitOutcomeUnknown

    def is_own(self, found: Entry, body: Entry) -> bool:
        if found.commit != body.commit:
            return False
        if found.content != body.content and self.rules.whole_body_is_compared:
            raise BodyConflict
        return True

    def attempt(self, job: Steps) -> Steps:
        """Do a job to its end; the declared outcome that ended it early, or None."""
        try:
            yield from job
        except Declared as outcome:
            self.world.outcomes.append(type(outcome).__name__)
            return outcome

    def append(self, body: Entry) -> Steps:
        """An entry that depends on no state: at whichever slot is free."""
        while not (yield from self.settle((yield from self.tail()).slot, body)):
            pass

    def put(self, frames: list[Frame], name: int = 0) -> Steps:
        """Upload a pack under a fresh name, again and again until the store says it is there."""
        name = name or self.world.fresh()
        while (yield ("put", name, frames)) != DONE and self.rules.pack_put_is_acknowledged:
            pass
        self.packs[name] = frames
        return name

    def known(self, pack: int) -> Steps:
        """The frames of a pack; read once, as packs never change."""
        if pack not in self.packs:
            frames = yield ("read", pack)
            if frames is None:
                raise TailMoved
            self.packs[pack] = frames
        return self.packs[pack]

    def read_footers(self) -> Steps:
        """Learn of up to two packs that lie in the store, whether an entry names them or not."""
        unread = sorted((yield ("list",)) - self.packs.keys())
        for pack in self.rng.sample(unread, min(2, len(unread))):
            frames = yield ("read", pack)
            if frames is not None:
                self.packs[pack] = frames

    def hit(self, chunk: int) -> Place | None:
        """A frame with this chunk that the fold does not condemn, or the place it was moved to."""
        named = [(pack, i) for pack, frames in self.packs.items() for i, f in enumerate(frames) if f == ("data", chunk)]
        if self.rules.hits_are_checked_at_s:
            named = [here for place in named if (here := self.state.resolve(place))]
        return self.rng.choice(named) if named and self.rng.random() < 0.9 else None

    def fetch(self, place: Place, version: int) -> Steps:
        """Read one frame of a version, as a reader does."""
        rules, tries = self.rules, 0
        while True:
            here = self.state.resolve(place) if rules.reader_translates else place
            frames = (yield ("read", here[0])) if here else None
            if here and frames is not None:
                return frames[here[1]]
            tries += 1
            before = self.state.slot
            if rules.reader_rereads_the_tail:
                yield from self.tail()
            if version not in self.state.live:
                raise VersionDeleted
            if self.state.slot == before or (tries == 2 and not rules.reader_retries_while_the_tail_moves):
                if version in self.world.state.live:
                    raise ObjectMissing(f"frame {place} of version {version}")
                raise VersionDeleted

    def reach(self) -> Steps:
        """The tail's fold, the places that its live nodes name, and the frames these are now."""
        while True:
            state = yield from self.tail()
            try:
                return state, *(yield from self.reach_at(state))
            except TailMoved:
                if (yield from self.tail()).slot == state.slot:
                    raise ObjectMissing("found by gc or repack") from None

    def reach_at(self, state: State) -> Steps:
        named: set[Place] = set()
        frames: set[Place] = set()
        todo = [(version.root, 0) for version in state.live.values()]
        while todo:
            place, depth = todo.pop()
            if place in named:
                continue
            here = state.resolve(place)
            if here is None:
                raise TailMoved
            named.add(place)
            frames.add(here if self.rules.live_follows_relocation else place)
            if depth < DEPTH_OF_DATA:
                pack = yield from self.known(here[0])
                todo.extend((child, depth + 1) for child in pack[here[1]][1])
        return named, frames

"""The actors of the protocol: writers, version deleters, gc, repack, readers, each a generator of store steps.

An actor yields one store operation, is sent the reply (or UNKNOWN), and may be killed or paused in between.
What outlives a process is in a `Machine` (index and log read so far) and in a `Draft` (its journal).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from protocol_machine import CHUNKS, Machine, TailMoved
from protocol_world import (
    DEPTH_OF_DATA,
    ChunksLost,
    CommitOutcomeUnknown,
    Entry,
    Frame,
    ObjectMissing,
    Place,
    State,
    Steps,
    Violation,
    World,
)

# ---- drafts -------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Item:
    """One frame of a draft: a chunk, or a node and its children. No place: it has yet to be sent."""

    depth: int
    place: Place | None = None
    chunk: int | None = None  # known where this draft read it from a source file
    kids: "list[Item] | None" = None  # None in a node: not visited
    written: tuple[Place, ...] = ()  # the children as the node at `place` names them
    whole_of: int | None = None  # the version this subtree was taken from unvisited


@dataclass(slots=True, eq=False)
class Draft:
    """The journal of a draft: it outlives the process that makes it."""

    commit: int
    version: int
    plan: tuple[tuple[int, ...], ...] = ()  # contents, where they are given
    edited: frozenset[int] = frozenset()  # chunks whose source file changes after it was hashed
    content: tuple[tuple[int, ...], ...] = ()
    root: Item = field(default_factory=lambda: Item(0))
    s: int = 0  # the lowest slot at which any hit was checked
    packs: list[int] = field(default_factory=list)  # own packs, acknowledged
    held: set[int] = field(default_factory=set)
    lost_packs: bool = False
    sealed: bool = False  # complete, up to its commit
    done: bool = False


def new_draft(world: World) -> Draft:
    edited = frozenset(c for c in range(CHUNKS) if world.rng.random() < 0.3)
    return Draft(commit=world.fresh(), version=world.fresh(), edited=edited)


def new_leaf(rng: random.Random, chunks: tuple[int, ...] = ()) -> Item:
    chunks = chunks or (rng.randrange(CHUNKS), rng.randrange(CHUNKS))
    return Item(1, kids=[Item(DEPTH_OF_DATA, chunk=chunk) for chunk in chunks])


def begin(m: Machine, d: Draft) -> Steps:
    """Take what a live parent has, take hits, and send part of the rest, with time passing in between."""
    state = yield from m.tail()
    d.s = state.slot
    leaves, contents = [new_leaf(m.rng, leaf) for leaf in d.plan], list(d.plan)
    if state.live and not d.plan and m.rng.random() < 0.8:
        parent = state.live[m.rng.choice(sorted(state.live))]
        for place, leaf in zip((yield from m.fetch(parent.root, parent.subject))[1], parent.content, strict=True):
            if m.rng.random() < 0.5:
                leaves.append(Item(1, place, whole_of=parent.subject))
                contents.append(leaf)
    while len(leaves) < 2:
        leaves.append(new_leaf(m.rng))
        contents.append(tuple(kid.chunk for kid in leaves[-1].kids))
    for leaf in leaves:
        yield from m.read_footers()
        yield from m.tail()
        if not m.rules.s_stays_the_lowest:
            d.s = m.state.slot
        for kid in leaf.kids or ():
            kid.place = m.hit(kid.chunk)
        if m.rng.random() < 0.3:
            yield from send(m, d, [kid for kid in leaf.kids or () if not kid.place])
    d.root.kids, d.content, d.sealed = leaves, tuple(contents), True


def unsent(item: Item) -> Iterator[Item]:
    for kid in item.kids or ():
        yield from unsent(kid)
    if item.place is None:
        yield item


def send(m: Machine, d: Draft, items: list[Item], *, upload: bool = True) -> Steps:
    """Upload what has no place yet, children before parents, as one pack; held, once the draft lost packs."""
    name = m.world.fresh()
    if d.lost_packs and d.packs and not m.rules.pack_names_are_never_reused:
        name = next((pack for pack in d.packs if pack in m.state.condemned), name)
    places = {item: (name, i) for i, item in enumerate(items)}
    frames: list[Frame] = [("data", item.chunk) for item in items if item.depth == DEPTH_OF_DATA]
    frames += [
        ("node", tuple(places.get(kid) or kid.place for kid in item.kids or ())) for item in items[len(frames) :]
    ]
    if m.rules.hold_names_packs_before_upload:
        yield from hold(m, d, name)
    if upload:
        yield from m.put(frames, name)
    if not m.rules.hold_names_packs_before_upload:
        yield from hold(m, d, name)
    d.packs.append(name)
    for item, frame in zip(items, frames, strict=True):
        item.place = places[item]
        item.written = frame[1] if frame[0] == "node" else ()
    return name, frames


def hold(m: Machine, d: Draft, name: int) -> Steps:
    """For progress only: a draft that once lost packs says which names it is about to use."""
    if d.lost_packs:
        yield from m.append(Entry("hold", m.world.fresh(), d.version, packs=frozenset((name,))))
        d.held.add(name)


# ---- the commit ---------------------------------------------------------------------------------------------


def publish(m: Machine, d: Draft) -> Steps:
    """Re-check against the tail, send what is missing, try the slot; on losing it start over."""
    rules, checked, search_from = m.rules, False, m.state.slot
    if rules.repeat_searches_the_whole_fold:
        search_from = 0
    while True:
        state = yield from m.tail()
        body = Entry("version", d.commit, d.version, d.root.place or (0, 0), d.content)
        found = next((e for e in m.entries[search_from:] if e.commit == d.commit), None)
        if found and rules.own_id_is_looked_for and m.is_own(found, body):
            break
        if not checked or rules.losing_a_slot_rechecks:
            if not (yield from recheck(m, d, state)):
                continue
            checked = True
        to_send = sorted(unsent(d.root), key=lambda item: -item.depth)
        if to_send and rules.packs_before_entry:
            yield from send(m, d, to_send)
        elif to_send:
            name, frames = yield from send(m, d, to_send, upload=False)
            won = yield from m.settle(state.slot, replace(body, root=d.root.place))
            yield from m.put(frames, name)
            if won:
                break
        elif (yield from m.settle(state.slot, body)):
            break
    m.world.acknowledged.append(body)
    d.done = True


def recheck(m: Machine, d: Draft, state: State) -> Steps:
    """Make the draft good at `state`, its new S. False: a pack vanished meanwhile, so the tail has moved."""
    fence = max(
        state.last_condemned if m.rules.condemned_after_s_is_rechecked else 0,
        state.last_repack if m.rules.repack_after_s_is_rechecked else 0,
    )
    if d.held & state.condemned and d.version not in state.dropped and m.rules.pack_names_are_never_reused:
        raise Violation("a pack was condemned under a standing hold")
    if fence > d.s:
        try:
            yield from walk(m, d, d.root, state)
        except TailMoved:
            if (yield from m.tail()).slot == state.slot:
                raise ObjectMissing("found by a writer") from None
            return False
    d.s = state.slot
    return True


def walk(m: Machine, d: Draft, item: Item, state: State) -> Steps:
    """Rewrite places that were moved; take away the place of what must be sent again."""
    if item.whole_of in state.live or (item.whole_of and not m.rules.whole_subtree_needs_a_live_parent):
        return
    here = state.resolve(item.place) if item.place else None
    lost = item.place is not None and here is None
    d.lost_packs |= lost and item.place[0] in d.packs
    if lost and (item.kids is None):
        if not (yield from recover(m, d, item, state)):
            return
    elif item.kids is None and item.depth < DEPTH_OF_DATA:
        unfold(item, (yield from salvage(m, d, item, state)))
    for kid in item.kids or ():
        yield from walk(m, d, kid, state)
    if item.kids and tuple(kid.place for kid in item.kids) != item.written:
        here = None
    if here is None or m.rules.relocated_places_are_rewritten:
        item.place = here


def unfold(item: Item, node: Frame) -> None:
    item.written, item.whole_of = node[1], None
    item.kids = [Item(item.depth + 1, place) for place in node[1]]


def recover(m: Machine, d: Draft, item: Item, state: State) -> Steps:
    """Get back what a condemned frame held: from the source file, else from the pack while it exists."""
    if item.chunk is not None and item.chunk not in d.edited:
        return True
    if item.chunk is not None and not m.rules.source_stat_is_checked:
        item.chunk = -1 - item.chunk  # the bytes that the file has now
        return True
    try:
        frame = yield from salvage(m, d, item, state)
    except ChunksLost:
        if m.rules.lost_chunks_stop_the_commit:
            raise
        return False
    if item.depth == DEPTH_OF_DATA:
        item.chunk = frame[1]
    else:
        unfold(item, frame)
    return True


def salvage(m: Machine, d: Draft, item: Item, state: State) -> Steps:
    here = state.resolve(item.place)
    for place in (here, m.world.folds[d.s].resolve(item.place), item.place):
        frames = (yield ("read", place[0])) if place else None
        if frames is not None:
            return frames[place[1]]
        if here is not None:
            raise TailMoved
    raise ChunksLost


# ---- the actors ---------------------------------------------------------------------------------------------


def writer(m: Machine, drafts: list[Draft]) -> Steps:
    for d in drafts:
        outcome = yield from m.attempt(make(m, d))
        if isinstance(outcome, CommitOutcomeUnknown):
            yield from repeat(m, d)
        elif not d.done:
            yield from discard(m, d)


def make(m: Machine, d: Draft) -> Steps:
    yield from begin(m, d)
    if m.rng.random() < 0.85:  # else the user thinks better of it
        yield from publish(m, d)


def repeat(m: Machine, d: Draft) -> Steps:
    """The user, or the next process, commits again a draft whose outcome is unknown; or never comes back."""
    outcome: object = CommitOutcomeUnknown()
    while isinstance(outcome, CommitOutcomeUnknown) and m.rng.random() < 0.8:
        if not m.rules.unknown_draft_refuses_changes and m.rng.random() < 0.5:
            d.commit, d.root.place = m.world.fresh(), None
            d.root.kids, d.content = [new_leaf(m.rng, (0, 0)), *d.root.kids[1:]], ((0, 0), *d.content[1:])
        outcome = yield from m.attempt(publish(m, d))


def discard(m: Machine, d: Draft) -> Steps:
    """Forget a draft; its packs are gc's business."""
    d.sealed = False
    if not m.rules.only_gc_deletes:
        for pack in d.packs:
            yield ("delete", pack)
    if d.held:
        yield from release(m, d.version)


def release(m: Machine, draft: int) -> Steps:
    """End a hold: the draft's own wish, or `gc --drop-hold`."""
    yield from m.attempt(m.append(Entry("release", m.world.fresh(), draft)))


def deleter(m: Machine, times: int) -> Steps:
    for _ in range(times):
        state = yield from m.tail()
        if m.rng.random() < 0.3 and state.holds:
            yield from release(m, m.rng.choice(sorted(state.holds)))
        elif state.live:
            deletion = Entry("delete", m.world.fresh(), m.rng.choice(sorted(state.live)))
            yield from m.attempt(m.append(deletion))


def gc(m: Machine, times: int) -> Steps:
    for _ in range(times):
        yield from m.attempt(collect(m))


def repack(m: Machine, times: int) -> Steps:
    for _ in range(times):
        yield from m.attempt(move_packs(m))


def reader(m: Machine, times: int) -> Steps:
    """Read whole versions, slowly; only a version deleted meanwhile may fail."""
    for _ in range(times):
        state = yield from m.tail()
        if state.live:
            yield from m.attempt(read_version(m, state.live[m.rng.choice(sorted(state.live))]))


# ---- what gc, repack and readers do --------------------------------------------------------------------------


def collect(m: Machine) -> Steps:
    """One more committer: condemn what is dead just before its own slot; delete once that stands."""
    rules, body = m.rules, None
    while True:
        state, named, frames = yield from m.reach()
        listed = yield ("list",)
        if body is None or rules.gc_recomputes_after_losing:
            own = {body.list_at[0]} if body and body.list_at else set()
            old, body = body, condemnation(m, state, listed - own, named, frames)
            if not body.packs:
                break
            body = yield from with_list(m, old, body, again=rules.gc_writes_its_list_again)
        if not rules.gc_deletes_after_its_entry:
            yield from delete(body.packs)
        if (yield from m.settle(state.slot, body)):
            break
    state = yield from m.tail()
    yield from delete(listed & state.condemned if rules.gc_resumes_what_others_began else body.packs)


def with_list(m: Machine, old: Entry | None, body: Entry, *, again: bool) -> Steps:
    """A long list lies in a pack, uploaded before the entry: anew, if it has changed or was condemned."""
    if old and old.list_at:
        good = (old.packs, old.rows) == (body.packs, body.rows) and old.list_at[0] not in m.state.condemned
        if good or not again:
            return replace(body, list_at=old.list_at)
    if len(body.packs) + len(body.rows) < 3:
        return body
    return replace(body, list_at=((yield from m.put([("list", (body.packs, body.rows))])), 0))


def condemnation(m: Machine, state: State, listed: frozenset[int], named: set[Place], frames: set[Place]) -> Entry:
    """Dead: listed, and not live. It may drop rows that no live node names any more."""
    live = {pack for pack, _ in frames}
    if m.rules.live_includes_lists:
        live |= {pack for pack, _ in state.lists}
    if m.rules.gc_respects_holds:
        live |= state.held
    rows = tuple((old, new) for old, new in state.rows.items() if old not in named and m.rng.random() < 0.5)
    if not m.rules.rows_live_while_named:
        rows = tuple((old, new) for old, new in state.rows.items() if old[0] not in listed)
    forgets: frozenset[int] = frozenset()
    if not m.rules.condemned_is_never_forgotten:
        forgets = state.condemned - listed - {pack for pack, _ in state.rows}
    return Entry("condemned", m.world.fresh(), packs=listed - state.condemned - live, rows=rows, forgets=forgets)


def delete(packs: frozenset[int]) -> Steps:
    for pack in sorted(packs):
        yield ("delete", pack)


def move_packs(m: Machine) -> Steps:
    """Copy the live frames of one or two packs, condemn the packs and say where the frames are now."""
    rules, victims, moved, body = m.rules, None, {}, None
    while True:
        state, _, frames = yield from m.reach()
        if not rules.repack_leaves_list_packs:
            frames |= state.lists
        if victims is None:
            candidates = sorted({pack for pack, _ in frames} - state.held)
            victims = frozenset(m.rng.sample(candidates, min(m.rng.randint(1, 2), len(candidates))))
        victims -= state.condemned
        if rules.repack_copies_again:
            moved = {old: new for old, new in moved.items() if new[0] not in state.condemned}
        wanted = sorted(f for f in frames if f[0] in victims and f not in moved)
        if wanted and (not moved or rules.repack_adds_the_winners_frames):
            try:
                for pack in victims:
                    yield from m.known(pack)
            except TailMoved:
                continue
            name = yield from m.put([m.packs[pack][i] for pack, i in wanted])
            moved |= {old: (name, i) for i, old in enumerate(wanted)}
        rows = tuple((old, new) for old, new in moved.items() if old[0] in victims)
        old, body = body, Entry("repack", m.world.fresh(), packs=victims, rows=rows)
        body = yield from with_list(m, old, body, again=rules.repack_copies_again)
        if not victims or (yield from m.settle(state.slot, body)):
            return


def read_version(m: Machine, version: Entry) -> Steps:
    todo, chunks = [version.root], []
    while todo:
        kind, value = yield from m.fetch(todo.pop(), version.subject)
        if kind == "data":
            chunks.append(value)
        else:
            todo.extend(reversed(value))
    if chunks != [chunk for leaf in version.content for chunk in leaf]:
        raise Violation(f"a reader got wrong bytes of version {version.subject}")

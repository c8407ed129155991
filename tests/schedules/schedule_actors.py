"""The actors of a schedule. Each does what a user's process does, through the package's own functions."""

import math
import os
from functools import partial

import numpy as np
from schedule import Violation

from dataset_store.core.digest import VersionId, hash32
from dataset_store.core.entries import Changes, Entries, make_entries, overlay
from dataset_store.core.frames import FrameCodec
from dataset_store.core.log_entries import ArtifactEntry
from dataset_store.core.segments import segments_of
from dataset_store.core.tree import read_all
from dataset_store.dataset.annotations.metadata import piece_of, set_piece
from dataset_store.dataset.catalog import changing
from dataset_store.dataset.drafts.beginning import NewVersion, begin
from dataset_store.dataset.drafts.committing import finalize_draft
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.uploads.holding import discard_draft
from dataset_store.dataset.uploads.uploading import upload_draft
from dataset_store.errors import (
    ChunksLost,
    CommitOutcomeUnknown,
    Conflict,
    Corrupt,
    DatasetNotFound,
    FileChanged,
    StorageFailed,
    VersionDeleted,
)
from dataset_store.local.draft_records import Labels, Metadata, Opened, Output, Source
from dataset_store.local.drafts import Draft
from dataset_store.storage.collecting import collect, list_packs, put_blob
from dataset_store.storage.repacking import candidates, repack
from dataset_store.storage.trees import root_of

CONTENTS = [bytes([65 + number]) * size for number, size in enumerate((20, 40, 60, 90, 110))]
CONTENTS += [bytes(range(256))[:200] + b"x" * 300, bytes(range(255, -1, -1)) * 2]
KEYS = [b"d%d\0f%d" % (at // 3, at % 3) for at in range(6)]
PATIENCE = 4


class Writer:
    """Makes versions. What outlives its process is the draft's journal, and what it is to hold."""

    def __init__(self, machine, times):
        self.machine, self.times = machine, times
        self.rng, self.world = machine.rng, machine.world
        self.draft = None
        self.held = None  # what a twin makes; what others make is in the world

    def __call__(self):
        while self.times:
            self.times -= 1
            self.draft = None
            try:
                self._make()
            except DatasetNotFound:
                self.world.count("a parent was gone before the draft began")

    def heir(self):
        """The next process of this user: it goes on with the draft, or leaves it."""
        if self.rng.random() < 0.3:
            return None
        return self._go_on

    def _go_on(self):
        if self.draft is not None and os.path.exists(self.draft):
            draft = Draft.load(self.draft)
            if draft.opened.id in self.world.expected or (self.held and len(draft.changes)):
                self._finish(draft)
        self()

    def _make(self):
        workspace = self.machine.workspace
        live = [version.id for version in workspace.refresh().live_versions()]
        count = min(len(live), self.rng.choice((0, 1, 1, 1, 2)))
        chosen, squash = tuple(self.rng.sample(live, count)), count and self.rng.random() < 0.15
        new = NewVersion("p", "d", None, () if squash else chosen, (), None, False)
        draft = begin(workspace, new, chosen if squash else ())
        self.draft = draft.directory
        try:
            before = _entries(workspace, draft, chosen)
        except DatasetNotFound:
            return
        held = {key: before.content_ids[row].tobytes() for row, key in enumerate(before.keys)}
        for _ in range(self.rng.randint(1, 2)):
            held = self._change(draft, held)
            if self.rng.random() < 0.5 and self._upload(draft):
                self._edit_files(draft)
        if self.rng.random() < 0.2:
            draft.annotate(Metadata("note", self.rng.randbytes(3) * 300))
        self.world.expected[draft.opened.id] = held
        self._finish(draft)

    def _change(self, draft, held):
        """Add files of a folder to the draft, and remove some."""
        chosen = {key: self.rng.choice(CONTENTS) for key in self.rng.sample(KEYS, self.rng.randint(1, 4))}
        gone = [key for key in held if key not in chosen and self.rng.random() < 0.1]
        self._add(draft, chosen, gone)
        return {key: of for key, of in held.items() if key not in gone} | {k: hash32(c) for k, c in chosen.items()}

    def _add(self, draft, chosen, gone):
        folder = self.machine.folder / f"files{draft.opened.id}{len(draft._sources)}"
        for key, content in chosen.items():
            path = folder / key.replace(b"\0", b"/").decode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        draft.change(Changes(_rows(draft, chosen), sorted(gone)), Source(os.fsencode(folder), b"", {}))

    def _upload(self, draft):
        for _ in range(PATIENCE):
            try:
                upload_draft(self.machine.workspace, draft, show_progress=False)
            except StorageFailed:
                continue
            except (FileChanged, ChunksLost):
                return False
            else:
                return True
        return False

    def _edit_files(self, draft):
        """The user goes on with files that were uploaded already."""
        for folder in self.machine.folder.glob(f"files{draft.opened.id}*"):
            for path in sorted(folder.glob("*/*")):
                if self.rng.random() < 0.25:
                    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))

    def _finish(self, draft):
        """Upload and finalize, as often as a user does; then it is done, or discarded."""
        workspace, draft_id = self.machine.workspace, draft.opened.id
        for _ in range(PATIENCE):
            draft = Draft.load(draft.directory)
            try:
                if draft.sent is None:
                    upload_draft(workspace, draft, show_progress=False)
                finalize_draft(workspace, draft)
            except CommitOutcomeUnknown:
                self.world.count("an outcome stayed unknown")
            except (ChunksLost, FileChanged) as error:
                self.world.count(type(error).__name__)
                break
            except Conflict:
                self.world.count("a commit id stood with something else")
                break
            except StorageFailed:
                continue
            else:
                made = self.held or self.world.expected[draft_id]
                self.world.acknowledged.setdefault(draft_id, []).append(made)
                return
        if not draft.committing:
            try:
                discard_draft(workspace, draft)
            except (StorageFailed, Conflict):
                self.world.count("a draft could not be discarded")


class HalfDead(Writer):
    """Leaves packs that are half dead: a version of all contents, a child with few of them, the first one deleted."""

    def _make(self):
        first = self._final({key: CONTENTS[at % len(CONTENTS)] for at, key in enumerate(KEYS)}, ())
        self._final(dict.fromkeys(self.rng.sample(KEYS, 4), CONTENTS[0]), (first,))
        _patiently(self.world, partial(_delete, self.machine, first))

    def _final(self, chosen, parents):
        workspace = self.machine.workspace
        draft = begin(workspace, NewVersion("p", "d", None, parents, (), None, False))
        before = _entries(workspace, draft, parents)
        self.world.expected[draft.opened.id] = {
            key: before.content_ids[row].tobytes() for row, key in enumerate(before.keys)
        } | {key: hash32(content) for key, content in chosen.items()}
        self._add(draft, chosen, [])
        self._finish(draft)
        return draft.opened.id


class Twin(Writer):
    """A step that is run twice under one version id, and may make two things."""

    def __init__(self, machine, version_id, chosen):
        super().__init__(machine, 1)
        self.version_id, self.chosen = version_id, chosen
        self.held = {key: hash32(content) for key, content in chosen.items()}

    def heir(self):
        return self._go_on

    def _make(self):
        opened = Opened(self.version_id, self.machine.workspace.store_id, "p", "d", None, [], None, 1)
        directory = os.path.join(self.machine.workspace.drafts_directory, self.version_id)
        draft = Draft.create(directory, opened, Labels([], None), Output(None))
        self.draft = draft.directory
        self._add(draft, self.chosen, [])
        self._finish(draft)


def _entries(workspace, draft, parents):
    base = draft.opened.base
    with workspace.reading(*parents):
        before = read_all(root_of(base), workspace.store.nodes) if base else Entries.empty()
    return overlay(before, draft.changes)


def _rows(draft, chosen):
    keys = sorted(chosen)
    sizes = np.array([len(chosen[key]) for key in keys], np.uint64)
    ids = np.frombuffer(b"".join(hash32(chosen[key]) for key in keys), np.uint8).reshape(-1, 32)
    rows = make_entries(keys, np.ones(len(keys), np.uint8), sizes, None, ids)
    return rows.with_origin(VersionId(bytes.fromhex(draft.opened.id)))


def _patiently(world, act):
    """What a user repeats: it is over when it is done, when it makes no sense any more, or when patience ends."""
    for _ in range(PATIENCE):
        try:
            return act()
        except CommitOutcomeUnknown:
            world.count("an outcome stayed unknown")
        except StorageFailed:
            world.count("a storage failed")
        except (DatasetNotFound, Conflict):
            return None
    return None


def deleter(machine, times):
    def work():
        for _ in range(times):
            live = [version.id for version in machine.workspace.refresh().live_versions()]
            if live:
                _patiently(machine.world, partial(_delete, machine, machine.rng.choice(live)))

    return work


def _delete(machine, version_id):
    def choose(catalog):
        version = catalog.version(version_id)
        return [] if version is None or version.deleted else [version]

    changing.delete_versions(machine.workspace, choose, force=True)


def annotator(machine, times):
    """Gives final versions long metadata, and keeps artifacts."""

    def work():
        for _ in range(times):
            live = [version.id for version in machine.workspace.refresh().live_versions()]
            data = machine.rng.randbytes(2) * 400
            act = partial(_keep, machine, data)
            if live and machine.rng.random() < 0.5:
                act = partial(set_piece, machine.workspace, machine.rng.choice(live), None, "n", data)
            _patiently(machine.world, act)

    return work


def _keep(machine, data):
    store = machine.workspace.store
    task, blobs = "task", []

    def entry(_catalog, commit):
        if not blobs or not store.standings.stands(blobs[-1]):
            blobs.append(put_blob(store, data))
        return ArtifactEntry(commit=commit, time=1, task=task, name="output", blob=blobs[-1])

    store.catalog.change(entry)


def collector(machine, times):
    """Garbage collection without any minimum age."""

    def work():
        for _ in range(times):
            _patiently(machine.world, partial(collect_now, machine))

    return work


def collect_now(machine):
    return collect(machine.workspace.store, machine.summaries, older_than=math.inf, now_ns=lambda: 1)


def repacker(machine, times, shares=(0, 0.01, 0.01)):
    """Repacks some packs that hold something live, mostly those of which something is dead."""

    def work():
        for _ in range(times):
            _patiently(machine.world, partial(repack_now, machine, machine.rng.choice(shares)))

    return work


def repack_now(machine, share):
    store = machine.workspace.store
    store.catalog.refresh()
    found = [one.pack for one in candidates(store, list_packs(store), machine.summaries, share)]
    victims = frozenset(machine.rng.sample(found, min(len(found), machine.rng.randint(1, 3))))
    repack(store, machine.summaries, victims, now_ns=lambda: 1)


def reader(machine, times):
    """Reads whole versions, slowly; only one that was deleted meanwhile may fail."""

    def work():
        for _ in range(times):
            live = [version.id for version in machine.workspace.refresh().live_versions()]
            if live:
                read_version(machine, machine.rng.choice(live))

    return work


def read_version(machine, version_id):
    store = machine.workspace.store
    version = machine.workspace.catalog.version(version_id)
    try:
        entries = read_all(root_of(version.entry.tree), store.nodes)
        found = contents_of(machine.workspace, entries)
        for name in version.metadata:
            piece_of(machine.workspace, version_id, None, name)
    except (Corrupt, VersionDeleted) as error:
        if version_id in machine.world.fold.live:
            raise Violation(f"the live version {version_id} could not be read: {error}") from error
        machine.world.count("a reader met a deleted version")
        return
    if found != machine.world.expected[version_id]:
        raise Violation(f"a reader got other files of {version_id}")


def contents_of(workspace, entries):
    """The hash of what is read of each entry."""
    whole, codec, found = with_lists(entries, workspace.store.nodes), FrameCodec(), {}
    for row, key in enumerate(whole.keys):
        parts = []
        for one in segments_of(whole, row):
            (data,) = workspace.store.packs.read_frames([one.place])
            parts.append(codec.decode_segment(data, one.plain_offset, one.plain_length, one.digest, what="a file"))
        found[key] = hash32(b"".join(parts))
    return found

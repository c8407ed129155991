"""Power goes at any moment of the sequences: whatever the disk may hold then, nothing acknowledged is lost.

    LD_PRELOAD=fault_shim.so python power_cut.py FOLDER [--part 0/2] [--sequence NAME] [--seeds N] [--plant NAME]

The sequences are carried out once, traced; then states of the disk are made of the trace and checked in this process by
the package's own code. What is looked at in each state:

* the store: it is none, or opens; its log has no gap; every version that was acknowledged is in it, and every version
  that is in it can be read, each byte of it checked, and is what was synced (read from a backend in memory);
* drafts: each journal can be read, begins with all that was acknowledged of it unless its version is in the log, and
  where it says that all was sent, the packs of it are in the store;
* the catalog on this machine says no more than the log;
* a local copy whose stamp says that it is whole, is;
* LMDB files open, or are made anew; no pack that the chunk index knows is missing, unless condemned.

A part of all states is also written out, and the next command of the user is carried out on it, and all that `sweep.py`
asks for then. Prints a line of JSON for each sequence.
"""

import argparse
import gc
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import plants
from disk_states import Disk, Part, Tree, mark, read_trace
from forking import import_everything, in_child
from sequences import SEQUENCES, Content, Notes, Sequence, World, be_machine, make_inputs, verify_store
from shim import Shim

from dataset_store.core.digest import hash32
from dataset_store.core.envelope import decode_config, object_digest
from dataset_store.core.packfile import PackRef
from dataset_store.core.paths import to_text
from dataset_store.core.tree import read_all
from dataset_store.dataset.checks.verifying import verify_stored
from dataset_store.dataset.copies import filling
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import DatasetNotFound
from dataset_store.local import durable, local_copies
from dataset_store.local.drafts import Draft
from dataset_store.local.lmdb_environment import open_environment
from dataset_store.local.local_copies import Stamp
from dataset_store.local.removal import remove_tree
from dataset_store.local.settings import load_settings
from dataset_store.storage.catalog_cache import CatalogCache, CatalogView
from dataset_store.storage.log import Log
from dataset_store.storage.log_reader import Position
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.standings import Standings
from dataset_store.storage.store import Store
from dataset_store.storage.trees import NoKeeper, StoredNodes, root_of

MOST = 160
"""States that are taken of those in which one operation is in, out, or torn, at each moment."""

State = tuple[tuple[str, object], ...]


def select(tree: Tree, *prefixes: str) -> State:
    """The files of a state whose paths begin so."""
    return tuple(sorted((path, part) for path, part in tree.items() if path.startswith(prefixes) and path[-1] != "/"))


class Held(NamedTuple):
    """What a store holds in some state: packs, those condemned, live versions, and the objects of its root by key."""

    packs: frozenset[PackRef]
    condemned: frozenset[PackRef]
    versions: frozenset[str]
    objects: Mapping[str, bytes]


class Broken(Exception):
    """A part of a state that is not as it must be."""


class Replay:
    """One sequence, traced, and what is known of its states."""

    def __init__(self, folder: Path, sequence: Sequence, seed: int) -> None:
        self.folder = folder
        self.sequence = sequence
        self.chance = random.Random(seed)
        folder.mkdir(parents=True)
        self.world = World(folder / "home", folder / "in", make_inputs(sequence, folder / "in", seed))
        self.world.home.mkdir()
        be_machine(self.world.home)
        PackWriter.__init__.__kwdefaults__["target"] = sequence.pack_bytes
        self.shim = Shim()
        self.shim.watch(self.world.home)
        self.disk = Disk(os.stat(self.world.home).st_ino)
        self.contents = {name: _content_ids(content) for name, content in self.world.contents.items()}
        self.notes: Notes = {}
        self.done = 0
        self.journals: dict[str, bytes] = {}
        self._known: dict[object, object] = {}
        self.looked_at: Counter[str] = Counter()

    def trace(self) -> bytes:
        """Carry out all steps, and give back the calls by which they changed files."""
        trace = os.open(self.folder / "trace", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        notes: Notes = {}
        for step in (*self.sequence.begin, *self.sequence.steps):

            def run(step=step, notes=notes):
                self.shim.trace(trace)
                step.run(self.world, notes)
                self.shim.trace(-1)
                journals = {
                    str(path.relative_to(self.world.home)): path.read_bytes().hex()
                    for path in self.world.home.glob("own/drafts/*/*/journal")
                }
                os.write(trace, mark(json.dumps([step.name, notes, journals])))
                return notes

            status, told = in_child(run)
            assert status == 0, (step.name, status)
            notes = told
        os.close(trace)
        return (self.folder / "trace").read_bytes()

    def states(self) -> Iterator[Tree]:
        """Each state that is possible at some moment, once; what was acknowledged by then is in `notes`, `journals`."""
        seen: set[object] = set()
        for operation in read_trace(self.trace()):
            if operation.what == "!":
                _, self.notes, journals = json.loads(operation.first)
                self.journals = {path: bytes.fromhex(data) for path, data in journals.items()}
                self.done += 1
                changed = True
            else:
                changed = self.disk.play(operation)
            if changed and self.is_begun():
                for tree in self.disk.states(self.chance, MOST):
                    key = hash((self.done, tuple(sorted(tree.items()))))
                    if key not in seen:
                        seen.add(key)
                        yield tree

    # What each state must be

    def check(self, tree: Tree) -> str | None:
        """What is wrong with a state, None if nothing; by the parts of the state, each looked at once."""
        store = select(tree, "store/", "elsewhere/")
        try:
            found = self._once(self._store, store, self.done)
            for path, part in tree.items():
                if path.endswith("/journal"):
                    self._once(self._journal, path, part, store, self.done)
                elif path.endswith("/catalog.records"):
                    self._once(self._catalog, part, store, self.done)
                elif (
                    path.endswith("/data.mdb")
                    and not self._once(self._lmdb, path, part) <= found.packs | found.condemned
                ):
                    return "the chunk index knows a pack that the store has not"
                elif path.endswith(".stamp") and f"{path.removesuffix('.stamp')}/" in tree:
                    self._once(self._copy, path, part, select(tree, f"{path.removesuffix('.stamp')}/"))
        except Broken as broken:
            return str(broken)
        if not all(path in tree or path.split("/")[-2] in found.versions for path in self.journals):
            return "the folder of an acknowledged draft is lost"
        return None

    def _once(self, work, *key):  # type: ignore[no-untyped-def]
        """What `work` says of some part of a state, or its error; it is asked once for each."""
        known = (work.__name__, *key)
        if known not in self._known:
            self.looked_at[work.__name__[1:]] += 1
            try:
                self._known[known] = work(*key)
            except Exception:  # noqa: BLE001
                self._known[known] = Broken(traceback.format_exc())
        found = self._known[known]
        if isinstance(found, Broken):
            raise found
        return found

    def _store(self, store: State, _done: int) -> "Held":
        """What a store holds; see the module for what is checked."""
        objects = {path: self.disk.content(part) for path, part in store if isinstance(part, Part)}
        acknowledged = {
            key.removeprefix("version "): name for key, name in self.notes.items() if key.startswith("version ")
        }
        own = {path.removeprefix("store/"): data for path, data in objects.items() if path.startswith("store/")}
        if "config" not in own:
            assert not acknowledged, "the store is gone"
            assert not any(path.startswith("log/") for path in own)
            return Held(frozenset(), frozenset(), frozenset(), own)
        backend = _backend(own)
        config = decode_config(own["config"], "config")
        other = f"elsewhere/dataset-store/{config.store}/"
        elsewhere = {path.removeprefix(other): data for path, data in objects.items() if path.startswith(other)}
        storages = {0: backend, 1: _backend(elsewhere)}
        catalog = CatalogView(Log(backend, object_digest(own["config"])))
        catalog.refresh()
        slots = [path for path in own if path.startswith("log/catalog/")]
        assert len(slots) == catalog.position.slot, "the log has a gap"
        store_id = bytes.fromhex(config.store)
        standings = Standings(catalog, PackReader(store_id, storages.__getitem__), NoKeeper())
        reader = PackReader(store_id, storages.__getitem__, whereabouts=standings)
        nodes = StoredNodes(reader, NoKeeper())
        opened = Store(backend, config, catalog, reader, nodes, storages, standings)
        workspace = Workspace(load_settings(), opened, None, None, None)
        every = catalog.catalog.versions_beginning("")
        versions = {version.id for version in every if not version.deleted}
        assert versions >= set(acknowledged), "an acknowledged version is lost"
        for version in versions:
            report = verify_stored(workspace, version)
            assert report.sound, report
            entries = read_all(root_of(workspace.base_of(version)), opened.nodes)
            ids = [row.tobytes() for row in entries.content_ids]
            found = dict(zip(map(to_text, entries.keys), ids, strict=True))
            expected = [self.contents[acknowledged[version]]] if version in acknowledged else self.contents.values()
            assert found in expected, "a version is another"
        packs = frozenset(
            PackRef(number, bytes.fromhex(path.rpartition("/")[2]))
            for number, at in ((0, own), (1, elsewhere))
            for path in at
            if path.startswith("packs/")
        )
        reader.read_footers(sorted(packs))  # a pack that has its name is whole
        return Held(packs, standings.now().condemned, frozenset(versions), own)

    def _journal(self, path: str, part: Part, store: State, done: int) -> None:
        found = self._once(self._store, store, done)
        data = self.disk.content(part)
        draft_id = path.split("/")[-2]
        acknowledged = self.journals.get(path, b"")
        assert data.startswith(acknowledged) or draft_id in found.versions, "what was acknowledged of a draft is lost"
        folder = self.folder / "draft"
        folder.mkdir(exist_ok=True)
        (folder / "journal").write_bytes(data)
        try:
            draft = Draft.load(str(folder))
        except DatasetNotFound:
            assert not acknowledged or draft_id in found.versions, "an acknowledged draft is lost"
            return
        if draft.sent is not None:
            used = frozenset(draft.changes.entries.segments.packs) | {root_of(draft.sent.tree).ref.place.pack}
            assert used <= found.packs | found.condemned, (
                "a draft says that what it needs was sent, and it is not in the store"
            )

    def _catalog(self, part: Part, store: State, done: int) -> None:
        objects = self._once(self._store, store, done).objects
        folder = self.folder / "catalog"
        folder.mkdir(exist_ok=True)
        (folder / "catalog.records").write_bytes(self.disk.content(part))
        config = objects.get("config")
        if config is None:
            return
        for record in CatalogCache(str(folder)).load(Position(0, object_digest(config))):
            assert objects.get(f"log/catalog/{record.slot:012d}") == record.data, "the catalog says more than the log"

    def _copy(self, path: str, part: Part, files: State) -> None:
        """A local copy whose stamp says that it is whole."""
        try:
            msgspec.json.decode(self.disk.content(part), type=Stamp)
        except msgspec.MsgspecError:  # one that nobody could read says nothing
            return
        folder = f"{path.removesuffix('.stamp')}/"
        found = {name.removeprefix(folder): _bytes_of(self.disk, what) for name, what in files}
        assert _content_ids(found) in self.contents.values(), "a local copy says that it is whole, and is not"

    def _lmdb(self, path: str, part: Part) -> frozenset[PackRef]:
        """The packs that an environment knows if it is a chunk index. In a child, for it may crash."""
        folder = self.folder / "lmdb"
        remove_tree(str(folder))
        folder.mkdir()
        (folder / "data.mdb").write_bytes(self.disk.content(part))

        def look() -> list[bytes]:
            environment = open_environment(str(folder))
            environment.write(lambda txn: txn.put_many([(b"\xff probe", b"1")]))
            return environment.read(lambda txn: [key for key, _ in txn._raw.cursor()])

        status, keys = in_child(look)
        assert status == 0, f"LMDB ended with {status}"
        if "/chunks/" not in path:
            return frozenset()
        packed = [key[1:] for key in keys if key[:1] == b"f"]
        return frozenset(PackRef(int.from_bytes(key[:4], "little"), key[4:]) for key in packed)

    # Going on from a state

    def is_begun(self) -> bool:
        """Whether power goes in one of the steps that are tried, and not in what was there before them."""
        return self.done >= len(self.sequence.begin)

    def go_on(self, tree: Tree) -> str | None:
        """Write a state out, and let the user go on with the next command; what was wrong."""
        remove_tree(str(self.world.home))
        self.world.home.mkdir()
        write_out(self.disk, tree, self.world.home)
        status, problem = in_child(self._proceed)
        return problem if status == 0 else f"ended with {status}"

    def _proceed(self) -> str | None:
        """The step in which power went is carried out again, on a machine that was started anew; in a child."""
        local_copies._boot_id = lambda: "another"
        at = self.done - len(self.sequence.begin)
        notes = self.notes | {"deleted": ""}  # a pack may be there again, until the next gc
        try:
            for step in self.sequence.steps[at : at + 1]:
                step.run(self.world, notes)
            for number, step in enumerate(self.sequence.steps[: at + 1]):
                if number == at or step.name != "mutable copy":  # which is the user's own to keep
                    step.holds(self.world, notes)
            if (self.world.home / "store" / "log").exists():
                verify_store(self.world, notes, ("", "-fresh"))
        except BaseException:  # noqa: BLE001
            return traceback.format_exc()
        return None


def _bytes_of(disk: Disk, what: object) -> bytes:
    return disk.content(what) if isinstance(what, Part) else what


def _content_ids(content: Content) -> Mapping[str, bytes]:
    return {path: hash32(data if isinstance(data, bytes) else os.fsencode(data)) for path, data in content.items()}


def _backend(objects: Mapping[str, bytes]) -> MemoryBackend:
    backend = MemoryBackend()
    backend._objects.update(objects)
    return backend


def write_out(disk: Disk, tree: Tree, folder: Path) -> None:
    """Make a state into files."""
    for path, part in tree.items():
        to = folder / path
        if path.endswith("/"):
            to.mkdir(parents=True, exist_ok=True)
        elif isinstance(part, bytes):
            to.symlink_to(os.fsdecode(part))
        else:
            to.write_bytes(disk.content(part))
            given = disk.time(part)
            if given is not None:
                os.utime(to, ns=(given, given))


def replayed(replay: Replay, each: int) -> dict[str, object]:
    began = time.perf_counter()
    count = gone_on = 0
    problems: Counter[str] = Counter()
    example: dict[str, str] = {}
    for tree in replay.states():
        count += 1
        problem = replay.check(tree)
        if problem is None and count % each == 0:
            gone_on += 1
            problem = replay.go_on(tree)
        if problem is not None:
            reason = problem.strip().splitlines()[-1][:200]
            problems[reason] += 1
            example.setdefault(reason, f"after {replay.done} steps: {problem}")
    return {
        "sequence": replay.sequence.name,
        "states": count,
        "bad": sum(problems.values()),
        "looked at": dict(replay.looked_at),
        "gone on": gone_on,
        "seconds": round(time.perf_counter() - began, 1),
        "processor seconds": round(sum(os.times()[:4]), 1),
        "problems": dict(problems),
        "examples": example,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sequence", choices=list(SEQUENCES), action="append")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--go-on", type=int, default=100, help="of one state of so many")
    parser.add_argument("--plant", choices=list(plants.PLANTS))
    arguments = parser.parse_args()
    import_everything()
    filling.SETTLE_NS = 0
    durable._ONE_BY_ONE = 10  # so that small copies and larger ones are both flushed here
    if arguments.plant:
        plants.PLANTS[arguments.plant]()
    gc.freeze()
    which, count = map(int, arguments.part.split("/"))
    runs = [(name, seed) for seed in range(1, arguments.seeds + 1) for name in arguments.sequence or SEQUENCES]
    for name, seed in runs[which::count]:
        replay = Replay(arguments.folder / f"{name.replace(' ', '-')}-{seed}", SEQUENCES[name], seed)
        print(json.dumps(replayed(replay, arguments.go_on)), flush=True)
        remove_tree(str(replay.folder))


if __name__ == "__main__":
    sys.exit(main())

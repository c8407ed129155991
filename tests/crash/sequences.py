"""What users do, step by step, each step as a process of its own would do it, with what must hold after each.

A step is repeated after it was broken off, as its user would repeat it: so each begins with what an earlier try may
have left. What a step learns for the later ones (ids) is in `notes`.
"""

import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_store import Dataset
from dataset_store.core.digest import PackName
from dataset_store.core.envelope import object_digest
from dataset_store.core.frames import FrameKind
from dataset_store.core.log_entries import VersionEntry
from dataset_store.core.packfile import PackRef
from dataset_store.dataset.catalog.overview import drafts_of
from dataset_store.dataset.upkeep.maintaining import collect_garbage, repack_packs, wasteful_packs
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import StorageFailed
from dataset_store.storage.log import Log
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.store import fetch_config

Notes = dict[str, str]
Content = Mapping[str, bytes | str]


def be_machine(home: Path, name: str = "") -> None:
    """Use the store in `home`, with the cache and the data folder of one of several machines."""
    os.environ["DATASET_STORE_URL"] = str(home / "store")
    os.environ["DATASET_STORE_CACHE"] = str(home / f"cache{name}")
    os.environ["DATASET_STORE_DATA"] = str(home / f"own{name}")


def read(folder: Path | str) -> Content:
    """What a folder holds: bytes of files, texts of links."""
    found: dict[str, bytes | str] = {}
    for path in Path(folder).rglob("*"):
        if path.is_symlink() or path.is_file():
            found[path.relative_to(folder).as_posix()] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found


@dataclass(frozen=True)
class World:
    """Where a sequence happens: `home` is what faults may hit, `inputs` the folders that versions are made of."""

    home: Path
    inputs: Path
    contents: Mapping[str, Content]
    """What each of the inputs holds."""

    def input(self, name: str) -> str:
        return str(self.inputs / name)


@dataclass(frozen=True)
class Step:
    """One command of a user. `holds` raises where what the step acknowledged is not so."""

    name: str
    run: Callable[[World, Notes], None]
    holds: Callable[[World, Notes], None]


def create(parents: int = 0) -> Step:
    def run(world: World, notes: Notes) -> None:
        ids = [notes[f"parent {number}"] for number in range(parents)]
        notes["draft"] = Dataset.create(dataset_project="p", dataset_name="d", parent_datasets=ids or None).id

    return Step("create", run, lambda _world, notes: _require(Dataset.get(notes["draft"]).id == notes["draft"]))


def sync(folder: str) -> Step:
    def run(world: World, notes: Notes) -> None:
        dataset = Dataset.get(notes["draft"])
        if not dataset.is_final():
            dataset.sync_folder(world.input(folder))

    def holds(world: World, notes: Notes) -> None:
        _require(Dataset.get(notes["draft"]).list_files() == sorted(world.contents[folder]))

    return Step("sync", run, holds)


def keep_metadata(name: str) -> Step:
    """A value that is too long for the version's entry, and a text."""

    def value(notes: Notes) -> dict[str, object]:
        return {"of": notes["draft"], "long": [f"{number}" for number in range(3_000)]}

    def run(_world: World, notes: Notes) -> None:
        dataset = Dataset.get(notes["draft"])
        dataset.set_metadata(value(notes), name)
        dataset.set_description(name)

    def holds(_world: World, notes: Notes) -> None:
        open_workspace().refresh()
        dataset = Dataset.get(notes["draft"])
        _require(dataset.get_metadata(name) == value(notes))

    return Step(f"{name} metadata", run, holds)


def upload(output: bool = False) -> Step:
    def run(world: World, notes: Notes) -> None:
        dataset = Dataset.get(notes["draft"])
        if not dataset.is_final():
            dataset.upload(output_url=str(world.home / "elsewhere") if output else None)

    return Step("upload", run, lambda _world, notes: _require(not Dataset.get(notes["draft"]).is_dirty()))


def finalize(folder: str, *, auto_upload: bool = False) -> Step:
    def run(world: World, notes: Notes) -> None:
        dataset = Dataset.get(notes["draft"])
        if not dataset.is_final():
            dataset.finalize(auto_upload=auto_upload)
        notes[f"version {dataset.id}"] = folder

    return Step("finalize", run, lambda _world, notes: _require(Dataset.get(notes["draft"]).is_final()))


def tag() -> Step:
    def run(_world: World, notes: Notes) -> None:
        Dataset.get(notes["draft"]).add_tags("kept")

    def holds(_world: World, notes: Notes) -> None:
        found = Dataset.get(dataset_project="p", dataset_name="d", dataset_tags=["kept"])
        _require(found.id == notes["draft"])

    return Step("tag", run, holds)


def gc() -> Step:
    def run(_world: World, notes: Notes) -> None:
        done = collect_garbage(open_workspace(), min_age=0, apply=True)
        _note_deleted(notes, done.deleted)

    return Step("gc", run, _deleted_packs_are_gone)


def repack() -> Step:
    def run(_world: World, notes: Notes) -> None:
        workspace = open_workspace()
        wasteful = [one.pack for one in wasteful_packs(workspace, dead_share=0.01)]
        _note_deleted(notes, repack_packs(workspace, wasteful).deleted if wasteful else ())

    return Step("repack", run, _deleted_packs_are_gone)


def _note_deleted(notes: Notes, packs: Iterable[PackRef]) -> None:
    notes["deleted"] = " ".join([notes.get("deleted", ""), *(pack.name.hex() for pack in packs)])


def _deleted_packs_are_gone(world: World, notes: Notes) -> None:
    there = {path.name for path in (world.home / "store" / "packs").glob("??/*")}
    _require(there.isdisjoint(notes["deleted"].split()))


def get(folder: str) -> Step:
    def run(_world: World, notes: Notes) -> None:
        Dataset.get(notes["draft"]).get_local_copy()

    def holds(world: World, notes: Notes) -> None:
        _require(read(Dataset.get(notes["draft"]).get_local_copy()) == world.contents[folder])

    return Step("get", run, holds)


def mutable_copy(folder: str) -> Step:
    def run(world: World, notes: Notes) -> None:
        Dataset.get(notes["draft"]).get_mutable_local_copy(world.home / "mine", overwrite=True)

    def holds(world: World, _notes: Notes) -> None:
        _require(read(world.home / "mine") == world.contents[folder])

    return Step("mutable copy", run, holds)


def _require(condition: bool) -> None:
    assert condition, "what was acknowledged is not so"


@dataclass(frozen=True)
class Sequence:
    """A start, made without faults, and the steps from there.

    Attributes:
        inputs: What makes each of the folders that versions are made of.
        begin: Makes what is there before the first step.
        pack_bytes: How long packs get; small, so that there are several.
    """

    name: str
    inputs: Mapping[str, Callable[[Path, random.Random], None]]
    begin: tuple[Step, ...]
    steps: tuple[Step, ...]
    pack_bytes: int = 60_000


def _first(folder: Path, source: random.Random) -> None:
    (folder / "d").mkdir(parents=True)
    for number in range(12):
        (folder / "d" / str(number)).write_bytes(source.randbytes(700) if number % 3 else b"%d" % number * 100)
    (folder / "long").write_bytes(source.randbytes(90_000))
    (folder / "old link").symlink_to("long")


def _second(folder: Path, source: random.Random) -> None:
    """As the first, with edits, links and removed files."""
    _first(folder, random.Random(source.seed_of_first))  # type: ignore[attr-defined]
    long = (folder / "long").read_bytes()
    (folder / "long").write_bytes(long[:30_000] + b"put in between" + long[30_000:])
    (folder / "d" / "1").unlink()
    (folder / "d" / "2").write_bytes(b"changed" * 50)
    (folder / "old link").unlink()
    (folder / "new").mkdir()
    for number in range(3):
        (folder / "new" / f"{number}").write_bytes(source.randbytes(2_000))
    (folder / "new" / "link").symlink_to("../d/3")


def _many(folder: Path, source: random.Random) -> None:
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"long{number}").write_bytes(source.randbytes(110_000))
    for number in range(6):
        (folder / f"{number}").write_bytes(source.randbytes(3_000))


def _small(folder: Path, source: random.Random) -> None:
    folder.mkdir(parents=True)
    (folder / "one").write_bytes(source.randbytes(500))
    (folder / "two").write_bytes(b"")


def _parent(number: int = 0) -> Step:
    """What makes the version that is made so far a parent of the next."""

    def run(_world: World, notes: Notes) -> None:
        notes[f"parent {number}"] = notes["draft"]

    return Step("parent", run, lambda _world, _notes: None)


def _broken_off_upload() -> Step:
    """An upload whose third pack finds no room."""

    def run(_world: World, notes: Notes) -> None:
        packs = []
        publish = PosixBackend._publish

        def fails(backend, key, file):  # type: ignore[no-untyped-def]
            if key.startswith("packs/"):
                packs.append(key)
                if len(packs) == 3:
                    raise StorageFailed("The disk went away, as planned.", "Repeat.")
            return publish(backend, key, file)

        PosixBackend._publish = fails  # type: ignore[method-assign]
        try:
            Dataset.get(notes["draft"]).upload()
        except StorageFailed:
            return
        finally:
            PosixBackend._publish = publish  # type: ignore[method-assign]
        raise AssertionError("the upload was not broken off")

    return Step("broken-off upload", run, lambda _world, _notes: None)


def _garbage() -> tuple[Step, ...]:
    """Packs that no entry names, and packs that are dead in part: a version is deleted that another was made from."""

    def discard(_world: World, notes: Notes) -> None:
        Dataset.get(notes["draft"]).discard()

    def delete(_world: World, notes: Notes) -> None:
        Dataset.delete(dataset_id=notes["parent 0"], force=True)
        del notes[f"version {notes['parent 0']}"]

    return (
        *(create(), sync("many"), _broken_off_upload(), Step("discard", discard, lambda _world, _notes: None)),
        *(create(1), sync("second"), upload(), finalize("second")),
        Step("delete", delete, lambda _world, _notes: None),
    )


def _from_create(folder: str, *, parents: int = 0, output: bool = False) -> tuple[Step, ...]:
    return (create(parents), sync(folder), upload(output), finalize(folder), *_after_finalize(folder))


def _after_finalize(folder: str) -> tuple[Step, ...]:
    return (tag(), gc(), repack(), get(folder), mutable_copy(folder))


_ON_A_PARENT = (*_from_create("first"), _parent())

SEQUENCES = {
    each.name: each
    for each in (
        Sequence("first commit", {"first": _first}, (), _from_create("first")),
        Sequence(
            "on a parent",
            {"first": _first, "second": _second},
            _ON_A_PARENT,
            _from_create("second", parents=1),
        ),
        Sequence("several packs", {"many": _many}, (), _from_create("many"), pack_bytes=100_000),
        Sequence(
            "elsewhere",
            {"first": _first, "second": _second},
            _ON_A_PARENT,
            _from_create("second", parents=1, output=True),
        ),
        Sequence(
            "resumed",
            {"many": _many},
            (create(), sync("many"), _broken_off_upload()),
            (upload(), finalize("many"), *_after_finalize("many")),
            pack_bytes=100_000,
        ),
        Sequence(
            "two parents",
            {"small": _small, "first": _first, "second": _second},
            (*_ON_A_PARENT, create(), sync("small"), upload(), finalize("small"), _parent(1)),
            _from_create("second", parents=2),
        ),
        Sequence(
            "described",
            {"first": _first},
            (),
            (
                *(create(), sync("first"), keep_metadata("early"), upload(), finalize("first")),
                *(keep_metadata("late"), *_after_finalize("first")),
            ),
        ),
        Sequence(
            "garbage",
            {"first": _first, "second": _second, "small": _small, "many": _many},
            (create(), sync("first"), upload(), finalize("first"), _parent(), *_garbage()),
            _from_create("small"),
            pack_bytes=100_000,
        ),
        Sequence(
            "at once",
            {"small": _small},
            (),
            (create(), sync("small"), finalize("small", auto_upload=True), *_after_finalize("small")),
        ),
        Sequence("small", {"small": _small}, (), _from_create("small")),
    )
}


def make_inputs(sequence: Sequence, folder: Path, seed: int = 1) -> dict[str, Content]:
    """Make the folders of a sequence; what each holds."""
    for name, make in sequence.inputs.items():
        source = random.Random(f"{sequence.name} {name} {seed}")
        source.seed_of_first = f"{sequence.name} first {seed}"  # type: ignore[attr-defined]
        make(folder / name, source)
    return {name: read(folder / name) for name in sequence.inputs}


def verify_store(world: World, notes: Notes, machines: tuple[str, ...]) -> None:
    """The laws: a log without gaps, all that was acknowledged in it, and each version byte-equal on the machines."""
    be_machine(world.home)
    backend = PosixBackend(str(world.home / "store"))
    log = Log(backend, object_digest(fetch_config(backend) or b""))
    records = list(log.read_after(log.start))
    slots = sorted(path.name for path in (world.home / "store" / "log" / "catalog").glob("*"))
    assert slots == [f"{record.slot:012d}" for record in records] == [f"{n:012d}" for n in range(len(slots))]
    commits = [record.entry.commit for record in records]
    assert len(set(commits)) == len(commits)
    catalog = open_workspace().refresh()
    made = {record.entry.commit for record in records if isinstance(record.entry, VersionEntry)}
    versions = {version for version in made if not catalog.is_deleted(version)}
    acknowledged = {key.removeprefix("version "): folder for key, folder in notes.items() if key.startswith("version ")}
    assert versions >= set(acknowledged), "an acknowledged version is lost"
    for machine in machines:
        be_machine(world.home, machine)
        drafts_of(open_workspace())
        for version in sorted(versions):
            dataset = Dataset.get(version)
            assert dataset.is_final()
            expected = [world.contents[acknowledged[version]]] if version in acknowledged else world.contents.values()
            assert read(dataset.get_local_copy()) in expected
    be_machine(world.home)


def require_sent_once(world: World) -> None:
    """Data that the store holds more than once is no more than one pack."""
    roots = {0: "store/packs", 1: "elsewhere/dataset-store/*/packs"}
    packs = [
        PackRef(number, PackName(bytes.fromhex(path.name)))
        for number, root in roots.items()
        for path in world.home.glob(f"{root}/??/*")
    ]
    seen: set[bytes] = set()
    largest = again = 0
    for footer in open_workspace().store.packs.read_footers(packs):
        is_data = footer.kinds[footer.frame_of_chunk()] == FrameKind.DATA
        chunks = [(footer.ids[at].tobytes(), int(footer.lengths[at])) for at in is_data.nonzero()[0].tolist()]
        largest = max(largest, sum(length for _, length in chunks))
        again += sum(length for chunk, length in chunks if chunk in seen)
        seen.update(chunk for chunk, _ in chunks)
    assert again <= largest, f"{again} bytes were sent again, and the largest pack has {largest}"

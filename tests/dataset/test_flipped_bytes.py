"""One flipped bit anywhere in a store ends in a typed error or in exactly the right tree, never in a wrong byte.

The store is the golden one: several versions, merged parents, links, an empty directory, a file in many segments with a
list of its own, and an entry of each kind. It is held in memory, as it is read some hundred times.
"""

import json
import os
import random
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dataset_store import Dataset
from dataset_store.core.entries import Entries
from dataset_store.core.tree import read_all
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.errors import DatasetStoreError
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.materialise import materialise
from dataset_store.storage.backend import Key
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.store import Store, fetch_config, open_store
from dataset_store.storage.trees import NoKeeper, root_of

GOLDEN = Path(__file__).parent.parent / "golden" / "store-1"
SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None
OBJECTS = {
    str(path.relative_to(GOLDEN / "store")): path for path in sorted((GOLDEN / "store").rglob("*")) if path.is_file()
}
VERSION_IDS = [version["id"] for version in json.loads((GOLDEN / "expected.json").read_text())]


@pytest.fixture(scope="module")
def scratch():
    folder = tempfile.mkdtemp(prefix="flipped-", dir=SCRATCH)
    yield Path(folder)
    shutil.rmtree(folder)


def stored(flipped: str = "", at: int = 0, bit: int = 0) -> MemoryBackend:
    """The golden store in memory, one bit of one object flipped."""
    backend = MemoryBackend()
    for name, path in OBJECTS.items():
        data = bytearray(path.read_bytes())
        if name == flipped:
            data[at] ^= 1 << bit
        backend.put(Key(name), [data])
    return backend


@dataclass(frozen=True)
class Seen:
    """What a machine that has nothing sees: the entries of each version, and the means to fetch their contents."""

    store: Store
    versions: dict[str, Entries]


def seen(backend: MemoryBackend) -> Seen:
    store = open_store(backend, fetch_config(backend) or b"", os.devnull + "/none", NoKeeper())
    store.catalog.refresh()
    catalog = store.catalog.catalog
    catalog.require("read")
    found = {
        version.id: with_lists(read_all(root_of(version.entry.tree), store.nodes), store.nodes)
        for version in map(catalog.version, VERSION_IDS)
        if version is not None
    }
    return Seen(store, found)


def columns(entries: Entries) -> list[object]:
    """All that says what the entries are and where their bytes lie."""
    segments = entries.segments
    places = [segments.packs[row] for row in segments.pack.tolist()]
    numbers = (entries.kinds, entries.sizes, entries.mtimes, entries.segment_ends, segments.offset, segments.stored)
    more = (segments.plain_offset, segments.plain_length, segments.digest, entries.content_ids)
    origins = [entries.origin_ids[row] for row in entries.origins.tolist()]
    return [entries.keys, places, origins, *(column.tobytes() for column in (*numbers, *more))]


def made(entries: Entries, store: Store, folder: Path) -> dict[bytes, tuple[bytes, int, int]]:
    """The folder that entries become: path to content (of a link its text), mode and time."""
    copy = folder / "copy"
    copy.mkdir()
    try:
        with FolderWriter(str(copy), read_only=True) as writer:
            materialise(entries, writer, store.packs, done=np.zeros(len(entries), np.bool_))
        return dict(listed(os.fsencode(copy)))
    finally:
        shutil.rmtree(copy)


def listed(folder: bytes) -> Iterator[tuple[bytes, tuple[bytes, int, int]]]:
    for parent, directories, names in os.walk(folder):
        for name in directories + names:
            path = os.path.join(parent, name)
            state = os.lstat(path)
            if stat.S_ISLNK(state.st_mode):
                yield os.path.relpath(path, folder), (os.readlink(path), 0, 0)
            elif stat.S_ISREG(state.st_mode):
                with open(path, "rb") as file:
                    yield os.path.relpath(path, folder), (file.read(), state.st_mode, state.st_mtime_ns)
            elif not os.listdir(path):
                yield os.path.relpath(path, folder), (b"", 0, 0)


def reading(entries: Entries, pack: str, at: int) -> Entries:
    """The entries of whose bytes some lie at this byte of a pack."""
    segments = entries.segments
    there = np.array([one.name.hex() == pack for one in segments.packs], np.bool_)[segments.pack]
    there &= (segments.offset <= at) & (at < segments.offset.astype(np.int64) + segments.stored)
    owner = np.repeat(np.arange(len(entries)), entries.segment_counts)
    return entries.take(np.unique(owner[there]))


@pytest.fixture(scope="module")
def right(scratch):
    found = seen(stored())
    assert sorted(found.versions) == sorted(VERSION_IDS)
    assert max(int(entries.segment_counts.max(initial=0)) for entries in found.versions.values()) > 64
    return {
        version_id: (columns(entries), made(entries, found.store, scratch))
        for version_id, entries in found.versions.items()
    }


def outcome(name: str, at: int, bit: int, right: dict, scratch: Path) -> str:
    """What a reader of everything gets when one bit is flipped; anything but an error must be right."""
    try:
        found = seen(stored(name, at, bit))
    except DatasetStoreError as error:
        return type(error).__name__
    assert sorted(found.versions) == sorted(right)
    pack = name.rpartition("/")[2]
    result = "right"
    for version_id, entries in found.versions.items():
        expected, files = right[version_id]
        # As the entries are right, only those that read the flipped byte can be wrong.
        assert columns(entries) == expected
        try:
            for path, content in made(reading(entries, pack, at), found.store, scratch).items():
                assert files[path] == content
        except DatasetStoreError as error:
            result = type(error).__name__
    return result


def flips(every: int, first: int = 0) -> Iterator[tuple[str, int, int]]:
    """Every k-th byte of each object from one on, each time a bit drawn at random."""
    rng = random.Random(every)
    for name, path in OBJECTS.items():
        for at in range(first, path.stat().st_size, every):
            yield name, at, rng.randrange(8)


STRIDE = 32
"""Each heavy or long test takes one byte in so many; together they take all."""

KNOWN = {"right", "CorruptObject", "ObjectMissing", "FormatTooNew", "HistoryRewound"}


def test_a_flipped_bit_ends_in_an_error_or_in_the_right_tree(right, scratch):
    outcomes = Counter(outcome(*flip, right, scratch) for flip in flips(397, first=9))
    assert sum(outcomes.values()) > 370
    assert outcomes.keys() <= KNOWN
    assert outcomes["CorruptObject"] > 3 * outcomes["right"]  # footers, which a whole copy needs not, are a fifth


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(0, marks=pytest.mark.heavy),
        *(pytest.param(first, marks=pytest.mark.long) for first in range(1, STRIDE)),
    ],
)
def test_any_flipped_byte_ends_in_an_error_or_in_the_right_tree(right, scratch, first):
    outcomes = Counter(outcome(*flip, right, scratch) for flip in flips(STRIDE, first))
    assert sum(outcomes.values()) == sum(len(range(first, path.stat().st_size, STRIDE)) for path in OBJECTS.values())
    assert outcomes.keys() <= KNOWN
    assert outcomes["CorruptObject"] > 3 * outcomes["right"]


def test_a_local_copy_of_a_store_with_a_flipped_bit_is_right_or_not_there(right, scratch, monkeypatch):
    """The same through all that a user's call goes through, caches and all, on a machine of its own each time."""
    version_id = VERSION_IDS[3]
    _, files = right[version_id]
    rng = random.Random(8)
    names = [name for name in OBJECTS for _ in range(4)]
    outcomes = Counter()
    for name in names:
        home = scratch / "home"
        shutil.copytree(GOLDEN / "store", home / "store")
        path = home / "store" / name
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.unlink()
        path.write_bytes(data)
        use_home(home, monkeypatch)
        try:
            copy = Dataset.get(version_id).get_local_copy()
        except DatasetStoreError as error:
            outcomes[type(error).__name__] += 1
            assert not [left for left in home.rglob("copies/*") if left.suffix != ".lock"]
        else:
            outcomes["right"] += 1
            assert dict(listed(os.fsencode(copy))) == files
        workspaces._open.clear()
        shutil.rmtree(home)
    assert outcomes["right"] > 3
    assert outcomes["CorruptObject"] > len(names) // 2


def use_home(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("DATASET_STORE_URL", str(home / "store"))
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "cache"))
    monkeypatch.setenv("DATASET_STORE_DATA", str(home / "own"))

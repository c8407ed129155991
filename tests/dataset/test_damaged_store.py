"""Every kind of store object missing, cut, exchanged or flipped: a typed error that names it, or the right bytes."""

import os
import random
import shutil
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from dataset_store import Dataset
from dataset_store.core.log_entries import FeatureEntry
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.entries.selecting import EVERYTHING, entries_of
from dataset_store.dataset.workspace import new_commit_id, open_workspace
from dataset_store.errors import (
    Corrupt,
    CorruptObject,
    DatasetNotFound,
    DatasetStoreError,
    FormatTooNew,
    HistoryRewound,
    ObjectMissing,
    StoreNotFound,
)
from dataset_store.testing.folders import read, write


@pytest.fixture(scope="module")
def history(made, tmp_path_factory):
    """The store with 70 log entries, hence a checkpoint; ids and files of three versions, and two stores' objects."""
    folder, first_id, files = made
    home = tmp_path_factory.mktemp("history")
    shutil.copytree(folder, home, dirs_exist_ok=True)
    versions = [(first_id, files)]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STORE_URL", "STORE_CACHE", "STORE_DATA"):
            patch.setenv(f"DATASET_{name}", str(home / {"STORE_URL": "store", "STORE_CACHE": "cache"}.get(name, "own")))
        first = Dataset.get(first_id)
        for number in range(66):
            first.tags = [str(number)]
        for number in range(2):
            changed = versions[-1][1] | {"small": b"%d" % number, f"new{number}": os.urandom(100_000)}
            version = Dataset.create(parent_datasets=[versions[-1][0]])
            version.sync_folder(write(home / "first", changed))
            version.finalize(auto_upload=True)
            versions.append((version.id, changed))
        Dataset.get(first_id).get_local_copy()
        patch.setenv("DATASET_STORE_URL", str(home / "foreign"))
        foreign = Dataset.create(dataset_name="foreign")
        foreign.sync_folder(home / "first")
        foreign.finalize(auto_upload=True)
        # Whoever reads the whole log for the first time writes its checkpoint.
        patch.setenv("DATASET_STORE_URL", str(home / "store"))
        patch.setenv("DATASET_STORE_CACHE", str(home / "fresh"))
        Dataset.get(dataset_name="d")
    workspaces._open.clear()
    return home, versions


@pytest.fixture
def store(history, place):
    """The damaged store's folder; whole again when the place is checked."""
    home, _ = history
    for name in ("store", "cache", "own", "foreign"):
        shutil.rmtree(place.home / name, ignore_errors=True)
        shutil.copytree(home / name, place.home / name)
    for stamp in (place.home / "cache").rglob("*.stamp"):
        stamp.unlink()  # its folder's times are not those of the copy
    place.first.get_local_copy()
    place.new_process()
    yield place.store
    shutil.rmtree(place.store)
    shutil.copytree(home / "store", place.store)


def objects(store: Path, kind: str) -> list[Path]:
    """The objects of a kind in an order that a reader of the last version meets them."""
    if kind == "config":
        return [store / "config"]
    if kind == "log":
        return sorted((store / "log" / "catalog").iterdir())
    if kind == "checkpoint":
        return sorted(path for path in (store / "ckpt").rglob("*") if path.is_file())
    return sorted(
        (path for path in (store / "packs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


DAMAGES = ["missing", "emptied", "one byte", "header only", "half", "one byte less", "exchanged", "flipped", "longer"]


def damage(path: Path, how: str, other: Path, seed: int = 0) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    lengths = {"emptied": 0, "one byte": 1, "header only": 28, "half": len(data) // 2, "one byte less": len(data) - 1}
    if how == "missing":
        path.unlink()
    elif how in lengths:
        os.truncate(path, lengths[how])
    elif how == "exchanged":
        path.write_bytes(other.read_bytes())
    elif how == "longer":
        path.write_bytes(data + b"\0")
    else:
        at = random.Random(seed).randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])


def outcome(version_id: str, by_name: bool = False) -> dict[str, bytes] | DatasetStoreError:
    """What a user gets: the files, or the error."""
    try:
        version = Dataset.get(dataset_project="p", dataset_name="d") if by_name else Dataset.get(version_id)
        return read(version.get_local_copy())
    except DatasetStoreError as error:
        assert error.what.endswith("."), error.what
        assert error.next_step.endswith("."), error.next_step
        return error


def require(found: dict[str, bytes] | DatasetStoreError, right: dict[str, bytes], allowed: tuple[type, ...], name: str):
    if isinstance(found, dict):
        assert found == right
        return
    assert isinstance(found, allowed), repr(found)
    assert name in found.what, found.what


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_config_is_named_by_machines_that_have_not_seen_it(store, place, history, how):
    _, versions = history
    damage(store / "config", how, place.home / "foreign" / "config")
    assert outcome(versions[0][0]) == place.files
    place.new_machine()
    found = outcome(versions[2][0])
    assert isinstance(found, DatasetStoreError)
    # Another store's config is itself whole; that the log does not follow it is what shows.
    name = "log/catalog/000000000000" if how == "exchanged" else "config" if how != "missing" else str(store)
    allowed = (StoreNotFound,) if how == "missing" else (CorruptObject, FormatTooNew, HistoryRewound)
    require(found, {}, allowed, name)


# That the first entry is lost, or the last one, does not show: nothing is read behind them.
LOST = [
    (slot, how) for slot in (0, 1, 40, 63, 64, 65, 68) for how in DAMAGES if how != "missing" or slot not in {0, 68}
]


@pytest.mark.parametrize(("slot", "how"), LOST)
def test_a_damaged_log_entry_is_named_or_its_checkpoint_takes_its_place(store, place, history, slot, how):
    _, versions = history
    slots = objects(store, "log")
    assert len(slots) == 69
    damage(slots[slot], how, slots[slot - 1 if slot else 1], seed=slot)
    assert outcome(versions[0][0]) == place.files
    assert outcome(versions[2][0]) == versions[2][1]
    place.new_machine()
    found = outcome(versions[2][0], by_name=True)
    require(found, versions[2][1], (CorruptObject, FormatTooNew, HistoryRewound, ObjectMissing), f"{slot:012d}")
    if slot >= 64:
        assert isinstance(found, Corrupt | FormatTooNew)


@pytest.mark.parametrize("slot", [0, 1, 40, 63, 64, 65])
def test_nothing_is_written_into_a_hole_of_the_log(store, place, history, slot):
    """Whoever does not know the entry that is missing must not put another in its place."""
    slots = objects(store, "log")
    shutil.rmtree(store / "ckpt")
    slots[slot].unlink()
    place.new_machine()
    with pytest.raises((ObjectMissing, DatasetNotFound, HistoryRewound)):
        new = Dataset.create(dataset_name="new")
        new.finalize()
    assert not slots[slot].exists()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_costs_nothing_but_requests(store, place, history, how):
    _, versions = history
    (checkpoint,) = objects(store, "checkpoint")
    damage(checkpoint, how, objects(store, "log")[3])
    place.new_machine()
    assert outcome(versions[2][0], by_name=True) == versions[2][1]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_pack_is_named_and_versions_that_do_not_hold_it_are_unaffected(store, place, history, how):
    _, versions = history
    packs = objects(store, "pack")
    failures = 0
    for at, pack in enumerate(packs):
        whole = pack.read_bytes()
        damage(pack, how, packs[at - 1], seed=at)
        place.new_machine()
        for version_id, files in reversed(versions):
            found = outcome(version_id)
            require(found, files, (CorruptObject, ObjectMissing), pack.name)
            failures += isinstance(found, DatasetStoreError)
        pack.write_bytes(whole)
    assert failures >= 3 or how in {"flipped", "longer", "one byte less"}  # those may touch nothing that is read


def test_damage_that_several_versions_hold_is_not_said_to_be_of_one(store, place, history):
    """A version and its child fail alike: neither is told that the others are whole."""
    _, versions = history
    for pack in objects(store, "pack"):
        data = bytearray(pack.read_bytes())
        data[60] ^= 1  # in its first frame, which the version that came with the pack needs
        pack.chmod(0o644)
        pack.write_bytes(data)
    place.new_machine()
    failed = [found for version_id, _ in versions if isinstance(found := outcome(version_id), DatasetStoreError)]
    assert len(failed) == 3
    for error in failed:
        assert "Other" not in error.next_step
        assert "Versions that do not hold it are unaffected" in error.next_step


def test_a_warm_machine_needs_only_what_it_lacks(store, place, history):
    """With the first version on disk, a lost pack of that version costs the later ones nothing but what they share."""
    _, versions = history
    for pack in objects(store, "pack"):
        pack.rename(place.home / "lost")
        place.new_process()
        for version_id, files in versions:
            require(outcome(version_id), files, (ObjectMissing,), pack.name)
        assert outcome(versions[0][0]) == place.files
        (place.home / "lost").rename(pack)


def test_a_rewound_log_is_noticed_by_whoever_has_seen_more(store, place, history):
    """A store that was put back to an earlier backup, and then went on in another way."""
    _, versions = history
    slots = objects(store, "log")
    for slot in slots[67:]:
        slot.unlink()
    assert outcome(versions[0][0]) == place.files
    machine = place.new_machine()
    Dataset.get(versions[0][0]).tags = ["another way"]
    assert machine.exists()
    place.new_process()
    for name in ("CACHE", "DATA"):
        place.monkeypatch.setenv(f"DATASET_STORE_{name}", str(place.home / {"CACHE": "cache"}.get(name, "own")))
    with pytest.raises(HistoryRewound) as caught:
        Dataset.get(versions[0][0]).tags = ["seen more"]
    assert "log/catalog/" in caught.value.what


def test_a_store_made_anew_at_the_same_place_is_not_taken_for_the_old_one(store, place, history):
    _, versions = history
    store.rename(place.home / "old")
    place_cache = os.environ["DATASET_STORE_CACHE"]
    place.new_machine()
    new = Dataset.create(dataset_project="p", dataset_name="d")
    new.sync_folder(write(place.home / "other", {"x": b"new store"}))
    new.finalize(auto_upload=True)
    place.new_process()
    place.monkeypatch.setenv("DATASET_STORE_CACHE", place_cache)
    found = outcome("", by_name=True)
    if isinstance(found, DatasetStoreError):
        assert isinstance(found, Corrupt)
        assert str(store) in found.what or "log/catalog" in found.what
    else:
        assert found == {"x": b"new store"}
    assert (
        Dataset.create(dataset_project="p", dataset_name="d").version == "1.0.1"
    )  # a writer looks at the store itself
    shutil.rmtree(store)
    (place.home / "old").rename(store)


# --- newer formats ---


def reseal(path: Path, change) -> None:
    """Write an envelope anew as a later version of this package might: changed, and right by its own hash."""
    path.chmod(0o644)
    kind, number, payload = change(path.read_bytes())
    covered = b"DSTORE" + kind + bytes([number]) + len(payload).to_bytes(4, "little")
    path.write_bytes(covered + blake3(covered + payload).digest(length=16) + payload)


def a_later_number(data: bytes) -> tuple[bytes, int, bytes]:
    return data[6:7], 2, data[28:]


def another_field(data: bytes) -> tuple[bytes, int, bytes]:
    return data[6:7], 1, msgspec.json.encode(msgspec.json.decode(data[28:]) | {"later": 1})


def another_kind(data: bytes) -> tuple[bytes, int, bytes]:
    return data[6:7], 1, msgspec.json.encode(msgspec.json.decode(data[28:]) | {"kind": "later"})


def another_chunker(data: bytes) -> tuple[bytes, int, bytes]:
    return data[6:7], 1, msgspec.json.encode(msgspec.json.decode(data[28:]) | {"chunker": "later-v2/65536"})


@pytest.mark.parametrize(
    ("object_at", "change"),
    [
        ("config", a_later_number),
        ("config", another_field),
        ("config", another_chunker),
        ("log/catalog/000000000068", a_later_number),
        ("log/catalog/000000000068", another_field),
        ("log/catalog/000000000068", another_kind),
    ],
)
def test_an_object_of_a_later_format_says_what_to_install(store, place, history, object_at, change):
    _, versions = history
    reseal(store / object_at, change)
    place.new_machine()
    for call in (lambda: outcome("", by_name=True), lambda: outcome(versions[2][0])):
        found = call()
        assert type(found) is FormatTooNew
        assert object_at.rpartition("/")[2] in found.what
        assert "nstall" in found.next_step
    with pytest.raises(FormatTooNew):
        Dataset.create(dataset_name="new").finalize()


def test_a_pack_of_a_later_format_says_what_to_install(store, place, history):
    _, versions = history
    for pack in objects(store, "pack"):
        data = pack.read_bytes()
        pack.chmod(0o644)
        pack.write_bytes(data[:7] + b"\2" + data[8:-1] + b"\2")
    with pytest.raises(FormatTooNew) as caught:
        open_workspace().store.packs.read_footers(list(packs_of(versions[2][0])))
    assert "packs/" in caught.value.what


def packs_of(version_id: str):
    workspace = open_workspace()
    return entries_of(workspace.base_of(version_id), EVERYTHING, workspace.store.nodes).segments.packs


@pytest.mark.parametrize("operation", ["read", "write"])
def test_a_feature_that_this_version_does_not_know_stops_what_needs_it(store, place, history, operation):
    _, versions = history
    entry = FeatureEntry(commit=new_commit_id(), time=1, name="later", operations=(operation,))
    open_workspace().store.catalog.commit(lambda _catalog: entry)
    place.new_machine()
    found = outcome("", by_name=True)
    if operation == "read":
        assert type(found) is FormatTooNew
        assert "later" in found.what
        assert type(outcome(versions[2][0])) is FormatTooNew
    else:
        assert found == versions[2][1]
    with pytest.raises(FormatTooNew) as caught:
        new = Dataset.create(parent_datasets=[versions[0][0]])
        new.finalize()
    assert "later" in caught.value.what
    with pytest.raises(FormatTooNew):
        Dataset.get(versions[0][0]).tags = ["x"]

"""Repair: what is lost comes back from wherever its bytes are, and what does not is told exactly."""

import random
import shutil

import pytest
from stores import snapshot
from versions import version_of

from dataset_store import Dataset
from dataset_store.core import frames
from dataset_store.dataset.lost_contents import Folders
from dataset_store.dataset.maintaining import collect_garbage, repack_packs, wasteful_packs
from dataset_store.dataset.repairing import repair_store
from dataset_store.dataset.store_check import EVERY_BYTE, STRUCTURE, verify_store
from dataset_store.dataset.verifying import verify_stored
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import ObjectMissing
from dataset_store.storage import restoring
from dataset_store.storage.packs import PackWriter
from dataset_store.testing.folders import read, write

FIRST = {
    "a": random.Random(1).randbytes(300_000),
    "b": b"b" * 1000,
    "sub/c": b"c" * 2000,
    "zeros": bytes(1_000_000),
    "text": b"".join(b"line %d\n" % number for number in range(60_000)),
}
SECOND = FIRST | {"b": b"other", "new": random.Random(2).randbytes(200_000), "a": FIRST["a"] + b"more"}


@pytest.fixture(autouse=True)
def _packs_of_100_kb(monkeypatch):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 100_000)


@pytest.fixture
def versions(home):
    first = version_of(write(home / "one", FIRST))
    second = version_of(write(home / "two", SECOND), parent_datasets=[first.id])
    return first.id, second.id


def packs_there(home):
    return sorted(path for path in (home / "store" / "packs").rglob("*") if path.is_file())


def change(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def repair(**options):
    return repair_store(open_workspace(), apply=True, **options)


def check(depth=STRUCTURE):
    return verify_store(open_workspace(), depth)


def lose_each(home, another_machine, *known):
    """Each pack of the store lost in turn, as a machine has it that had local copies of the known versions before."""
    shutil.copytree(home / "store", home / "whole")
    for path in packs_there(home):
        shutil.rmtree(home / "store")
        shutil.copytree(home / "whole", home / "store")
        another_machine(f"before-{path.name}")
        for version_id in known:
            Dataset.get(version_id).get_local_copy()
        path.unlink()
        yield path


@pytest.mark.parametrize("warm", [0, 1])
def test_each_lost_pack_comes_back_as_far_as_one_local_copy_reaches(home, versions, another_machine, warm):
    """On a machine that has only read a version: it has its nodes and its files, and no footer."""
    restored = 0
    for path in lose_each(home, another_machine, versions[warm]):
        before = check().affected
        assert before
        done = repair()
        another_machine(f"after-{path.name}")
        after = {one.id: set(one.paths) for one in check().affected}
        assert after == {one.id: set(one.paths) for one in done.affected}
        assert versions[warm] not in after
        for version_id, files in zip(versions, (FIRST, SECOND), strict=True):
            told = verify_stored(open_workspace(), version_id)
            assert {one.path for one in told.damaged} - {""} == after.get(version_id, set())
            if version_id not in after:
                assert read(Dataset.get(version_id).get_local_copy()) == files
        restored += not after
    assert restored >= 3


def test_without_apply_it_says_the_same_and_writes_nothing(home, versions):
    Dataset.get(versions[1]).get_local_copy()
    lost = packs_there(home)[0]
    lost.unlink()
    before = sorted(path for path in (home / "store").rglob("*"))
    told = repair_store(open_workspace())
    assert sorted(path for path in (home / "store").rglob("*")) == before
    done = repair()
    assert [(one.pack, one.frames, one.recovered, one.left) for one in told.packs] == [
        (one.pack, one.frames, one.recovered, one.left) for one in done.packs
    ]
    assert told.affected == done.affected


def test_where_nothing_is_to_be_had_the_lists_are_exact_and_the_loss_is_told_once(home, versions, another_machine):
    first, second = versions
    for path in lose_each(home, another_machine):
        slots = len(list((home / "store/log/catalog").iterdir()))
        done = repair()
        assert [(one.frames, one.condemned) for one in done.packs] == [(0, False)]
        assert done.affected == check().affected != ()
        assert repair().affected == done.affected
        assert len(list((home / "store/log/catalog").iterdir())) == slots + 1
        for one in done.affected:
            with pytest.raises(ObjectMissing, match=path.name):
                Dataset.get(one.id).get_local_copy()
        assert {one.id for one in done.affected} <= {first, second}


def test_a_damaged_frame_is_replaced_and_the_damaged_pack_collected(home, versions):
    Dataset.get(versions[0]).get_local_copy()
    Dataset.get(versions[1]).get_local_copy()
    snapshots = [snapshot(str(home / "store"), one) for one in versions]
    damaged = packs_there(home)
    for path in damaged:
        change(path, 100)
    done = repair()
    assert len(done.packs) == len(damaged)
    assert all(one.condemned and one.left == 0 and one.recovered for one in done.packs)
    collect_garbage(open_workspace(), min_age=0, apply=True)
    assert not set(damaged) & set(packs_there(home))
    assert verify_store(open_workspace()).findings == ()
    assert [snapshot(str(home / "store"), one) for one in versions] == snapshots
    assert repair().packs == (), "there is nothing to be done again"


def test_a_damaged_footer_or_header_is_made_anew(home, versions, another_machine):
    for at, path in zip((3, -70), packs_there(home), strict=False):
        another_machine()
        change(path, at)
        done = repair()
        assert [(one.condemned, one.left) for one in done.packs] == [(True, 0)]
        assert done.affected == ()
    collect_garbage(open_workspace(), min_age=0, apply=True)
    assert verify_store(open_workspace()).findings == ()


def test_damage_that_was_not_looked_for_is_told_when_it_is_met(home, versions, another_machine):
    """With a broken footer the pack is copied, and one of its frames turns out to be damaged."""
    another_machine()
    Dataset.get(versions[0]).list_files()
    path = packs_there(home)[0]
    change(path, 3)
    change(path, 100)
    done = repair(depth=STRUCTURE)
    assert [one.condemned for one in done.packs] == [False]
    assert done.affected == verify_store(open_workspace()).affected != ()


def test_a_folder_of_the_user_gives_back_what_it_holds(home, versions, another_machine):
    first, second = versions
    write(home / "mine", {"renamed": FIRST["a"], "other": SECOND["new"]})
    another_machine()
    Dataset.get(first).list_files()  # the nodes are known, no file is
    Dataset.get(second).list_files()
    for path in packs_there(home):
        if path.stat().st_size > 90_000:
            path.unlink()
    lost = {name for one in check().affected for name in one.paths}
    assert {"a", "new"} <= lost
    repair(folders=[str(home / "mine")])
    left = {name for one in check().affected if one.id == first for name in one.paths}
    assert "a" not in left


def test_a_file_that_changed_since_it_was_hashed_is_not_taken_for_what_was_lost(
    home, versions, another_machine, monkeypatch
):
    another_machine()
    Dataset.get(versions[0]).get_local_copy()
    Dataset.get(versions[1]).list_files()
    lost = packs_there(home)
    for path in lost:
        path.unlink()
    read_right = Folders.read

    def changed(folders, content_id, start, length):
        data = read_right(folders, content_id, start, length)
        return None if data is None else data[:-1] + bytes([data[-1] ^ 1])

    monkeypatch.setattr(Folders, "read", changed)
    repair()
    left = {one.id: set(one.paths) for one in check().affected}
    assert left == {versions[0]: set(FIRST), versions[1]: set(SECOND)}


def test_another_store_gives_back_what_it_has(home, versions, another_machine):
    shutil.copytree(home / "store", home / "pushed")
    first, second = versions
    other = Dataset.get(second)
    other.push(str(home / "elsewhere"))
    another_machine()
    Dataset.get(second).list_files()
    Dataset.get(first).list_files()
    for path in packs_there(home):
        path.unlink()
    done = repair(other=open_workspace(str(home / "elsewhere")))
    assert {one.id for one in done.affected} <= {first}
    assert second not in {one.id for one in check().affected}
    another_machine()
    assert read(Dataset.get(second).get_local_copy()) == SECOND


def test_a_second_repair_goes_on_where_the_first_could_not(home, versions, another_machine):
    first, second = versions
    another_machine()
    Dataset.get(first).list_files()
    Dataset.get(second).list_files()
    whole = {path: path.read_bytes() for path in packs_there(home)}
    for path in whole:
        path.unlink()
    repair(folders=[str(write(home / "some", {"x": FIRST["a"]}))])
    left = check().affected
    assert left
    repair(folders=[str(home / "one")])
    assert first not in {one.id for one in check().affected}
    assert collect_garbage(open_workspace(), min_age=0, apply=True).survey.dead is not None
    done = repair(folders=[str(home / "two")])
    assert done.affected == ()
    assert check().sound
    another_machine()
    assert read(Dataset.get(second).get_local_copy()) == SECOND


def small_files(home, name, changed=()):
    """Files that share a frame; the changed ones are of another content."""
    return write(home / name, {f"f{at}": (b"new" if at in changed else b"old") * (at + 10) for at in range(8)})


def test_of_a_block_of_small_files_those_come_back_that_are_somewhere(home, another_machine):
    """A machine has a later version, of which three files were changed: the first version's pack is lost."""
    first = version_of(small_files(home, "one"))
    second = version_of(small_files(home, "two", {0, 3, 7}), parent_datasets=[first.id])
    another_machine()
    Dataset.get(second.id).get_local_copy()
    Dataset.get(first.id).list_files()
    first_pack(home).unlink()
    done = repair()
    lost = {first.id: {"f0", "f3", "f7"}}
    assert {one.id: set(one.paths) for one in done.affected} == lost
    for depth in (STRUCTURE, EVERY_BYTE):
        found = check(depth)
        assert {one.id: set(one.paths) for one in found.affected} == lost
        assert {one.id for one in found.findings} == {"content-lost"}
    another_machine()
    assert set(read(Dataset.get(second.id).get_local_copy())) == {f"f{at}" for at in range(8)}
    told = verify_stored(open_workspace(), first.id)
    assert {one.path for one in told.damaged} == lost[first.id]
    slots = len(list((home / "store/log/catalog").iterdir()))
    assert {one.id: set(one.paths) for one in repair().affected} == lost
    assert len(list((home / "store/log/catalog").iterdir())) == slots, "it is told already"

    done = repair(folders=[str(home / "one")])
    assert done.affected == ()
    assert check(EVERY_BYTE).sound
    assert read(Dataset.get(first.id).get_local_copy()) == read(home / "one")


def first_pack(home):
    """The pack of the version that was made first."""
    return min(packs_there(home), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("kept", [{}, {"f1": b"old" * 11}], ids=["nothing of it was found", "a part of it was found"])
def test_what_was_lost_and_is_added_again_is_sent_again(home, kept):
    """The machine remembers that the store had these files. That is over, and nobody takes it for true any more."""
    first = version_of(small_files(home, "one"))
    pack = first_pack(home)
    pack.unlink()
    done = repair(folders=[str(write(home / "kept", kept))])
    assert {name for one in done.affected for name in one.paths} == {f"f{at}" for at in range(8)} - kept.keys()
    second = version_of(small_files(home, "again", {5}))
    assert [one.id for one in check(EVERY_BYTE).affected] == [first.id]
    assert read(Dataset.get(second.id).get_local_copy()) == read(home / "again")


@pytest.mark.parametrize("knows_footers", [True, False])
def test_frames_come_back_though_they_are_compressed_to_other_lengths_today(
    home, versions, another_machine, monkeypatch, knows_footers
):
    if not knows_footers:
        another_machine()
    for one in versions:
        Dataset.get(one).get_local_copy()
    for path in packs_there(home):
        path.unlink()
    monkeypatch.setattr(frames, "_LEVEL", 19)
    done = repair()
    assert done.affected == ()
    assert check(EVERY_BYTE).sound
    another_machine("later")
    assert [read(Dataset.get(one).get_local_copy()) for one in versions] == [FIRST, SECOND]


def test_runs_that_versions_share_in_part_come_back_without_footers(home, another_machine, monkeypatch):
    """The version that had the whole run is deleted; two others share parts of it that overlap."""
    lines = [b"%06d " % number * 5_000 for number in range(60)]
    whole = b"".join(lines)
    first = version_of(write(home / "one", {"f": whole}))
    second = version_of(write(home / "two", {"f": whole[:1_500_000] + b"x" + whole[1_500_000:]}))
    third = version_of(write(home / "three", {"f": whole[:600_000] + b"y" + whole[600_000:]}))
    Dataset.delete(dataset_id=first.id, force=True)
    another_machine()
    copies = [read(Dataset.get(one.id).get_local_copy()) for one in (second, third)]
    for path in packs_there(home):
        path.unlink()
    done = repair()
    assert done.affected == ()
    another_machine("later")
    assert [read(Dataset.get(one.id).get_local_copy()) for one in (second, third)] == copies


def test_a_pack_that_comes_back_is_restored_in_whole(home, another_machine):
    first = version_of(small_files(home, "one"))
    another_machine()
    Dataset.get(first.id).list_files()
    path = first_pack(home)
    kept = path.read_bytes()
    path.unlink()
    assert repair(folders=[str(write(home / "kept", {"x": b"old" * 11}))]).affected
    path.write_bytes(kept)
    done = repair()
    assert done.affected == ()
    assert check(EVERY_BYTE).sound
    collect_garbage(open_workspace(), min_age=0, apply=True)
    assert not path.exists()
    another_machine("later")
    assert read(Dataset.get(first.id).get_local_copy()) == read(home / "one")


def test_a_pack_of_a_repack_is_repaired_like_any_other(home, versions, another_machine, monkeypatch):
    Dataset.delete(dataset_id=versions[0], force=True)
    packs = wasteful_packs(open_workspace(), dead_share=0.0001)
    repack_packs(open_workspace(), [one.pack for one in packs])
    for _lost in lose_each(home, another_machine, versions[1]):
        done = repair()
        assert done.affected == ()
        if not done.left_alone:
            assert check().sound


def test_a_writer_beside_a_repair_takes_the_slot_and_loses_nothing(home, versions, monkeypatch):
    Dataset.get(versions[1]).get_local_copy()
    Dataset.get(versions[0]).get_local_copy()
    packs_there(home)[0].unlink()
    puts = restoring.put_blob

    def beside(repository, data):
        monkeypatch.setattr(restoring, "put_blob", puts)
        version_of(write(home / "three", SECOND | {"x": b"x"}), parent_datasets=[versions[1]])
        return puts(repository, data)

    monkeypatch.setattr(restoring, "put_blob", beside)
    done = repair()
    assert all(one.slot is not None for one in done.packs)
    assert check().sound
    assert len(check().affected) == 0

"""Repair: what is lost comes back from wherever its bytes are, and what does not is told exactly."""

import random
import shutil
from contextlib import suppress

import pytest
from damage import change, check, first_pack, lost_files, packs_there, repair, small_files
from stores import snapshot
from versions import version_of

from dataset_store import Dataset
from dataset_store.core import frames
from dataset_store.core.packfile import pack_key
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.checks import repairing
from dataset_store.dataset.checks.lost_contents import Folders
from dataset_store.dataset.checks.repairing import repair_store
from dataset_store.dataset.checks.store_check import verify_store
from dataset_store.dataset.checks.surveying import EVERY_BYTE, STRUCTURE
from dataset_store.dataset.checks.verifying import verify_stored
from dataset_store.dataset.upkeep.maintaining import collect_garbage, repack_packs, wasteful_packs
from dataset_store.dataset.uploads import sending
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import ChunksLost, Corrupt, ObjectMissing
from dataset_store.storage import restoring
from dataset_store.storage.blobs import packs_of, read_blob
from dataset_store.storage.pack_writer import PackWriter
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
        for data in read_right(folders, content_id, start, length):
            yield data[:-1] + bytes([data[-1] ^ 1])

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


@pytest.mark.parametrize("where", ["another store", "a folder", "another piece"])
def test_metadata_that_lies_in_packs_comes_back(home, another_machine, where):
    made = version_of(write(home / "in", {"f": b"x"}))
    told = {"of": [f"{number}" for number in range(30_000)]}
    made.set_metadata(told)
    (piece,) = open_workspace().refresh().version(made.id).metadata.values()
    data = read_blob(piece, open_workspace().store.packs, what="It")
    made.push(str(home / "elsewhere"))
    for pack in packs_of(piece):
        (home / "store" / pack_key(pack.name)).unlink(missing_ok=True)
    workspaces._open.clear()
    assert [one.metadata for one in repair().affected] == [("metadata",)]
    if where == "another piece":
        Dataset.get(made.id).set_metadata(told, "again")
        done = repair()
    elif where == "a folder":
        done = repair(folders=[str(write(home / "found", {"any": data}))])
    else:
        done = repair(other=open_workspace(str(home / "elsewhere")))
    assert done.affected == ()
    assert check(EVERY_BYTE).sound
    another_machine()
    assert Dataset.get(made.id).get_metadata() == told


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


def lost_and_back(home, another_machine):
    """A version whose pack was lost, restored in part, and brought back; and that pack."""
    first = version_of(small_files(home, "one"))
    another_machine()
    Dataset.get(first.id).list_files()
    path = first_pack(home)
    kept = path.read_bytes()
    path.unlink()
    assert repair(folders=[str(write(home / "kept", {"x": b"old" * 11}))]).affected
    path.write_bytes(kept)
    return first, path


def test_a_pack_that_comes_back_is_restored_in_whole(home, another_machine):
    first, path = lost_and_back(home, another_machine)
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

    def beside(store, data):
        monkeypatch.setattr(restoring, "put_blob", puts)
        version_of(write(home / "three", SECOND | {"x": b"x"}), parent_datasets=[versions[1]])
        return puts(store, data)

    monkeypatch.setattr(restoring, "put_blob", beside)
    done = repair()
    assert all(one.slot is not None for one in done.packs)
    assert check().sound
    assert len(check().affected) == 0


# --- what must hold however repairs, repacks, writers and collections meet -----------------------------------------


def large_pack(home):
    return max(packs_there(home), key=lambda path: path.stat().st_size)


def test_a_repair_that_finds_nothing_leaves_the_rest_of_a_repacked_pack_as_it_is(home, another_machine):
    files = {f"f{at}": random.Random(at).randbytes(60_000) for at in range(6)}
    first = version_of(write(home / "one", files | {"dead": random.Random(99).randbytes(90_000)}))
    version_of(write(home / "two", files))
    Dataset.delete(dataset_id=first.id, force=True)
    repack_packs(open_workspace(), [one.pack for one in wasteful_packs(open_workspace(), dead_share=0.0001)])
    change(large_pack(home), 100)
    another_machine()
    before = lost_files()
    assert len(before) == 1
    repair()
    assert lost_files() == before
    another_machine("later")
    assert lost_files() == before
    assert repair(folders=[str(home / "two")]).affected == ()
    collect_garbage(open_workspace(), min_age=0, apply=True)
    assert check(EVERY_BYTE).findings == ()


def test_two_machines_that_repair_one_pack_at_once_both_find_it_readable(home, another_machine, monkeypatch):
    files = {f"f{at}": random.Random(at).randbytes(100_000) for at in range(6)}
    first = version_of(write(home / "in", files))
    for machine in ("a", "b"):
        another_machine(machine)
        Dataset.get(first.id).list_files()
    for path in packs_there(home):
        if path.stat().st_size > 50_000:
            path.unlink()
    real = repairing.restore

    def beside(*arguments):
        monkeypatch.setattr(repairing, "restore", real)
        another_machine("b")
        repair(folders=[str(write(home / "of-b", {"x": files["f2"], "y": files["f3"]}))])
        another_machine("a")
        return real(*arguments)

    monkeypatch.setattr(repairing, "restore", beside)
    another_machine("a")
    folders = [str(write(home / "of-a", {"x": files["f0"]}))]
    done = repair(folders=folders)
    assert {one.slot for one in done.packs if one.superseded} == {None}
    another_machine("c")
    assert lost_files()[first.id] <= {"f0", "f1", "f4", "f5"}
    another_machine("a")
    done = repair(folders=folders)
    assert lost_files(done) == lost_files() == {first.id: {"f1", "f4", "f5"}}


def test_parts_of_a_short_run_that_other_versions_share_come_back_with_it(home, another_machine, monkeypatch):
    drawn = random.Random(5)
    words = [drawn.randbytes(4).hex().encode() for _ in range(400)]
    whole = b" ".join(drawn.choice(words) for _ in range(26_000))[:230_000]
    contents = {"one": whole, "two": b"x" * 100 + whole, "three": whole + b"y" * 10}
    made = [version_of(write(home / name, {"f": content})) for name, content in contents.items()]
    another_machine()
    for one in made:
        Dataset.get(one.id).list_files()
    for path in packs_there(home):
        path.unlink()
    monkeypatch.setattr(frames, "_LEVEL", 19)
    folders = [str(home / name) for name in contents]
    for _ in range(3):
        assert repair(folders=folders).affected == ()
        assert check(EVERY_BYTE).sound
    another_machine("later")
    assert [read(Dataset.get(one.id).get_local_copy()) for one in made] == [{"f": one} for one in contents.values()]


def test_a_pack_that_a_repair_told_of_is_not_repacked_by_what_it_says_itself(home, another_machine, monkeypatch):
    """A machine that does not know the footer repairs; beside it one that knows begins to use what was dead."""
    kept, dead = random.Random(1).randbytes(80_000), random.Random(2).randbytes(30_000)
    first = version_of(write(home / "one", {"kept": kept, "dead": dead}))
    damaged = large_pack(home)
    version_of(write(home / "two", {"kept": kept}))
    Dataset.delete(dataset_id=first.id, force=True)
    change(damaged, -70)
    real = repairing.restore
    made = []

    def beside(*arguments):
        monkeypatch.setattr(repairing, "restore", real)
        workspaces._open.clear()
        monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "cache"))
        monkeypatch.setenv("DATASET_STORE_DATA", str(home / "own"))
        made.append(version_of(write(home / "three", {"again": dead})))
        another_machine("r")
        return real(*arguments)

    monkeypatch.setattr(repairing, "restore", beside)
    another_machine("r")
    for version in open_workspace().refresh().live_versions():
        Dataset.get(version.id).list_files()
    repair()
    another_machine("s")
    assert made
    repack_packs(open_workspace(), [one.pack for one in wasteful_packs(open_workspace(), dead_share=0.1)])
    collect_garbage(open_workspace(), min_age=0, apply=True)
    assert check(EVERY_BYTE).affected == ()
    assert read(Dataset.get(made[0].id).get_local_copy()) == {"again": dead}


@pytest.mark.parametrize("most", [1, 100], ids=["listed", "plain"])
def test_a_draft_that_was_sent_is_sent_again_where_a_repair_tells_of_a_loss(home, monkeypatch, most):
    monkeypatch.setattr(sending, "MOST_SEGMENTS", most)
    whole = random.Random(3).randbytes(900_000)
    first = version_of(write(home / "one", {"f": whole}))
    draft = Dataset.create(dataset_name="e", dataset_project="p")
    draft.add_files(str(write(home / "two", {"g": b"x" * 300 + whole + b"y" * 200})))
    gone = packs_there(home)
    draft.upload()
    for path in gone:
        if path.stat().st_size > 50_000:
            path.unlink()
    assert repair().affected
    draft.finalize()
    assert set(lost_files()) == {first.id}
    assert read(Dataset.get(draft.id).get_local_copy()) == read(home / "two")


@pytest.mark.parametrize("most", [1, 100], ids=["listed", "plain"])
def test_a_lost_content_under_a_new_name_is_sent_again(home, monkeypatch, most):
    monkeypatch.setattr(sending, "MOST_SEGMENTS", most)
    whole = random.Random(3).randbytes(900_000)
    version_of(write(home / "one", {"f": whole}))
    gone = packs_there(home)
    content = b"x" * 300 + whole + b"y" * 200
    second = version_of(write(home / "two", {"g": content}))
    for path in gone:
        if path.stat().st_size > 50_000:
            path.unlink()
    repair()
    third = version_of(write(home / "three", {"renamed": content}), parent_datasets=[second.id])
    assert third.id not in lost_files()


def test_a_draft_of_a_deleted_version_is_not_committed_with_what_is_lost(home):
    first = version_of(small_files(home, "one"))
    draft = Dataset.create(dataset_name="d", dataset_project="p", parent_datasets=[first.id])
    draft.add_files(str(write(home / "more", {"m": b"m" * 5_000})))
    draft.upload()
    first_pack(home).unlink()
    repair(folders=[str(write(home / "kept", {"f1": b"old" * 11}))])
    Dataset.delete(dataset_id=first.id, force=True)
    with pytest.raises(ChunksLost):
        draft.finalize()


def test_a_pack_that_came_back_is_kept_until_a_repair_has_used_it(home, another_machine):
    _, path = lost_and_back(home, another_machine)
    collect_garbage(open_workspace(), min_age=0, apply=True)
    assert path.exists()
    assert repair().affected == ()
    collect_garbage(open_workspace(), min_age=0, apply=True)
    assert not path.exists()
    assert check(EVERY_BYTE).findings == ()


def history(home, drawn, pool):
    """Versions that share much, some of their packs repacked: their ids, and what each holds."""
    made = {}
    for number in range(3):
        files = {f"f{at}": drawn.choice(pool) + (b"+" if drawn.random() < 0.2 else b"") for at in range(9)}
        made[version_of(write(home / f"v{number}", files)).id] = files
    if drawn.random() < 0.4:
        repack_packs(open_workspace(), [one.pack for one in wasteful_packs(open_workspace(), dead_share=0.0001)])
    return made


def damage_some(home, drawn):
    """Packs are lost or damaged, but for those that only a backup brings back."""
    ledger = open_workspace().refresh().packs
    blobs = (*ledger.lists, *(blob for _, blob in ledger.relocations))
    folded = {pack_key(ref.name) for blob in blobs for ref in packs_of(blob)}
    for path in packs_there(home):
        if str(path.relative_to(home / "store")) in folded or drawn.random() < 0.6:
            continue
        if drawn.random() < 0.5:
            path.unlink()
        else:
            change(path, drawn.randrange(40, path.stat().st_size))


def require_as_told(made, done):
    """What is not told to be lost is what it was."""
    assert lost_files(done) == lost_files()
    listed = {one.id for one in done.affected if one.lost}
    for version_id, files in made.items():
        whole = sorted(files.keys() - lost_files(done).get(version_id, set()))
        if whole and version_id not in listed:
            copy = Dataset.get(version_id).get_local_copy(files=whole)
            assert read(copy) == {name: files[name] for name in whole}


@pytest.mark.parametrize(
    "count",
    [
        10,
        pytest.param(60, marks=[pytest.mark.heavy, pytest.mark.timeout(1200)]),
        pytest.param(1_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_whatever_is_lost_and_found_a_repair_and_the_check_after_it_agree(home, another_machine, monkeypatch, count):
    for seed in range(count):
        shutil.rmtree(home / "store", ignore_errors=True)
        another_machine(f"maker{seed}")
        lose_and_find(home / f"{seed}", home, another_machine, monkeypatch, random.Random(seed))


def lose_and_find(folder, home, another_machine, monkeypatch, drawn):
    pool = [random.Random(at).randbytes(drawn.choice((50, 300, 20_000, 150_000))) for at in range(14)]
    made = history(folder, drawn, pool)
    if drawn.random() < 0.5:
        another_machine(f"{folder.name}-reader")  # which knows no footer
    for one in made:
        Dataset.get(one).list_files()
    for number in range(3):
        damage_some(home, drawn)
        some = {f"x{at}": data for at, data in enumerate(pool) if drawn.random() < 0.5}
        monkeypatch.setattr(frames, "_LEVEL", drawn.choice((1, 1, 19)))
        done = repair(folders=[str(write(folder / f"found{number}", some))])
        another_machine(f"{folder.name}-{number}")
        require_as_told(made, done)
        with suppress(Corrupt):  # where lists of files are lost, nothing is known to be dead
            collect_garbage(open_workspace(), min_age=0, apply=True)
        require_as_told(made, done)

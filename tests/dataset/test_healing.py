"""A version made after a loss is whole where its maker has the bytes, and heals the versions before it."""

import random
import shutil

import pytest
from damage import change, check, first_pack, lost_files, packs_there, repair, small_files
from versions import version_of

from dataset_store import Dataset
from dataset_store.cli import main
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.checks.repairing import repair_store
from dataset_store.dataset.checks.surveying import EVERY_BYTE
from dataset_store.dataset.checks.verifying import verify_stored
from dataset_store.dataset.uploads import sending
from dataset_store.dataset.workspace import open_workspace
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.testing.folders import read, write


@pytest.fixture(autouse=True)
def _packs_of_100_kb(monkeypatch):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 100_000)


def child_of(parent):
    return Dataset.create(dataset_name="d", dataset_project="p", parent_datasets=[parent.id])


def lose(paths):
    """Packs that go, and a repair that finds nothing and tells so in the log."""
    for path in paths:
        path.unlink()
    workspaces._open.clear()
    repair()


@pytest.mark.parametrize("most", [1, 100], ids=["listed", "plain"])
@pytest.mark.parametrize("adds", ["sync_folder", "add_files"])
def test_a_child_given_the_whole_folder_again_is_whole_and_a_repair_heals_its_parent_from_it(
    home, another_machine, monkeypatch, caplog, most, adds
):
    """Nothing changed since the parent; but of what the store has lost of that the user has the bytes."""
    monkeypatch.setattr(sending, "MOST_SEGMENTS", most)
    folder = small_files(home, "one")
    write(folder, {"large": random.Random(3).randbytes(900_000)})
    first = version_of(folder)
    max(packs_there(home), key=lambda path: path.stat().st_size).unlink()
    repair()
    lost = lost_files()[first.id]
    assert "large" in lost
    another_machine()
    child = Dataset.create(dataset_name="d", dataset_project="p", parent_datasets=[first.id])
    getattr(child, adds)(str(folder))
    assert f"hold {len(lost)} unchanged files" in caplog.text
    child.finalize(auto_upload=True)
    assert lost_files() == {first.id: lost}
    assert read(Dataset.get(child.id).get_local_copy()) == read(folder)
    shutil.rmtree(folder)
    another_machine()
    assert repair().affected == ()
    assert check(EVERY_BYTE).sound
    assert verify_stored(open_workspace(), first.id).damaged == ()


@pytest.mark.parametrize("most", [1, 100], ids=["listed", "plain"])
def test_a_large_file_of_which_the_store_lost_what_it_was_is_edited_all_the_same(
    home, another_machine, monkeypatch, most
):
    """What a file was only saves space: chunks of packs that are not there any more are sent."""
    monkeypatch.setattr(sending, "MOST_SEGMENTS", most)
    data = random.Random(3).randbytes(900_000)
    first = version_of(write(home / "in", {"large": data}))
    another_machine()
    child = Dataset.create(dataset_name="d", dataset_project="p", parent_datasets=[first.id])
    child.add_files(str(write(home / "in", {"large": data[:450_000] + b"edited" + data[450_000:]})))
    for path in packs_there(home):
        if path.stat().st_size > 50_000:
            path.unlink()
    child.upload()


def test_a_child_that_is_given_nothing_again_has_its_parents_losses(home):
    first = version_of(small_files(home, "one"))
    first_pack(home).unlink()
    repair()
    child = Dataset.create(dataset_name="d", dataset_project="p", parent_datasets=[first.id])
    child.add_files(str(write(home / "more", {"m": b"m" * 5_000})))
    child.finalize(auto_upload=True)
    assert set(lost_files()) == {first.id, child.id}


def test_a_sync_on_the_command_line_keeps_a_version_that_only_heals(home, capsys):
    folder = str(small_files(home, "one"))
    assert main(["sync", "--folder", folder, "--project", "p", "--name", "d"]) == 0
    lose([first_pack(home)])
    assert lost_files()
    assert main(["sync", "--folder", folder]) == 0
    assert "discarded" not in capsys.readouterr().out
    assert len(lost_files()) == 1
    assert main(["sync", "--folder", folder]) == 0
    assert "discarded" in capsys.readouterr().out


@pytest.mark.parametrize("read_hash", [True, False])
def test_a_lost_link_stays_lost_and_spoils_no_draft(home, read_hash):
    """A folder has the file that it leads to, and not what was stored of it."""
    source = write(home / "source", {"l": b"linked" * 100})
    first = Dataset.create(dataset_name="d", dataset_project="p")
    first.add_external_files(f"file://{source / 'l'}", read_hash=read_hash)
    first.finalize(auto_upload=True)
    folder = home / "folder"
    shutil.copytree(first.get_local_copy(), folder)
    lose(packs_there(home))
    child = child_of(first)
    assert child.sync_folder(str(folder)) == (0, 0, 0)
    assert child.sync_folder(str(folder)) == (0, 0, 0)
    assert child.remove_files("l") == 1
    child.upload()


def test_a_part_that_was_stored_again_is_found_behind_the_place_where_both_begin(home, another_machine):
    data = random.Random(3).randbytes(300_000)
    start = version_of(write(home / "in", {"large": data[:150_000]}))
    before = set(packs_there(home))
    folder = write(home / "in", {"large": data})
    whole = version_of(folder, parent_datasets=[start.id])
    lose(path for path in set(packs_there(home)) - before if path.stat().st_size > 20_000)
    assert lost_files() == {whole.id: {"large"}}
    child = child_of(whole)
    child.sync_folder(str(folder))
    child.finalize(auto_upload=True)
    assert lost_files() == {whole.id: {"large"}}
    shutil.rmtree(folder)
    another_machine()
    assert repair().affected == ()


@pytest.mark.parametrize("first", ["link", "file"])
def test_a_link_to_an_equal_file_hides_no_place_of_it(home, another_machine, first):
    """It has the content id of the file that it leads to, and holds something else."""
    data = b"linked" * 1000
    source, folder = write(home / "source", {"l": data}), write(home / "in", {"f": data})

    def link():
        one = Dataset.create(dataset_name="links", dataset_project="p")
        one.add_external_files(f"file://{source / 'l'}", read_hash=True)
        one.finalize(auto_upload=True)

    if first == "link":
        link()
    before = set(packs_there(home))
    made = version_of(folder)
    gone = set(packs_there(home)) - before
    if first == "file":
        link()
    lose(gone)
    assert lost_files() == {made.id: {"f"}}
    child = child_of(made)
    child.sync_folder(str(folder))
    child.finalize(auto_upload=True)
    shutil.rmtree(folder)
    shutil.rmtree(source)
    another_machine()
    assert repair().affected == ()


def test_only_what_shares_a_frame_with_what_is_lost_is_stored_again(home, another_machine, caplog, monkeypatch):
    """Of a pack in which one frame is damaged the others serve as well where they are."""
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 1_000_000)
    drawn = random.Random(5)
    folder = write(home / "in", {f"g{at:03d}": drawn.randbytes(20_000) for at in range(30)})
    made = version_of(folder)
    change(max(packs_there(home), key=lambda path: path.stat().st_size), 500)
    another_machine()
    Dataset.get(made.id).list_files()
    repair()
    assert len(lost_files()[made.id]) == 1
    child = child_of(made)
    child.sync_folder(str(folder))
    assert "hold 13 unchanged files" in caplog.text
    child.finalize(auto_upload=True)
    assert set(lost_files()) == {made.id}


def listed_version(home, monkeypatch, count):
    """A version of large files with segment lists, and another one of which the store loses something."""
    monkeypatch.setattr(sending, "MOST_SEGMENTS", 1)
    drawn = random.Random(3)
    folder = write(home / "in", {f"large{at}": drawn.randbytes(300_000) for at in range(count)})
    made = version_of(folder)
    before = set(packs_there(home))
    version_of(small_files(home, "one"), dataset_name="other")
    lose(set(packs_there(home)) - before)
    return made, folder


def test_without_the_store_a_sync_takes_nothing_for_lost(home, another_machine, monkeypatch):
    made, folder = listed_version(home, monkeypatch, 2)
    another_machine()
    child = child_of(made)
    child.list_files()
    (home / "store").rename(home / "away")
    assert child.sync_folder(str(folder)) == (0, 0, 0)


def test_lists_of_all_files_are_looked_into_at_once(home, another_machine, monkeypatch, backends):
    made, folder = listed_version(home, monkeypatch, 12)
    another_machine()
    child = child_of(made)
    child.list_files()
    backends[-1].reset()
    child.sync_folder(str(folder))
    assert sum(backends[-1].snapshot().calls.values()) <= 3


def test_what_large_files_were_is_asked_for_in_few_rounds(home, another_machine, backends):
    drawn = random.Random(3)
    files = {f"large{at}": drawn.randbytes(150_000) for at in range(12)}
    made = version_of(write(home / "in", files))
    another_machine()
    child = child_of(made)
    child.add_files(str(write(home / "in", {name: data + b"more" for name, data in files.items()})))
    for path in packs_there(home)[::4]:
        if path.stat().st_size > 50_000:
            path.unlink()
    backends[-1].reset()
    child.upload()
    assert backends[-1].snapshot().calls["get_ranges"] < 30


def test_a_repair_asks_for_nothing_that_it_knows_to_be_lost(home, another_machine, backends):
    drawn = random.Random(5)
    made = version_of(write(home / "in", {f"f{at:04d}": drawn.randbytes(300) for at in range(300)}))
    another_machine()
    Dataset.get(made.id).list_files()
    for path in packs_there(home):
        if path.stat().st_size > 50_000:
            path.unlink()
    backends[-1].reset()
    assert repair_store(open_workspace()).affected
    assert sum(backends[-1].snapshot().calls.values()) < 40

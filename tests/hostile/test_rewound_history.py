"""A log that is not the one this machine has seen: told by whoever has seen more, as soon as it matters.

What a machine cannot tell that has seen nothing yet is told here too: it sees a shorter history, and believes it.
"""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3

from dataset_store import Dataset
from dataset_store.core.checkpoints import encode_checkpoint
from dataset_store.core.envelope import LOG_ENTRY, seal, unseal
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.checks.verifying import verify_stored
from dataset_store.errors import Corrupt, HistoryRewound, ObjectMissing
from dataset_store.testing.folders import write

FILES = {"a": b"a"}


@pytest.fixture
def seen(home):
    """A store of six entries, which this machine has read; the version in it."""
    workspaces._open.clear()
    made = Dataset.create(dataset_project="p", dataset_name="d")
    made.sync_folder(write(home / "files", FILES))
    made.finalize(auto_upload=True)
    for number in range(5):
        made.tags = [f"tag{number}"]
    assert len(slots(home)) == 6
    workspaces._open.clear()
    return made


def slots(home: Path) -> list[Path]:
    return sorted((home / "store/log/catalog").iterdir())


def put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def forged(path: Path, prev: str) -> bytes:
    """The entry of a slot with another tag, behind another one, and right by its own hash."""
    entry = json.loads(unseal(LOG_ENTRY, path.read_bytes(), "it")) | {"prev": prev, "add": ["forged"]}
    return seal(LOG_ENTRY, json.dumps(entry, sort_keys=True, separators=(",", ":")).encode())


def follow(home: Path, count: int) -> None:
    """Entries of another history behind the first `count`, each of which follows the one before it."""
    names = slots(home)
    for before, path in pairwise(names[count - 1 :]):
        put(path, forged(path, blake3(before.read_bytes()).hexdigest()))


def an_older_copy(home: Path) -> None:
    for path in slots(home)[3:]:
        path.unlink()


def nothing_at_all(home: Path) -> None:
    for path in slots(home):
        path.unlink()


def a_fork(home: Path) -> None:
    follow(home, 3)


def a_fork_of_everything_but_the_first(home: Path) -> None:
    follow(home, 1)


def the_last_one_dropped(home: Path) -> None:
    slots(home)[-1].unlink()


def the_last_two_swapped(home: Path) -> None:
    one, two = (path.read_bytes() for path in slots(home)[-2:])
    put(slots(home)[-2], two)
    put(slots(home)[-1], one)


DRILLS = [
    an_older_copy,
    nothing_at_all,
    a_fork,
    a_fork_of_everything_but_the_first,
    the_last_one_dropped,
    the_last_two_swapped,
]


@pytest.mark.parametrize("spoil", DRILLS)
def test_whoever_writes_is_told(home, seen, spoil):
    spoil(home)
    before = {path: path.read_bytes() for path in slots(home)}
    with pytest.raises(HistoryRewound, match="log/catalog"):
        Dataset.get(seen.id).tags = ["more"]
    assert {path: path.read_bytes() for path in slots(home)} == before


@pytest.mark.parametrize("spoil", DRILLS)
def test_whoever_verifies_is_told(home, seen, spoil):
    spoil(home)
    with pytest.raises(HistoryRewound, match="log/catalog"):
        verify_stored(workspaces.open_workspace(), seen.id)


@pytest.mark.parametrize("spoil", [a_fork, a_fork_of_everything_but_the_first])
def test_whoever_reads_is_told_as_soon_as_another_entry_follows(home, seen, spoil):
    longer = Dataset.get(seen.id)
    spoil(home)
    last = slots(home)[-1]
    put(last.with_name(f"{6:012d}"), forged(last, blake3(last.read_bytes()).hexdigest()))
    workspaces._open.clear()
    with pytest.raises(HistoryRewound, match="log/catalog"):
        Dataset.get(dataset_project="p", dataset_name="d")
    assert longer.tags == ["tag4"]


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("how", ["dropped", "swapped"])
def test_even_a_machine_without_a_memory_sees_that_the_middle_was_tampered_with(home, seen, another, at, how):
    names = slots(home)
    if how == "dropped":
        names[at].unlink()
    else:
        one, two = names[at].read_bytes(), names[at - 1].read_bytes()
        put(names[at], two)
        put(names[at - 1], one)
    with pytest.raises(Corrupt) as caught:
        Dataset.get(dataset_project="p", dataset_name="d")
        # A loss shows to readers where twice as much follows it, and to every writer.
        Dataset.get(seen.id).tags = ["more"]
    assert isinstance(caught.value, ObjectMissing) == (how == "dropped")


@pytest.fixture
def another(home, monkeypatch):
    """Go on as a machine that has seen nothing."""
    workspaces._open.clear()
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "other/cache"))
    monkeypatch.setenv("DATASET_STORE_DATA", str(home / "other/own"))


def test_a_machine_without_a_memory_believes_a_shorter_history(home, seen, another):
    an_older_copy(home)
    assert Dataset.get(dataset_project="p", dataset_name="d").tags == ["tag1"]


def test_a_forged_checkpoint_is_not_believed(home, monkeypatch):
    """Entries taken from a checkpoint must be what the log's own entries chain to."""
    workspaces._open.clear()
    made = Dataset.create(dataset_project="p", dataset_name="d")
    made.sync_folder(write(home / "files", FILES))
    made.finalize(auto_upload=True)
    for number in range(65):
        made.tags = [f"tag{number}"]
    (checkpoint,) = (home / "store/ckpt/catalog/1").iterdir()
    shutil.copytree(home / "store/log", home / "kept")
    follow(home, 40)
    put(checkpoint, encode_checkpoint(1, [path.read_bytes() for path in slots(home)][:64]))
    shutil.rmtree(home / "store/log")
    (home / "kept").rename(home / "store/log")
    # Whoever has read further does not ask for it; whoever has not finds that the log does not follow it.
    workspaces._open.clear()
    assert Dataset.get(dataset_project="p", dataset_name="d").tags == ["tag64"]
    workspaces._open.clear()
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "other/cache"))
    with pytest.raises(Corrupt):
        Dataset.get(dataset_project="p", dataset_name="d")

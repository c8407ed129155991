"""Somebody swaps directories for links, as fast as another process can, while folders are written and removed."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.core.paths import to_key
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import DatasetStoreError
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.removal import remove_tree
from dataset_store.testing.folders import write

ATTACK = """
import os, sys
base, outside, stop = sys.argv[1:]
swaps = number = 0
while not os.path.exists(stop):
    try:
        folders = [os.path.join(base, name) for name in os.listdir(base)]
    except OSError:
        continue
    for folder in folders:
        inside, kept = os.path.join(folder, "d"), os.path.join(folder, f"kept{number}")
        number += 1
        try:
            os.rename(inside, kept)
            os.symlink(outside, inside)
            swaps += 1
        except OSError:
            continue
        finally:
            for undo in (lambda: os.unlink(inside), lambda: os.rename(kept, inside)):
                try:
                    undo()
                except OSError:
                    pass
print(swaps)
"""


@contextmanager
def attacked(base: Path, outside: Path, swaps: list[int]):
    """While this lasts, every directory `d` of every folder in `base` is swapped for a link to `outside` and back."""
    stop = base.parent / "stop"
    attacker = subprocess.Popen([sys.executable, "-c", ATTACK, base, outside, stop], stdout=subprocess.PIPE)
    try:
        yield
    finally:
        stop.touch()
        said, _ = attacker.communicate(timeout=60)
        stop.unlink()
    swaps.append(int(said))


@pytest.fixture
def outside(tmp_path):
    made = tmp_path / "outside"
    (made / "e").mkdir(parents=True)
    (made / "precious").write_bytes(b"precious")
    (made / "e" / "too").write_bytes(b"precious")
    return made


def untouched(outside: Path) -> bool:
    found = {str(path.relative_to(outside)) for path in outside.rglob("*")}
    return found == {"precious", "e", "e/too"} and (outside / "precious").read_bytes() == b"precious"


def extract(base, number):
    folder = base / f"extract{number}"
    folder.mkdir()
    try:
        for name in range(30):
            with FolderWriter(folder) as writer:
                writer.write_small([to_key(f"d/e/{name}")], [b"x"], [False], [0])
                writer.make_directory(to_key(f"d/f{name}/g"))
                writer.symlinks([to_key(f"d/link{name}")], [b"e"])
    finally:
        remove_tree(os.fsencode(folder))


def remove(base, number):
    made = write(base.parent / "made", {f"d/e/{name}": b"x" for name in range(15)} | {"d/f/g/h": b"x"})
    folder = base / f"remove{number}"
    made.rename(folder)
    remove_tree(os.fsencode(folder))


def copy_out(base, number):
    target = base / f"copy{number}"
    Dataset.get(dataset_project="p", dataset_name="d").get_mutable_local_copy(str(target))
    remove_tree(os.fsencode(target))


@pytest.mark.parametrize("act", [extract, remove, copy_out])
@pytest.mark.parametrize(
    "least", [50, pytest.param(4_000, marks=[pytest.mark.heavy, pytest.mark.timeout(1200)])], ids=["some", "many"]
)
def test_nothing_outside_is_touched(home, outside, act, least, tell):
    """12,000 swaps in all, where heavy tests run."""
    workspaces._open.clear()
    made = Dataset.create(dataset_project="p", dataset_name="d")
    made.sync_folder(write(home / "files", {f"d/e/{name}": b"%d" % name for name in range(40)} | {"d/x": b"x"}))
    made.finalize(auto_upload=True)
    base, swaps = home / "base", []
    base.mkdir()
    done = refused = 0
    end = time.monotonic() + (5 if least < 100 else 400)
    while sum(swaps) < least and time.monotonic() < end:
        with attacked(base, outside, swaps):
            until = time.monotonic() + (0.7 if least < 100 else 10)
            while time.monotonic() < until:
                try:
                    act(base, done + refused)
                    done += 1
                except DatasetStoreError:
                    refused += 1
        assert untouched(outside)
    tell("directories swapped for links", swaps=sum(swaps), done=done, refused=refused)
    assert done + refused
    assert sum(swaps) >= least

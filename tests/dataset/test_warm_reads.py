"""Warm is free: what is sent to the store, and what is opened, when this machine has been there before."""

import os
import random
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces


def requests(backends) -> int:
    return sum(sum(backend.snapshot().calls.values()) for backend in backends)


def bytes_read(backends) -> int:
    return sum(backend.snapshot().bytes_read for backend in backends)


def reopened(backends) -> None:
    """As in a new process: what is on disk is all that is known."""
    workspaces._open.clear()
    backends.clear()


def fill(folder: Path, small: int = 200, large: int = 2_000_000) -> Path:
    rng = random.Random(3)
    for number in range(small):
        path = folder / f"d{number % 10}" / f"f{number:05d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(700))
    (folder / "large.bin").write_bytes(rng.randbytes(large))
    return folder


def version(folder: Path, **create) -> Dataset:
    dataset = Dataset.create(**({"dataset_name": "d", "dataset_project": "p"} | create))
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    return dataset


def test_a_second_local_copy_by_id_sends_nothing(home, backends):
    dataset = version(fill(home / "in"))
    path = dataset.get_local_copy()
    reopened(backends)
    assert Dataset.get(dataset.id).get_local_copy() == path
    assert requests(backends) == 0


def test_a_second_local_copy_by_name_or_tag_sends_one_request(home, backends):
    dataset = version(fill(home / "in"), dataset_tags=["t"])
    path = dataset.get_local_copy()
    for named in ({"dataset_project": "p", "dataset_name": "d"}, {"dataset_tags": "t"}):
        reopened(backends)
        assert Dataset.get(**named).get_local_copy() == path
        assert requests(backends) == 1


def test_the_next_version_fetches_what_changed_and_its_nodes_and_footers(home, backends, monkeypatch):
    folder = fill(home / "in", small=2_000, large=20_000_000)
    first = version(folder)
    use_other_machine(home, monkeypatch)
    Dataset.get(first.id).get_local_copy()
    use_first_machine(home, monkeypatch)
    rng = random.Random(4)
    for number in rng.sample(range(2_000), 10):
        (folder / f"d{number % 10}" / f"f{number:05d}").write_bytes(rng.randbytes(700))
    data = (folder / "large.bin").read_bytes()
    (folder / "large.bin").write_bytes(data[:9_000_000] + b"inserted" + data[9_000_000:])
    packs = {path for path in (home / "store" / "packs").rglob("*") if path.is_file()}
    second = version(folder, parent_datasets=[first])
    (new,) = {path for path in (home / "store" / "packs").rglob("*") if path.is_file()} - packs
    footers = sum(footer_bytes(path) for path in (*packs, new))
    log = sum(path.stat().st_size for path in (home / "store" / "log").rglob("*") if path.is_file())
    use_other_machine(home, monkeypatch)
    backends.clear()
    copy = Path(Dataset.get(second.id).get_local_copy())
    assert (copy / "large.bin").read_bytes() == (folder / "large.bin").read_bytes()
    assert bytes_read(backends) <= 1.1 * (new.stat().st_size + footers + log)


def footer_bytes(pack: Path) -> int:
    return int.from_bytes(pack.read_bytes()[-56:-48], "little") + 64


def use_other_machine(home, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "other-cache"))
    monkeypatch.setenv("DATASET_STORE_DATA", str(home / "other-own"))
    workspaces._open.clear()


def use_first_machine(home, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "cache"))
    monkeypatch.setenv("DATASET_STORE_DATA", str(home / "own"))
    workspaces._open.clear()


# --- as the kernel sees it ----------------------------------------------------------------------------------------

STEPS = {
    "sync": "d = Dataset.get(sys.argv[1]); c = Dataset.create(parent_datasets=[d]); print(c.sync_folder(sys.argv[2]))",
    "get": "print(Dataset.get(sys.argv[1]).get_local_copy())",
}


def opened_paths(home: Path, step: str, *arguments: str) -> list[str]:
    """Files that a process of its own opens in one step, by strace."""
    log = home / f"{step}.strace"
    code = f"import sys; from dataset_store import Dataset; {STEPS[step]}"
    tracing = ("strace", "-f", "-qq", "-e", "trace=open,openat,openat2,creat", "-o", str(log))
    subprocess.run([*tracing, sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    lines = log.read_text(errors="replace").splitlines()
    return [line.split('"')[1] for line in lines if '"' in line and "O_DIRECTORY" not in line and " = -1 " not in line]


needs_strace = pytest.mark.skipif(which("strace") is None, reason="needs strace: apt-get install strace")


def settle(folder: Path) -> None:
    """Let the files be old enough for the stat cache to trust them."""
    for path in folder.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    import time

    time.sleep(0.05)


@pytest.mark.heavy
@needs_strace
def test_a_second_local_copy_opens_nothing_in_the_store_and_no_file_of_the_copy(home):
    dataset = version(fill(home / "in"))
    copy = dataset.get_local_copy()
    paths = opened_paths(home, "get", dataset.id)
    assert [path for path in paths if path.startswith(str(home / "store"))] == []
    assert [path for path in paths if path.startswith(copy + "/")] == []


@pytest.mark.heavy
@needs_strace
def test_a_sync_without_changes_opens_no_file_of_the_folder(home):
    folder = fill(home / "in")
    settle(folder)
    dataset = version(folder)
    paths = opened_paths(home, "sync", dataset.id, str(folder))
    assert [path for path in paths if path.startswith(str(folder))] == []


@pytest.mark.heavy
@needs_strace
def test_syncing_a_mutable_copy_opens_only_the_file_that_was_changed(home):
    dataset = version(fill(home / "in"))
    work = Path(dataset.get_mutable_local_copy(home / "work"))
    (work / "d3" / "f00003").write_bytes(b"changed")
    paths = opened_paths(home, "sync", dataset.id, str(work))
    assert [path for path in paths if path.startswith(str(work))] == [str(work / "d3" / "f00003")]


def test_a_sync_without_changes_reads_no_file(home, monkeypatch):
    folder = fill(home / "in")
    settle(folder)
    dataset = version(folder)
    from dataset_store.local import batches, reading

    def refuse(path, *_):
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(batches, "_files", None)
    monkeypatch.setattr(reading, "_open", refuse)
    child = Dataset.create(parent_datasets=[dataset])
    assert child.sync_folder(folder) == (0, 0, 0)

"""What is sent to an S3 server, counted as the server sees it; the probe that begins a store stands apart."""

import random
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.upkeep.maintaining import packs_of_version, repack_packs
from dataset_store.storage import s3_client
from dataset_store.testing.folders import write


@pytest.fixture
def sent(home, s3_bucket, s3_proxy, monkeypatch):
    """A store in a bucket, empty; what was sent to it since this was last called, the probe left out."""
    monkeypatch.setenv("DATASET_STORE_URL", f"{s3_bucket}/{secrets.token_hex(8)}")

    def taken():
        seen = [f"{one.method} {one.key.partition('/')[2]}" for one in s3_proxy.requests if "/probe/" not in one.target]
        s3_proxy.requests.clear()
        return seen

    return taken


def version(folder: Path, **create) -> Dataset:
    dataset = Dataset.create(**({"dataset_project": "p", "dataset_name": "d"} | create))
    dataset.sync_folder(folder)
    dataset.upload()
    dataset.finalize()
    return dataset


def packs(seen):
    return [one for one in seen if one.startswith("PUT packs/")]


def small_files(folder: Path, count: int) -> Path:
    drawn = random.Random(count)
    for number in range(count):
        path = folder / f"d{number // 1000}" / f"f{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.randbytes(drawn.randrange(200, 4_000)))
    return folder


def first_commit(sent, folder):
    version(folder)
    seen = sent()
    assert len(packs(seen)) >= 1
    print(f"first commit: {len(seen)} requests, {len(packs(seen))} of them packs")
    assert len(seen) <= len(packs(seen)) + 20, seen
    # One more than what is needed would be one that could be needless.
    assert len(seen) == len(packs(seen)) + 5, seen


def test_a_first_commit_sends_its_packs_and_five_requests(sent, home):
    first_commit(sent, small_files(home / "in", 200))


@pytest.mark.heavy
def test_a_first_commit_of_50_000_small_files_sends_its_packs_and_five_requests(sent, home):
    first_commit(sent, small_files(home / "in", 50_000))


def test_a_small_commit_sends_five_requests(sent, home):
    folder = write(home / "in", {f"d{n % 7}/f{n}": b"%d" % n for n in range(300)})
    first = version(folder)
    write(folder, {"d1/f1": b"changed", "new": b"new"})
    sent()
    version(folder, parent_datasets=[first])
    seen = sent()
    assert len(seen) == 5, seen
    assert len(packs(seen)) == 1


def test_a_small_commit_of_a_new_process_sends_six_requests(sent, home):
    folder = write(home / "in", {f"d{n % 7}/f{n}": b"%d" % n for n in range(300)})
    first = version(folder)
    write(folder, {"d1/f1": b"changed"})
    workspaces._open.clear()
    sent()
    version(folder, parent_datasets=[first.id])
    seen = sent()
    assert len(seen) <= 6, seen
    assert "GET log/catalog/000000000000" in seen, "that the log still has what this machine knows of it"


def test_who_reads_a_store_and_then_writes_to_it_connects_once(sent, home, monkeypatch):
    first = version(write(home / "in", {"a": b"a"}))
    workspaces._open.clear()
    opened = []
    monkeypatch.setattr(s3_client, "_open", lambda options, real=s3_client._open: opened.append(1) or real(options))
    version(home / "in", parent_datasets=[Dataset.get(first.id)])
    assert len(opened) == 1


def test_a_small_commit_of_a_new_machine_looks_behind_the_log_once(sent, home, another_machine):
    folder = write(home / "in", {f"d{n % 7}/f{n}": b"%d" % n for n in range(300)})
    first = version(folder)
    another_machine()
    Dataset.get(first.id).list_files()
    sent()
    for looks in (17, 0):
        write(folder, {"d1/f1": b"changed %d" % looks})
        workspaces._open.clear()
        version(folder, parent_datasets=[first.id])
        seen = [one for one in sent() if one.startswith(("GET ckpt/", "GET log/"))]
        assert len(seen) - looks <= 4, seen


@pytest.mark.parametrize("named", [{"dataset_project": "p", "dataset_name": "d"}, {"dataset_tags": "t"}])
def test_get_by_name_or_tag_and_a_warm_copy_send_one_request_also_in_a_new_process(sent, home, named):
    dataset = version(write(home / "in", {"a": b"a", "b/c": b"c"}), dataset_tags=["t"])
    path = dataset.get_local_copy()
    sent()
    assert Dataset.get(**named).get_local_copy() == path
    assert len(sent()) == 1
    workspaces._open.clear()
    assert Dataset.get(**named).get_local_copy() == path
    assert len(sent()) == 1


def test_get_by_id_and_a_warm_copy_send_nothing(sent, home):
    dataset = version(write(home / "in", {"a": b"a", "b/c": b"c"}))
    path = dataset.get_local_copy()
    workspaces._open.clear()
    sent()
    assert Dataset.get(dataset.id).get_local_copy() == path
    assert sent() == []


def test_reading_a_warm_copy_in_a_process_of_its_own_sends_one_request(sent, home, s3_proxy, monkeypatch):
    path = version(write(home / "in", {"a": b"a"})).get_local_copy()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    sent()
    code = (
        "from dataset_store import Dataset; print(Dataset.get(dataset_project='p', dataset_name='d').get_local_copy())"
    )
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(path)
    assert len(sent()) == 1


def cold_read_of_a_repacked_version(sent, home, another_machine, large, small):
    """The last of several versions, each of which left its part of it in packs of its own."""
    folder = small_files(home / "in", small)
    drawn, made = random.Random(1), None
    for number in range(6):
        part = folder / f"large{number % 3}"
        part.write_bytes(drawn.randbytes(large // 3))
        for path in sorted(folder.glob("d*/*"))[number::7]:
            path.write_bytes(drawn.randbytes(700))
        made = version(folder, parent_datasets=[] if made is None else [made])
    workspace = workspaces.open_workspace()
    last = workspace.live_version(made.id)
    repack_packs(workspace, [one.pack for one in packs_of_version(workspace, last)], last)
    another_machine()
    found = Dataset.get(made.id)
    sent()
    copy = Path(found.get_local_copy())
    seen = [one for one in sent() if not one.startswith(("GET log/", "GET ckpt/"))]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert {str(path.relative_to(copy)) for path in copy.rglob("*")} == {
        str(path.relative_to(folder)) for path in folder.rglob("*")
    }
    print(f"cold read of {size >> 20} MiB in {len(list(folder.rglob('*')))} files: {len(seen)} requests")
    assert len(seen) <= size / (8 << 20) + 20, seen


def test_a_cold_read_of_a_repacked_version_asks_for_long_ranges(sent, home, another_machine):
    cold_read_of_a_repacked_version(sent, home, another_machine, 24 << 20, 300)


@pytest.mark.heavy
def test_a_cold_read_of_a_large_repacked_version_asks_for_long_ranges(sent, home, another_machine):
    cold_read_of_a_repacked_version(sent, home, another_machine, 300 << 20, 5_000)

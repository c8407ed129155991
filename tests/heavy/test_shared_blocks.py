"""Mutable copies on file systems that can share blocks: they take no room, and neither side sees the other change."""

import os
import random
import shutil
import subprocess

import pytest
from versions import version_of

from dataset_store import Dataset
from dataset_store.local import batches
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.testing.folders import read, write

FORMAT = {"xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}
LARGE = 40 << 20


@pytest.fixture(params=FORMAT)
def mounted(request, tmp_path):
    """A new file system of this kind."""
    tool = FORMAT[request.param]
    if os.geteuid() != 0 or shutil.which(tool[0]) is None:
        pytest.skip(f"needs root and {tool[0]}")
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run([*tool, str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False).returncode != 0:
        pytest.skip(f"no {request.param} can be mounted here")
    yield folder
    # This process has indexes open there; the image goes with it.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def version(mounted, monkeypatch):
    """One large file and some small ones, with a local copy, all on that file system."""
    for name, folder in (("URL", "store"), ("CACHE", "cache"), ("DATA", "own")):
        monkeypatch.setenv(f"DATASET_STORE_{name}", str(mounted / folder))
    files = {"large": random.Random(1).randbytes(LARGE), "run": random.Random(2).randbytes(600_000), "small": b"small"}
    source = write(mounted / "in", files)
    (source / "run").chmod(0o755)
    version = version_of(source)
    version.get_local_copy()
    return version, files


def room(folder):
    os.sync()
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@pytest.mark.heavy
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
def test_many_small_files_are_shared_too_with_their_modes_and_times(mounted, version, monkeypatch, compiled):
    drawn = random.Random(3)
    files = {f"{number % 7}/{number}": drawn.randbytes(drawn.randint(1, 30_000)) for number in range(3_000)}
    source = write(mounted / "many", files)
    for name in sorted(files)[::5]:
        (source / name).chmod(0o755)
    dataset = version_of(source, dataset_name="many")
    held = dataset.get_local_copy()
    if not compiled:
        monkeypatch.setattr(batches, "_files", None)
    written = []
    monkeypatch.setattr(FolderWriter, "write_small", lambda _writer, keys, *_: written.extend(keys))
    before = room(mounted)
    work = mounted / "work"
    dataset.get_mutable_local_copy(work)
    assert written == [], "nothing is copied"
    # The blocks of files that btrfs keeps beside their names are not shared; they are small.
    assert before - room(mounted) < sum(map(len, files.values())) // 4
    assert read(work) == files
    for name in files:
        here, there = (source / name).stat(), (work / name).stat()
        assert (here.st_mode & 0o111, here.st_mtime_ns) == (there.st_mode & 0o111, there.st_mtime_ns)
        assert not os.path.samefile(os.path.join(held, name), work / name)


@pytest.mark.heavy
def test_a_mutable_copy_shares_blocks_until_it_is_changed(mounted, version):
    dataset, files = version
    before = room(mounted)
    work = mounted / "work"
    dataset.get_mutable_local_copy(work)
    assert before - room(mounted) < LARGE // 8
    assert read(work) == files
    assert (work / "run").stat().st_mode & 0o777 == 0o755
    assert (work / "large").stat().st_mode & 0o777 == 0o644
    copy = dataset.get_local_copy()
    assert not os.path.samefile(f"{copy}/large", work / "large")
    with (work / "large").open("r+b") as file:
        file.write(b"changed")
    (work / "run").write_bytes(b"")
    assert read(copy) == files
    child = Dataset.create("d", parent_datasets=[dataset])
    child.sync_folder(work)
    child.finalize(auto_upload=True)
    assert read(child.get_local_copy()) == read(work)


@pytest.mark.heavy
def test_a_file_that_somebody_changed_in_the_cache_is_not_shared(mounted, version):
    dataset, files = version
    held = os.path.join(dataset.get_local_copy(), "large")
    os.chmod(held, 0o644)
    with open(held, "r+b") as file:
        file.write(b"changed")
    work = mounted / "work"
    dataset.get_mutable_local_copy(work)
    assert read(work) == files

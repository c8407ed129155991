"""What the tests of kill points run as a process: a commit on top of an acknowledged version, and a look at the store.

    python commit_steps.py begin HOME      makes the acknowledged version
    python commit_steps.py commit HOME     create, sync, upload, finalize; begun by an earlier call, goes on
    python commit_steps.py look HOME       prints what the store holds, as JSON; with an error where a law is broken

In HOME are `first` and `second`, the folders that the two versions hold. `PLANTED` in the environment writes the log
entry before the packs.
"""

import json
import os
import sys
from pathlib import Path

from dataset_store import Dataset
from dataset_store.core.envelope import object_digest
from dataset_store.core.log_entries import VersionEntry
from dataset_store.dataset.overview import drafts_of
from dataset_store.dataset.workspace import open_workspace
from dataset_store.storage.log import Log
from dataset_store.storage.packs import PackWriter
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.repository import fetch_config


def be_machine(home, name):
    os.environ["DATASET_STORE_URL"] = str(home / "store")
    os.environ["DATASET_STORE_CACHE"] = str(home / f"cache{name}")
    os.environ["DATASET_STORE_DATA"] = str(home / f"own{name}")


def begin(home):
    first = Dataset.create(dataset_project="p", dataset_name="d")
    first.sync_folder(home / "first")
    first.finalize(auto_upload=True)
    (home / "acknowledged").write_text(first.id)
    first.get_local_copy()


def commit(home):
    note = home / "draft"
    if note.exists():
        dataset = Dataset.get(note.read_text())
    else:
        dataset = Dataset.create(parent_datasets=[(home / "acknowledged").read_text()])
        (home / "draft.new").write_text(dataset.id)
        (home / "draft.new").rename(note)
    if not dataset.is_final():
        dataset.sync_folder(home / "second")
        dataset.upload()
        dataset.finalize()
    dataset.get_local_copy()


def read(folder):
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() or path.is_symlink():
            name = path.relative_to(folder).as_posix()
            found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found


def look(home):
    """The laws: a log without gaps, and every version in it complete, here and on a machine that has read nothing."""
    backend = PosixBackend(str(home / "store"))
    log = Log(backend, object_digest(fetch_config(backend)))
    records = list(log.read_after(log.start))
    slots = sorted(path.name for path in (home / "store" / "log" / "catalog").iterdir())
    assert slots == [f"{record.slot:012d}" for record in records] == [f"{n:012d}" for n in range(len(slots))]
    acknowledged = (home / "acknowledged").read_text()
    versions = [record.entry for record in records]
    assert all(isinstance(entry, VersionEntry) for entry in versions)
    assert versions[0].commit == acknowledged
    first, second = read(home / "first"), read(home / "second")
    for machine in ("", "-fresh"):
        be_machine(home, machine)
        assert Dataset.get(dataset_project="p", dataset_name="d").id == versions[-1].commit
        drafts_of(open_workspace())
        for entry in versions:
            dataset = Dataset.get(entry.commit)
            assert dataset.is_final()
            assert read(dataset.get_local_copy()) == (first if entry.commit == acknowledged else second)
    finished = (home / "draft").exists() and (home / "draft").read_text() in {entry.commit for entry in versions}
    print(json.dumps({"versions": len(versions), "finished": finished}))


def write_the_entry_before_the_packs():
    """A bug, planted: packs wait in memory until the log entry was created."""
    waiting = []
    put, create = PosixBackend.put, PosixBackend.create

    def put_later(backend, key, buffers):
        waiting.append((backend, key, [bytes(buffer) for buffer in buffers]))

    def create_first(backend, key, buffers):
        made = create(backend, key, buffers)
        while key.startswith("log/") and waiting:
            put(*waiting.pop(0))
        return made

    PosixBackend.put, PosixBackend.create = put_later, create_first


if __name__ == "__main__":
    here = Path(sys.argv[2])
    be_machine(here, "")
    # Several packs, so that there is something between them.
    PackWriter.__init__.__kwdefaults__["target"] = 100_000
    if os.environ.get("PLANTED"):
        write_the_entry_before_the_packs()
    {"begin": begin, "commit": commit, "look": look}[sys.argv[1]](here)

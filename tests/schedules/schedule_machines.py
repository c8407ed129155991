"""Machines of a schedule: real workspaces on a scheduled backend.

What is replaced is only what the scheduler cannot decide, or what costs time and has no part in the protocol: LMDB by a
dict, threads by calls, the random generator by the seed's, pauses by nothing, and fsync by nothing. Drafts keep their
real journals, on a file system in memory.
"""

import os
import shutil
import tempfile
import time
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from unittest import mock

from schedule import ScheduledBackend

from dataset_store.core import shape
from dataset_store.dataset.workspace import Workspace
from dataset_store.local import chunk_index, ingest
from dataset_store.local.chunk_index import ChunkIndex
from dataset_store.local.settings import Settings
from dataset_store.storage import log, pack_writer
from dataset_store.storage.log import Pacing
from dataset_store.storage.store import open_store

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Memory:
    """In place of an LMDB environment."""

    def __init__(self, _directory=""):
        self.held = {}

    def get_many(self, keys):
        return [self.held.get(key) for key in keys]

    def put_many(self, items, *, overwrite=True):
        for key, value in items:
            if overwrite or key not in self.held:
                self.held[key] = value

    def delete_many(self, keys):
        for key in keys:
            self.held.pop(key, None)

    def read(self, work):
        return work(self)

    def write(self, work):
        work(self)


class Inline:
    """In place of a pool of threads."""

    def __init__(self, *_arguments):
        pass

    def submit(self, work, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:  # noqa: BLE001  (as a pool does)
            future.set_exception(error)
        return future

    def shutdown(self, **_options):
        pass


class Machine:
    """One machine: its workspace, which outlives the processes that use it, and its folder."""

    def __init__(self, world, scheduler, folder: Path):
        self.world, self.rng = world, world.rng
        self.folder = folder
        folder.mkdir()
        self.summaries = Memory()
        self.keeper = Memory()
        store = open_store(ScheduledBackend(scheduler), world.config, os.devnull + "/none", self.keeper)
        settings = Settings(store="schedule://", cache=str(folder / "cache"), data=str(folder), cache_bytes=0)
        self.workspace = Workspace(settings, store, ChunkIndex(""), None, None)


@contextmanager
def machines(rng):
    """A folder for the machines of one schedule; within it code is as the module says."""
    folder = Path(tempfile.mkdtemp(prefix="schedule-", dir=MEMORY))
    pacing = Pacing(sleep=lambda _: None, jitter=rng.random, attempts=3)
    replaced = [
        mock.patch.object(chunk_index, "BestEffort", Memory),
        mock.patch.object(ingest, "ThreadPoolExecutor", Inline),
        mock.patch.object(log, "Pacing", return_value=pacing),
        mock.patch.object(os, "urandom", rng.randbytes),
        mock.patch.object(os, "fsync"),
        mock.patch.object(time, "time_ns", count(1).__next__),
        mock.patch.dict(pack_writer.PackWriter.__init__.__kwdefaults__, {"target": 1000}),
        # Trees of a few entries have several leaves.
        mock.patch.object(shape, "LEAF", shape.Shape(2, 4, 2**31)),
        mock.patch.object(shape, "INNER", shape.Shape(2, 4, 2**31)),
    ]
    with ExitStack() as stack:
        for one in replaced:
            stack.enter_context(one)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

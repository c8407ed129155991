"""One process of a soak: a writer, or the collector, on one store beside others, until it is time to stop.

    python soak.py writer NUMBER UNTIL JOURNAL
    python soak.py collector NUMBER UNTIL JOURNAL

UNTIL is a monotonic time in seconds. A writer makes versions of folders of its own, on top of its own versions or of
anybody's, and deletes some; in one round of twenty it kills itself somewhere. What it means to commit, what it was told
of, and what it means to delete stand in its journal, a line of JSON each, before and after it is done.
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from dataset_store import Dataset
from dataset_store.dataset.upkeep.maintaining import collect_garbage, repack_packs, wasteful_packs
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import DatasetNotFound, VersionDeleted

KILLS = 0.05
PAUSE = 0.05
KEPT = 6
"""Versions that a writer leaves before it deletes its oldest."""

CONTENTS = [random.Random(number).randbytes(40 + 4_000 * (number % 9)) for number in range(60)]
"""What files hold: the same for all writers, so that what one lets die another is about to use."""


class Journal:
    """Lines that survive whatever becomes of the process."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.touch()

    def write(self, **line):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"at": time.monotonic()}) + "\n")

    def lines(self):
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


class Writer:
    """One user's machine; another process of it goes on where the last one was killed."""

    def __init__(self, number, journal):
        self.journal = journal
        self.rng = random.Random()
        self.folder = Path(os.environ["DATASET_STORE_DATA"]).parent / f"folder{number}"
        self.folder.mkdir(exist_ok=True)
        lines = journal.lines()
        done = {line["id"] for line in lines if line["what"] in ("committed", "given up")}
        self.open = [line["id"] for line in lines if line["what"] == "means to commit" and line["id"] not in done]
        gone = {line["id"] for line in lines if line["what"] == "means to delete"}
        self.own = [line["id"] for line in lines if line["what"] == "committed" and line["id"] not in gone]

    def go_on(self):
        """What the process before this one had begun."""
        for version_id in dict.fromkeys(self.open):
            try:
                found = Dataset.get(version_id)
                if not found.is_final():
                    found.finalize(auto_upload=True)
            except (DatasetNotFound, VersionDeleted):
                self.journal.write(what="given up", id=version_id)
            else:
                self.journal.write(what="committed", id=version_id)
                self.own.append(version_id)

    def round(self):
        if self.rng.random() < KILLS:
            threading.Timer(self.rng.random() * 0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
        with suppress(DatasetNotFound, VersionDeleted):  # its parent died; another one next time
            self.commit()
        if len(self.own) > KEPT and self.rng.random() < 0.7:
            victim = self.own.pop(0)
            self.journal.write(what="means to delete", id=victim)
            Dataset.delete(victim, force=True)
        if self.own and self.rng.random() < 0.1:
            self.check(self.rng.choice(self.own))

    def commit(self):
        parents = [self.rng.choice(self.own)] if self.own and self.rng.random() < 0.6 else []
        if self.rng.random() < 0.3:
            live = [row.id for row in open_workspace().refresh().live_versions()]
            parents = self.rng.sample(live, min(len(live), self.rng.randint(1, 2)))
        self.edit()
        made = Dataset.create(dataset_project="p", dataset_name=f"d{self.rng.randrange(3)}", parent_datasets=parents)
        made.sync_folder(self.folder)
        if self.rng.random() < 0.4:
            made.upload()
            time.sleep(self.rng.random() * 0.3)  # so that what it found is collected meanwhile
        files = {str(path.relative_to(self.folder)): digest(path) for path in self.folder.rglob("*") if path.is_file()}
        self.journal.write(what="means to commit", id=made.id, files=files)
        made.finalize(auto_upload=True)
        self.journal.write(what="committed", id=made.id)
        self.own.append(made.id)

    def edit(self):
        for _ in range(self.rng.randint(1, 8)):
            path = self.folder / f"d{self.rng.randrange(4)}" / f"f{self.rng.randrange(10)}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(self.rng.choice(CONTENTS))

    def check(self, version_id):
        """A version of one's own is what it was, read from the store."""
        (said,) = [
            line["files"]
            for line in self.journal.lines()
            if line["what"] == "means to commit" and line["id"] == version_id
        ][-1:]
        target = self.folder.with_name(f"{self.folder.name}-copy")
        Dataset.get(version_id).get_mutable_local_copy(str(target), overwrite=True)
        assert {str(path.relative_to(target)): digest(path) for path in target.rglob("*") if path.is_file()} == said
        shutil.rmtree(target)


def digest(path):
    return blake3(path.read_bytes()).hexdigest()


def write(number, until, journal):
    writer = Writer(number, journal)
    writer.go_on()
    while time.monotonic() < until:
        writer.round()


def collect(_number, until, journal):
    rounds = 0
    while time.monotonic() < until:
        collect_garbage(open_workspace(), min_age=0, apply=True)
        rounds += 1
        if rounds % 10 == 0:
            packs = [one.pack for one in wasteful_packs(open_workspace(), dead_share=0.3)]
            if packs:
                repack_packs(open_workspace(), packs)
        journal.write(what="collected")
        time.sleep(PAUSE)


if __name__ == "__main__":
    role, who, end, path = sys.argv[1:]
    {"writer": write, "collector": collect}[role](int(who), float(end), Journal(path))

"""Several processes at one store, one cache and one draft."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.core.envelope import object_digest
from dataset_store.core.log_entries import VersionEntry
from dataset_store.dataset import workspace as workspaces
from dataset_store.storage.log import Log
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.store import fetch_config

WORKER = """
import sys, time
from dataset_store import Dataset
from dataset_store.dataset.copies import filling
from dataset_store.errors import DatasetStoreError

fills = 0
fill = filling.fill

def counted(*arguments, **named):
    global fills
    fills += 1
    return fill(*arguments, **named)

def never_ending(*arguments, **named):
    fill(*arguments, **named)
    print("filled", flush=True)
    time.sleep(3600)

filling.fill = counted
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except DatasetStoreError as error:
        print(type(error).__name__, flush=True)
"""


class Worker:
    """A process that evaluates expressions, one line at a time."""

    def __init__(self, **variables):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {name: str(value) for name, value in variables.items()},
            text=True,
        )

    def begin(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def answer(self):
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, expression):
        self.begin(expression)
        return self.answer()

    def end(self):
        self.process.communicate(timeout=60)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.fixture
def start():
    workers = []

    def begin(**variables):
        workers.append(Worker(**variables))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


def all_at_once(workers, expression):
    for worker in workers:
        worker.begin(expression)
    return [worker.answer() for worker in workers]


def log_of(home):
    backend = PosixBackend(str(home / "store"))
    log = Log(backend, object_digest(fetch_config(backend)))
    return list(log.read_after(log.start))


def make_version(home, number, files=1, size=10):
    folder = home / f"in{number}"
    folder.mkdir()
    for at in range(files):
        (folder / str(at)).write_bytes(b"%d " % number * size)
    dataset = Dataset.create(dataset_name="d", dataset_project="p")
    dataset.add_files(folder)
    dataset.finalize(auto_upload=True)
    return dataset


@pytest.mark.parametrize(("processes", "one_machine"), [(2, True), (2, False), (4, True), (4, False)])
def test_versions_finalized_at_once_all_land_in_one_series_with_numbers_of_their_own(
    home, start, processes, one_machine
):
    machines = [
        {} if one_machine else {"DATASET_STORE_CACHE": home / f"c{n}", "DATASET_STORE_DATA": home / f"o{n}"}
        for n in range(processes)
    ]
    workers = [start(**machine) for machine in machines]
    rounds = 10
    for turn in range(rounds):
        for number, worker in enumerate(workers):
            (home / f"f{number}").write_text(f"{turn} {number}")
            worker.ask("[made := Dataset.create(dataset_name='d', dataset_project='p')]")
            assert worker.ask(f"made.add_files({str(home / f'f{number}')!r})") == "1"
        assert all_at_once(workers, "made.finalize(auto_upload=True)") == ["True"] * processes
    records = log_of(home)
    entries = [record.entry for record in records]
    count = rounds * processes
    assert [record.slot for record in records] == list(range(count))
    assert all(isinstance(entry, VersionEntry) for entry in entries)
    assert len({entry.series for entry in entries}) == 1
    assert [entry.opens is not None for entry in entries] == [True] + [False] * (count - 1)
    assert sorted(entry.version for entry in entries) == sorted(f"1.0.{n}" for n in range(count))
    assert not workspaces.open_workspace().refresh().invalid
    found = sorted(next(Path(Dataset.get(entry.commit).get_local_copy()).iterdir()).read_text() for entry in entries)
    assert found == sorted(f"{turn} {number}" for turn in range(rounds) for number in range(processes))


def test_of_versions_finalized_at_once_with_one_number_exactly_one_lands(home, start):
    workers = [start() for _ in range(4)]
    for turn in range(5):
        for worker in workers:
            worker.ask(f"[made := Dataset.create(dataset_name='d', dataset_version='{turn}.0')]")
        answers = all_at_once(workers, "made.finalize()")
        assert sorted(answers) == ["True", "VersionExists", "VersionExists", "VersionExists"]
    assert [record.entry.version for record in log_of(home)] == [f"{turn}.0" for turn in range(5)]


def test_of_processes_that_want_a_local_copy_at_once_one_makes_it_and_all_get_it_whole(home, start):
    versions = [make_version(home, n, files=200, size=200) for n in range(5)]
    workers = [start() for _ in range(3)]
    for made, version in enumerate(versions, start=1):
        paths = all_at_once(workers, f"Dataset.get({version.id!r}).get_local_copy()")
        assert len(set(paths)) == 1
        assert {p.name: p.read_bytes() for p in Path(paths[0]).iterdir()} == {
            p.name: p.read_bytes() for p in (home / f"in{made - 1}").iterdir()
        }
        assert sum(int(worker.ask("fills")) for worker in workers) == made


def test_threads_that_want_a_local_copy_at_once_all_get_it(home):
    version = make_version(home, 1, files=50)
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(version.get_local_copy())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(paths) == 4
    assert len(set(paths)) == 1


def test_a_copy_whose_maker_was_killed_is_made_by_who_waits(home, start):
    version = make_version(home, 1, files=20)
    maker, waiting = start(), start()
    maker.ask("setattr(filling, 'fill', never_ending)")
    assert maker.ask(f"Dataset.get({version.id!r}).get_local_copy()") == "filled"
    waiting.begin(f"Dataset.get({version.id!r}).get_local_copy()")
    maker.kill()
    assert len(list(Path(waiting.answer()).iterdir())) == 20
    assert waiting.ask("fills") == "1"


def test_a_copy_in_use_by_another_process_is_never_evicted(home, start):
    versions = [make_version(home, n) for n in range(4)]
    small = {"DATASET_STORE_CACHE_BYTES": 1}
    user, other = start(**small), start(**small)
    paths = [Path(user.ask(f"Dataset.get({versions[0].id!r}).get_local_copy()"))]
    paths += [Path(other.ask(f"Dataset.get({v.id!r}).get_local_copy()")) for v in versions[1:3]]
    assert [path.exists() for path in paths] == [True, True, True]
    assert (paths[0] / "0").read_bytes() == b"0 " * 10
    user.end()
    paths.append(Path(other.ask(f"Dataset.get({versions[3].id!r}).get_local_copy()")))
    assert [path.exists() for path in paths] == [False, True, True, True]
    other.end()
    last = Path(start(**small).ask(f"Dataset.get({versions[0].id!r}).get_local_copy()"))
    assert [path.exists() for path in paths] == [True, False, False, False]
    assert (last / "0").read_bytes() == b"0 " * 10


def test_below_the_byte_limit_no_copy_is_evicted_and_above_it_the_least_recently_used_goes_first(home, start):
    versions = [make_version(home, n) for n in range(3)]
    size = {"DATASET_STORE_CACHE_BYTES": 40}
    paths = []
    for version in (versions[0], versions[1], versions[0], versions[2]):
        worker = start(**size)
        paths.append(Path(worker.ask(f"Dataset.get({version.id!r}).get_local_copy()")))
        worker.end()
    assert [path.exists() for path in paths] == [True, False, True, True]


def test_a_copy_is_kept_as_long_as_a_link_leads_to_it(home, start):
    versions = [make_version(home, n) for n in range(4)]

    def copy_of(version):
        worker = start(DATASET_STORE_CACHE_BYTES=1)
        path = Path(worker.ask(f"Dataset.get({version.id!r}).get_local_copy()"))
        worker.end()
        return path

    linked = copy_of(versions[0])
    (home / "link").symlink_to(linked)
    versions[0]._workspace.copies.pin(linked.name, str(home / "link"))
    paths = [linked, copy_of(versions[1]), copy_of(versions[2])]
    assert [path.exists() for path in paths] == [True, False, True]
    (home / "link").unlink()
    copy_of(versions[3])
    assert not linked.exists()


def test_what_the_last_killed_maker_left_is_kept_for_the_next_one_while_there_is_room(home, start):
    versions = [make_version(home, n) for n in range(5)]
    copies = Path(versions[0]._workspace.copies.directory)

    def begun():
        return sorted(path.name.partition(".")[0] for path in copies.glob("*.making"))

    for version in versions[:2]:
        maker = start()
        maker.ask("setattr(filling, 'fill', never_ending)")
        assert maker.ask(f"Dataset.get({version.id!r}).get_local_copy()") == "filled"
        versions[2].get_local_copy()
        assert version.id in begun()
        maker.kill()
    start().ask(f"Dataset.get({versions[3].id!r}).get_local_copy()")
    assert begun() == [versions[1].id]
    start(DATASET_STORE_CACHE_BYTES=1).ask(f"Dataset.get({versions[4].id!r}).get_local_copy()")
    assert begun() == []


def test_two_handles_of_one_draft_see_what_the_other_did(home):
    one = Dataset.create(dataset_name="d")
    other = Dataset.get(one.id)
    (home / "a").write_text("1")
    (home / "b").write_text("2")
    one.add_files(home / "a")
    other.add_files(home / "b")
    one.tags = ["t"]
    assert other.list_files() == one.list_files() == ["a", "b"]
    other.upload()
    assert not one.is_dirty()
    one.finalize()
    assert other.is_final()
    assert other.tags == ["t"]
    assert sorted(os.listdir(other.get_local_copy())) == ["a", "b"]


def test_files_that_a_process_adds_while_another_uploads_are_not_left_out(home, start):
    draft = Dataset.create(dataset_name="d")
    for number in range(100):
        (home / str(number)).write_text(f"{number}")
    workers = [start() for _ in range(2)]
    added = 0
    for number in range(20):
        workers[0].begin(f"Dataset.get({draft.id!r}).add_files({str(home / str(number))!r})")
        workers[1].begin(f"Dataset.get({draft.id!r}).upload()")
        added += workers[0].answer() == "1"
        assert workers[1].answer() in {"True", "Conflict"}
    draft.finalize(auto_upload=True)
    assert len(draft.list_files()) == added > 0
    assert len(os.listdir(draft.get_local_copy())) == added

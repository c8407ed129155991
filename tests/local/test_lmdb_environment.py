"""Environments hold what was put, grow, survive damage and forks, and are shared by threads and processes."""

import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.errors import StorageFailed
from dataset_store.local.best_effort import BestEffort
from dataset_store.local.lmdb_environment import Environment, Transaction, open_environment

SMALL_MAP = 64 << 10


def put(environment: Environment, *items: tuple[bytes, bytes]) -> None:
    environment.write(lambda txn: txn.put_many(items))


def get(environment: Environment, *keys: bytes) -> list[bytes | None]:
    return environment.read(lambda txn: txn.get_many(keys))


def start_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
    return pid


def succeeded(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def run_in_child(work: Callable[[], None]) -> None:
    assert succeeded(start_child(work))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "environment")


@pytest.fixture
def environment(folder: str) -> Iterator[Environment]:
    return open_environment(folder, SMALL_MAP)


class FailsOnce:
    """Work that meets `error` the first time it is run."""

    def __init__(self, error: lmdb.Error) -> None:
        self.errors = [error]

    def __call__(self, txn: Transaction) -> list[bytes | None]:
        if self.errors:
            raise self.errors.pop()
        return txn.get_many([b"key"])


def apply(operation: tuple, environment: Environment, expected: dict[bytes, bytes]) -> dict[bytes, bytes]:
    match operation:
        case "put", items:
            put(environment, *items.items())
            return expected | items
        case "add", items:
            environment.write(lambda txn: txn.put_many(items.items(), overwrite=False))
            return items | expected
        case "delete", keys:
            environment.write(lambda txn: txn.delete_many(keys))
            return {key: value for key, value in expected.items() if key not in keys}
        case _:
            environment.write(Transaction.clear)
            return {}


KEYS = st.sampled_from([b"a", b"b", b"ab", b"c"])
OPERATION = st.one_of(
    st.tuples(st.sampled_from(["put", "add"]), st.dictionaries(KEYS, st.binary(max_size=5000))),
    st.tuples(st.just("delete"), st.lists(KEYS)),
    st.tuples(st.just("clear")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(OPERATION))
def test_an_environment_is_a_dictionary_of_bytes(operations: list) -> None:
    expected: dict[bytes, bytes] = {}
    with tempfile.TemporaryDirectory() as directory:
        environment = open_environment(directory, SMALL_MAP)
        for operation in operations:
            expected = apply(operation, environment, expected)
        asked = [*expected, b"never put"]
        assert get(environment, *asked) == [*expected.values(), None]


def test_the_folder_and_its_files_are_for_their_owner_only(folder: str) -> None:
    os.makedirs(folder, mode=0o755)
    environment = open_environment(folder)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert {os.stat(os.path.join(folder, name)).st_mode & 0o077 for name in os.listdir(folder)} == {0}
    assert get(environment, b"key") == [None]


def test_one_folder_is_one_environment_under_every_name(environment: Environment, folder: str) -> None:
    link = os.path.join(os.path.dirname(folder), "link")
    os.symlink(folder, link)
    assert open_environment(link) is environment


def test_what_was_put_is_there_when_the_folder_is_opened_again(folder: str) -> None:
    for number in range(3):
        environment = open_environment(folder)
        put(environment, (b"%d" % number, b"value"))
        del environment
    assert get(open_environment(folder), b"0", b"1", b"2") == [b"value"] * 3


def test_work_that_raises_leaves_nothing(environment: Environment) -> None:
    def work(txn: Transaction) -> None:
        txn.put_many([(b"key", b"value")])
        raise KeyError

    with pytest.raises(KeyError):
        environment.write(work)
    assert get(environment, b"key") == [None]


def test_a_clear_empties_and_frees_all_pages(environment: Environment) -> None:
    put(environment, *((b"%d" % number, bytes(1000)) for number in range(100)))
    assert environment.read(Transaction.used_bytes) >= 100_000
    environment.write(Transaction.clear)
    assert environment.read(Transaction.used_bytes) == 0


def test_the_map_grows_by_itself(environment: Environment) -> None:
    put(environment, (b"before", b"value"))
    put(environment, (b"large", bytes(50 * SMALL_MAP)))
    assert get(environment, b"before", b"large") == [b"value", bytes(50 * SMALL_MAP)]


def test_a_map_that_another_process_grew_is_taken_on(environment: Environment) -> None:
    put(environment, (b"key", b"old"))
    run_in_child(lambda: put(environment, (b"key", bytes(50 * SMALL_MAP))))
    assert get(environment, b"key") == [bytes(50 * SMALL_MAP)]
    put(environment, (b"key", b"new"))
    assert get(environment, b"key") == [b"new"]


def test_threads_that_write_read_and_grow_at_once_lose_nothing(environment: Environment) -> None:
    def work(number: int) -> None:
        for step in range(30):
            key = b"%d/%d" % (number, step)
            put(environment, (key, key * 2000))
            assert get(environment, key, b"absent") == [key * 2000, None]

    in_threads(6, work)
    keys = [b"%d/%d" % (number, step) for number in range(6) for step in range(30)]
    assert get(environment, *keys) == [key * 2000 for key in keys]


def test_processes_that_write_and_grow_at_once_lose_nothing(environment: Environment) -> None:
    def work(number: int) -> None:
        for step in range(30):
            key = b"%d/%d" % (number, step)
            put(environment, (key, key * 2000))
            assert get(environment, key) == [key * 2000]

    children = [start_child(lambda number=number: work(number)) for number in range(4)]
    work(4)
    assert [child for child in children if not succeeded(child)] == []
    keys = [b"%d/%d" % (number, step) for number in range(5) for step in range(30)]
    assert get(environment, *keys) == [key * 2000 for key in keys]


def test_a_reader_does_not_wait_for_a_writer_and_sees_the_state_before_it(environment: Environment) -> None:
    put(environment, (b"key", b"old"))
    writing, finish = threading.Event(), threading.Event()

    def work(txn: Transaction) -> None:
        txn.put_many([(b"key", b"new")])
        writing.set()
        assert finish.wait(60)

    writer = threading.Thread(target=environment.write, args=(work,))
    writer.start()
    assert writing.wait(60)
    seen = get(environment, b"key")
    finish.set()
    writer.join()
    assert (seen, get(environment, b"key")) == ([b"old"], [b"new"])


def test_opening_does_not_wait_for_a_writer_of_another_process(folder: str) -> None:
    first = open_environment(folder)
    put(first, (b"key", b"value"))
    del first
    began, finish = os.pipe(), os.pipe()

    def work(txn: Transaction) -> None:
        os.write(began[1], b".")
        assert os.read(finish[0], 1) == b"."

    child = start_child(lambda: open_environment(folder).write(work))
    os.read(began[0], 1)
    seen = get(open_environment(folder), b"key")
    os.write(finish[1], b".")
    assert succeeded(child)
    assert seen == [b"value"]


def test_opening_while_another_process_writes_and_grows_drops_nothing(folder: str) -> None:
    def grow() -> None:
        environment = open_environment(folder, SMALL_MAP)
        for number in range(400):
            put(environment, (b"%d" % number, bytes(20_000)))

    child = start_child(grow)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        get(open_environment(folder, SMALL_MAP), b"0")
    assert ended == (child, 0)
    assert get(open_environment(folder), *(b"%d" % number for number in range(400))) == [bytes(20_000)] * 400


def test_a_reader_that_was_killed_does_not_make_the_file_grow_once_someone_opens_it(folder: str) -> None:
    environment = open_environment(folder)
    put(environment, (b"key", b"value"))

    def die(txn: Transaction) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert not succeeded(start_child(lambda: environment.read(die)))
    run_in_child(lambda: put(environment, (b"key", b"value")))
    for _ in range(50):
        put(environment, (b"key", bytes(100_000)))
    assert os.stat(os.path.join(folder, "data.mdb")).st_size < 1_000_000


def test_files_that_others_hold_in_this_process_are_refused_and_left_alone(folder: str) -> None:
    put(open_environment(folder), (b"key", b"value"))
    with lmdb.open(folder), pytest.raises(StorageFailed, match="already open"):
        open_environment(folder)
    assert get(open_environment(folder), b"key") == [b"value"]


def test_forks_while_other_threads_work_are_safe_for_parent_and_child(environment: Environment) -> None:
    done = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            for fork in range(20):
                run_in_child(lambda fork=fork: put(environment, (b"fork%d" % fork, b"value")))
            done.set()
        while not done.is_set():
            key = b"thread%d" % number
            put(environment, (key, bytes(5000)))
            assert get(environment, key) == [bytes(5000)]

    in_threads(3, work)
    assert get(environment, *(b"fork%d" % fork for fork in range(20))) == [b"value"] * 20


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"garbage",
        lambda data: os.urandom(len(data)),
        lambda data: data[: len(data) // 2],
        lambda data: data[:5000],
        lambda data: data.replace((0xBEEFC0DE).to_bytes(4, "little"), bytes(4)),
    ],
    ids=["garbage", "noise", "half", "first page", "no magic"],
)
def test_a_damaged_file_is_made_anew(folder: str, damage: Callable[[bytes], bytes]) -> None:
    environment = open_environment(folder)
    put(environment, *((b"%d" % number, bytes(3000)) for number in range(50)))
    del environment
    data = Path(folder, "data.mdb")
    data.write_bytes(damage(data.read_bytes()))
    environment = open_environment(folder)
    assert get(environment, b"0", b"49") == [None, None]
    put(environment, (b"key", b"value"))
    assert get(environment, b"key") == [b"value"]


def test_processes_that_open_damaged_files_at_once_make_them_anew_only_once(folder: str) -> None:
    os.makedirs(folder)
    for attempt in range(10):
        Path(folder, "data.mdb").write_bytes(b"garbage")
        go = os.pipe()

        def work(number: int, go: tuple[int, int] = go) -> None:
            os.close(go[1])
            os.read(go[0], 1)
            put(open_environment(folder), (b"%d" % number, b"value"))

        children = [start_child(lambda number=number: work(number)) for number in range(5)]
        os.close(go[0])
        os.close(go[1])
        assert [child for child in children if not succeeded(child)] == []
        assert get(open_environment(folder), *(b"%d" % number for number in range(5))) == [b"value"] * 5, attempt


def test_damage_found_by_a_transaction_empties_the_environment_and_runs_it_again(environment: Environment) -> None:
    put(environment, (b"key", b"value"))
    assert environment.read(FailsOnce(lmdb.CorruptedError("page"))) == [None]
    put(environment, (b"key", b"again"))
    assert get(environment, b"key") == [b"again"]


def test_damage_that_does_not_go_away_is_an_error_of_this_package(environment: Environment) -> None:
    def work(txn: Transaction) -> None:
        raise lmdb.PageNotFoundError("page")

    with pytest.raises(StorageFailed, match="cannot be used"):
        environment.write(work)
    assert get(environment, b"key") == [None]


def test_what_one_process_made_anew_another_does_not_drop_again(environment: Environment) -> None:
    def mend() -> None:
        environment.write(FailsOnce(lmdb.CorruptedError("page")))
        put(environment, (b"key", b"new"))

    put(environment, (b"key", b"old"))
    run_in_child(mend)
    assert get(environment, b"key") == [b"old"]
    assert environment.read(FailsOnce(lmdb.CorruptedError("page"))) == [b"new"]


@pytest.mark.parametrize("key", [b"", bytes(512)])
def test_a_key_that_is_refused_harms_nothing(environment: Environment, key: bytes) -> None:
    put(environment, (b"key", b"value"))
    with pytest.raises(StorageFailed):
        put(environment, (b"other", b"value"), (key, b"value"))
    assert get(environment, b"key", b"other") == [b"value", None]


def test_a_folder_that_cannot_be_made_is_an_error_of_this_package(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="file/environment"):
        open_environment(str(tmp_path / "file" / "environment"))


def test_after_a_failed_opening_the_next_work_opens_again(environment: Environment, folder: str) -> None:
    def fail(txn: Transaction) -> None:
        os.rename(folder, folder + ".old")
        Path(folder).touch()
        raise lmdb.CorruptedError("page")

    with pytest.raises(StorageFailed):
        environment.read(fail)
    os.unlink(folder)
    os.rename(folder + ".old", folder)
    put(environment, (b"key", b"value"))
    assert get(environment, b"key") == [b"value"]


def test_whoever_can_do_without_gets_nothing_from_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.touch()
    cache = BestEffort(str(folder))
    cache.write(lambda txn: txn.put_many([(b"key", b"value")]))
    assert cache.get_many([b"key", b"other"]) == [None, None]
    assert cache.read(Transaction.used_bytes) is None


def test_whoever_can_do_without_tries_again_at_each_use(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.touch()
    cache = BestEffort(str(folder))
    assert cache.get_many([b"key"]) == [None]
    folder.unlink()
    cache.write(lambda txn: txn.put_many([(b"key", b"value")]))
    assert cache.get_many([b"key", b"other"]) == [b"value", None]
    assert cache.get_many([]) == []

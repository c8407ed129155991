"""Work that is cut into jobs for any executor."""

import pickle
import threading
from contextlib import closing

import numpy as np
import pytest
from executors import Carrying, Counting
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.errors import PathNotFound, WorkerFailed
from dataset_store.local import jobs
from dataset_store.local.jobs import cut_by_size, require_seen, results_in_order


@given(st.lists(st.integers(0, 50)), st.integers(1, 100), st.integers(1, 5))
def test_cuts_are_contiguous_within_both_bounds_and_as_long_as_can_be(sizes, most_bytes, most_files):
    cuts = cut_by_size(np.array(sizes, np.int64), most_bytes, most_files)
    assert [row for cut in cuts for row in range(cut.start, cut.stop)] == list(range(len(sizes)))
    for cut in cuts:
        held = sizes[cut]
        assert len(held) == 1 or (len(held) <= most_files and sum(held) <= most_bytes)
        if cut.stop < len(sizes) and len(held) < most_files:
            assert sum(held) + sizes[cut.stop] > most_bytes


def test_results_come_in_the_order_of_the_jobs_whichever_is_done_first():
    first_may_end = threading.Event()

    def work(job):
        if job == 0:
            assert first_may_end.wait(10)
        if job == 3:
            first_may_end.set()
        return job

    with Counting(4) as pool:
        assert list(results_in_order(pool, work, range(20))) == list(range(20))


def test_jobs_are_taken_as_room_for_them_comes_free(monkeypatch):
    monkeypatch.setattr(jobs, "_AT_ONCE", 3)
    with Counting(2) as pool, closing(results_in_order(pool, abs, iter(range(100)))) as results:
        for number, _ in zip(range(10), results, strict=False):
            assert pool.begun == number + 3


def test_after_a_failure_no_other_job_is_begun_and_those_that_run_are_waited_for():
    running, ended = threading.Event(), []

    def work(job):
        if job == 0:
            assert running.wait(10)
            raise ValueError(job)
        running.set()
        threading.Event().wait(0.1)
        ended.append(job)

    with Counting(2) as pool, pytest.raises(WorkerFailed, match="ValueError: 0"):
        list(results_in_order(pool, work, range(50)))
    assert len(ended) < 49
    done = list(ended)
    threading.Event().wait(0.3)
    assert ended == done


def test_a_caller_that_stops_early_leaves_nothing_running():
    ended = []

    def work(job):
        threading.Event().wait(0.02)
        ended.append(job)
        return job

    with Counting(2) as pool:
        with closing(results_in_order(pool, work, range(100))) as results:
            assert next(results) == 0
        done = list(ended)
        threading.Event().wait(0.1)
        assert ended == done


def test_errors_of_workers_come_as_they_were(tmp_path):
    with pytest.raises(PathNotFound, match=r"sees no folder '.*missing'.*under the same path"):
        list(results_in_order(Carrying(), require_seen, [bytes(tmp_path / "missing")]))


def test_a_file_is_no_folder_and_a_path_too_long_to_tell_is_let_pass(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PathNotFound, match="sees no folder"):
        require_seen(bytes(tmp_path / "file"))
    require_seen(bytes(tmp_path) + b"/long" * 1_000)


class Remembering(Carrying):
    """Hands out the result of an equal job again, as Dask's executor does while somebody holds it."""

    def __init__(self):
        super().__init__()
        self.known = {}

    def submit(self, function, /, *arguments):
        key = pickle.dumps((function, arguments))
        if key not in self.known:
            self.known[key] = super().submit(function, *arguments)
        return self.known[key]


def test_no_result_of_an_earlier_call_is_taken_for_one_of_this(tmp_path):
    executor = Remembering()
    with pytest.raises(PathNotFound):
        list(results_in_order(executor, require_seen, [bytes(tmp_path / "later")]))
    (tmp_path / "later").mkdir()
    assert list(results_in_order(executor, require_seen, [bytes(tmp_path / "later")])) == [None]


def test_jobs_that_are_revoked_are_all_waited_for():
    revoked, ended = threading.Event(), []

    def work(job):
        if job == 1:
            raise ValueError(job)
        revoked.wait(10)
        ended.append(job)

    with Counting(4) as pool, pytest.raises(WorkerFailed):
        list(results_in_order(pool, work, [1, 2, 3, 4], revoked.set))
    assert sorted(ended) == [2, 3, 4]


def test_an_executor_that_takes_no_jobs_has_failed():
    pool = Counting(1)
    pool.shutdown()
    with pytest.raises(WorkerFailed, match="RuntimeError: cannot schedule new futures"):
        list(results_in_order(pool, abs, [1]))

"""Jobs: pieces of work for the workers of any executor, which may be other processes or other machines.

A job is a function that a module defines and arguments that can be pickled; it holds all that a worker must know. How
work is cut into jobs follows from the work alone, so what comes of it does not depend on how many workers there are.
An executor may run a job again whose worker was lost, and the first run may go on all the same: so each leaves the same
when it is done twice, also at once.

A worker sees files of the caller by their paths. What it does not see under the same path is an error that names it.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from msgspec import Struct

from dataset_store.core.arrays import I64, np
from dataset_store.errors import DatasetStoreError, PathNotFound, WorkerFailed
from dataset_store.local.os_errors import shown

__all__ = ["cut_by_size", "require_seen", "results_in_order"]

_AT_ONCE: Final = 64
"""Jobs that wait or run at the same time; also the most whose results wait for an earlier one."""

_PATIENCE: Final = 60.0  # seconds

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class _Call(Struct, Generic[_Job, _Result], frozen=True):
    """A function for the jobs of one call: by the token an executor that remembers results has none of them."""

    function: Callable[[_Job], _Result]
    token: bytes

    def __call__(self, job: _Job) -> _Result:
        return self.function(job)


def results_in_order(
    executor: Executor,
    function: Callable[[_Job], _Result],
    jobs: Iterable[_Job],
    revoke: Callable[[], object] | None = None,
) -> Generator[_Result, None, None]:
    """What `function` makes of each job, in the order of the jobs, which are taken as room for them comes free.

    When one fails, or the caller closes this before its end, no other is begun, and those that run are waited for, as
    far as the executor tells which these are.

    Args:
        executor: Where they run.
        function: Can be pickled if the executor's workers are other processes.
        jobs: The same goes for them.
        revoke: Makes jobs that begin from now on, and those that run, end soon. Then all are waited for, a minute at
            most: nothing is cancelled, as some executors say of a job that runs that it was.

    Raises:
        DatasetStoreError: What the first job in order that failed has raised.
        WorkerFailed: It failed in another way, as where its worker was lost, or the executor takes no jobs.
    """
    call = _Call(function, os.urandom(16))
    waiting: deque[Future[_Result]] = deque()
    try:
        for job in jobs:
            with _naming_failures():
                waiting.append(executor.submit(call, job))
            if len(waiting) >= _AT_ONCE:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        if revoke is None:
            wait([future for future in waiting if not future.cancel()])
        elif waiting:
            revoke()
            wait(waiting, _PATIENCE)


def _result(future: Future[_Result]) -> _Result:
    with _naming_failures():
        return future.result()


@contextmanager
def _naming_failures() -> Iterator[None]:
    try:
        yield
    except DatasetStoreError:
        raise
    except Exception as error:
        raise WorkerFailed(
            f"A worker of the executor failed: {type(error).__name__}: {error}.",
            "Nothing acknowledged is lost: repeat the call, with these workers, others or none.",
        ) from error


def cut_by_size(sizes: I64, most_bytes: int, most_files: int) -> list[slice]:
    """Runs of files that are one job each: as many as stay within both bounds, and at least one.

    Args:
        sizes: Bytes of each file, shape (n,).
        most_bytes: Of a job's files together.
        most_files: Of a job.
    """
    ends = np.cumsum(sizes)
    cuts = []
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + most_bytes, "right"))
        stop = min(max(stop, start + 1), start + most_files)
        cuts.append(slice(start, stop))
        start = stop
    return cuts


def require_seen(folder: bytes) -> None:
    """See to it that this worker sees the caller's folder; of one whose path is too long to tell, nothing is said.

    Raises:
        PathNotFound: It is not there.
    """
    try:
        if stat.S_ISDIR(os.stat(folder).st_mode):
            return
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return
    raise PathNotFound(
        f"The worker on {os.uname().nodename} sees no folder {shown(folder)}.",
        "Workers must see it under the same path: mount it there, or do without the executor.",
    )

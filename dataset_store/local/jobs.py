"""Jobs: pieces of work for the workers of any executor, which may be other processes or other machines.

A job is a function that a module defines and arguments that can be pickled; it holds all that a worker must know. How
work is cut into jobs follows from the work alone, so what comes of it does not depend on how many workers there are.
An executor may run a job again whose worker was lost, so each leaves the same when it is done twice.

A worker sees files of the caller by their paths. What it does not see under the same path is an error that names it.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from typing import Final, TypeVar

from dataset_store.core.arrays import I64, np
from dataset_store.errors import DatasetStoreError, PathNotFound, WorkerFailed
from dataset_store.local.os_errors import shown

__all__ = ["cut_by_size", "require_seen", "results_in_order"]

_AT_ONCE: Final = 256
"""Jobs that wait or run at the same time; also the most whose results wait for an earlier one."""

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def results_in_order(
    executor: Executor, function: Callable[[_Job], _Result], jobs: Iterable[_Job]
) -> Generator[_Result, None, None]:
    """What `function` makes of each job, in the order of the jobs, which are taken as room for them comes free.

    When one fails, or the caller closes this before its end, no other is begun, and those that run are waited for.

    Args:
        executor: Where they run.
        function: Can be pickled if the executor's workers are other processes.
        jobs: The same goes for them.

    Raises:
        DatasetStoreError: What the first job in order that failed has raised.
        WorkerFailed: It failed in another way, as where its worker was lost, or the executor takes no jobs.
    """
    waiting: deque[Future[_Result]] = deque()
    try:
        for job in jobs:
            with _naming_failures():
                waiting.append(executor.submit(function, job))
            if len(waiting) >= _AT_ONCE:
                with _naming_failures():
                    done = waiting.popleft().result()
                yield done
        while waiting:
            with _naming_failures():
                done = waiting.popleft().result()
            yield done
    finally:
        wait([future for future in waiting if not future.cancel()])


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


def require_seen(folder: bytes, inode: int | None = None) -> None:
    """See to it that this worker sees the caller's folder.

    Args:
        folder: Its path.
        inode: Only the folder of this inode will do.

    Raises:
        PathNotFound: It is not there, or another one is.
    """
    try:
        found = os.stat(folder)
    except OSError:
        found = None
    if found is None or not stat.S_ISDIR(found.st_mode):
        seen = "no folder"
    elif inode not in {None, found.st_ino}:
        seen = "another folder than the caller at"
    else:
        return
    raise PathNotFound(
        f"The worker on {os.uname().nodename} sees {seen} {shown(folder)}.",
        "Workers must see it under the same path: mount it there, or do without the executor.",
    )

"""Requests repeated, where that is safe: a wrapper of the backend port over a storage that asks once.

Reads, listings and deletes change nothing by coming twice, and a put goes to a fresh name with the same bytes. A
`create` is never repeated here: its reply may be lost after it won, and only reading back can tell, which the log does.

Promises: what failed is asked again a bounded number of times and for a bounded time, with pauses that grow and that no
two callers share; the last error is the one that is raised. Of a batch that failed each half is asked for by itself, so
one answer in many that fails costs the others little, and a storage that is overrun is asked for less at once. Never:
repeats what was refused for good (no access, no root, read only, a full disk), or hides bytes that are wrong.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct

from dataset_store.errors import StorageFailed
from dataset_store.storage.backend import Backend, Buffers, Key, ObjectInfo, Span, Tail
from dataset_store.storage.backend_errors import may_pass
from dataset_store.storage.wrappers import Wrapper

__all__ = ["Patience", "RetryingBackend"]

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Patience(Struct, frozen=True):
    """How often one request is sent before its error is raised, and the pauses between; seconds.

    Attributes:
        attempts: How many times, at most.
        seconds: For how long after a first failure without one success; no request is begun after that.
        base: The first pause, which doubles with each attempt up to `ceiling`; between half of it and all is taken.
        sleep: Called with seconds.
        jitter: Gives a number from 0 to 1, another each time, so that callers that were refused together do not come
            back together.
        now: A clock that only goes forward.
    """

    attempts: int = 6
    seconds: float = 60.0
    base: float = 0.2
    ceiling: float = 5.0
    sleep: Callable[[float], object] = time.sleep
    jitter: Callable[[], float] = random.random
    now: Callable[[], float] = time.monotonic

    def pause(self, attempt: int) -> None:
        """Wait after attempt number `attempt`, counted from 1, has failed."""
        self.sleep(min(self.ceiling, self.base * 2.0 ** (attempt - 1)) * (0.5 + self.jitter() / 2))


class _Trouble(Struct):
    """For how long requests of one call have failed; what takes long and moves is no trouble."""

    patience: Patience
    since: float | None = None

    def over(self) -> None:
        self.since = None

    def ends(self, error: StorageFailed, attempt: int) -> bool:
        """Whether an error stays or was of the last attempt; else wait for the next one."""
        now = self.patience.now()
        self.since = now if self.since is None else self.since
        spent = now - self.since
        if not may_pass(error) or attempt >= self.patience.attempts or spent >= self.patience.seconds:
            return True
        self.patience.pause(attempt)
        return False


class RetryingBackend(Wrapper):
    """Repeats what may be repeated; safe to use from several threads.

    Args:
        inner: The storage.
        patience: How often, and with what pauses.
    """

    def __init__(self, inner: Backend, patience: Patience | None = None) -> None:
        super().__init__(inner)
        self._patience = patience or Patience()

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects; see the port."""
        return _in_parts(self.inner.get_many, keys, self._no_trouble())

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects; see the port."""
        return _in_parts(self.inner.get_ranges, ranges, self._no_trouble())

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object under a fresh name; see the port."""
        _repeated(lambda: self.inner.put(key, buffers), self._no_trouble())

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects; see the port."""

        def deleted(part: Sequence[Key]) -> Sequence[None]:
            self.inner.delete_many(part)
            return ()

        _in_parts(deleted, [*keys], self._no_trouble())

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, read before it answers; see the port."""
        return iter(_repeated(lambda: [*self.inner.list(prefix)], self._no_trouble()))

    def _no_trouble(self) -> _Trouble:
        return _Trouble(self._patience)


def _in_parts(
    ask: Callable[[Sequence[_Item]], Sequence[_Answer]], items: Sequence[_Item], trouble: _Trouble
) -> list[_Answer]:
    """The answers of a batch, each half of it asked for by itself after it failed."""
    if len(items) <= 1:
        return [*_repeated(lambda: ask(items), trouble)]
    try:
        answers = ask(items)
    except StorageFailed as error:
        if trouble.ends(error, 1):
            raise
    else:
        trouble.over()
        return [*answers]
    half = len(items) // 2
    return _in_parts(ask, items[:half], trouble) + _in_parts(ask, items[half:], trouble)


def _repeated(act: Callable[[], _Answer], trouble: _Trouble) -> _Answer:
    attempt = 0
    while True:
        attempt += 1
        try:
            answer = act()
        except StorageFailed as error:
            if trouble.ends(error, attempt):
                raise
        else:
            trouble.over()
            return answer

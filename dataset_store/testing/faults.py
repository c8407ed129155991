"""A backend that fails as a script says, for tests of whatever stands on a backend.

A plan is a list of `Fault`: at this call of this verb, this goes wrong. Each is something that real storages
do: refuse, lose the reply of what they carried out, rot, cut short, forget.

Promises: what the inner backend promises wherever the plan says nothing; the same plan and the same calls
fail in the same way. Never: fails unasked, or by the clock.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Literal, TypeVar

from msgspec import Struct

from dataset_store.errors import InvalidRequest, ObjectMissing, OutcomeUnknown, StorageFailed
from dataset_store.storage.backend import Backend, Buffers, Key, ObjectInfo, Span, Tail
from dataset_store.storage.wrappers import Wrapper

__all__ = ["Effect", "Fault", "FaultyBackend", "Verb"]

Verb = Literal["get_many", "get_ranges", "put", "create", "delete_many", "list"]


class Effect(Enum):
    """What goes wrong.

    `ERROR_BEFORE`: an error, and nothing was done. `ERROR_AFTER`: it was done and the reply is lost.
    `CORRUPT`: one byte is flipped. `TRUNCATE`: the end is missing. `MISSING`: the object is gone. On reads
    the last three change the answer, on writes what is stored, while the writer is told that all is well.
    """

    ERROR_BEFORE = "error before"
    ERROR_AFTER = "error after"
    CORRUPT = "corrupt"
    TRUNCATE = "truncate"
    MISSING = "missing"


_T = TypeVar("_T")

_ERRORS = frozenset({Effect.ERROR_BEFORE, Effect.ERROR_AFTER})


class Fault(Struct, frozen=True):
    """One thing that goes wrong.

    Attributes:
        verb: The verb that fails.
        call: Which call of that verb, from 1; None for every call.
        effect: What goes wrong.
        error: Raised by the error effects in place of the usual one (`StorageFailed`; of a create whose reply
            is lost `OutcomeUnknown`).
        item: Of a read: which of its answers is hit, from 0.
        offset: `CORRUPT`: the byte that is flipped, modulo the size; `TRUNCATE`: how many bytes are kept.
            Negative numbers count from the end.

    Raises:
        InvalidRequest: The verb has no bytes that the effect could change.
    """

    verb: Verb
    call: int | None
    effect: Effect
    error: StorageFailed | None = None
    item: int = 0
    offset: int = -1

    def __post_init__(self) -> None:
        if self.verb in {"delete_many", "list"} and self.effect not in _ERRORS:
            raise InvalidRequest(f"{self.verb} has no bytes to change.", "Plan an error, or another verb.")


class FaultyBackend(Wrapper):
    """Carries out a plan of faults over any backend; safe to use from several threads.

    Where several faults name one call, the first of the plan is taken.

    Args:
        inner: The backend that does the work.
        plan: What goes wrong, and when.
    """

    def __init__(self, inner: Backend, plan: Iterable[Fault]) -> None:
        super().__init__(inner)
        self._plan = tuple(plan)
        self._calls: Counter[Verb] = Counter()
        self._happened: set[Fault] = set()
        self._lock = threading.Lock()

    def unused(self) -> tuple[Fault, ...]:
        """The faults whose call never came: a test that ends with some did not test them."""
        with self._lock:
            return tuple(fault for fault in self._plan if fault not in self._happened)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects, or fail."""
        fault = self._next("get_many")
        found = _attempt(fault, lambda: self.inner.get_many(keys))
        if fault is not None and fault.item < len(found):
            data = found[fault.item]
            found[fault.item] = None if data is None else _damaged(fault, data)
        return found

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects, or fail."""
        fault = self._next("get_ranges")
        found = _attempt(fault, lambda: self.inner.get_ranges(ranges))
        if fault is not None and fault.item < len(found):
            data = _damaged(fault, found[fault.item])
            if data is None:
                raise ObjectMissing(f"There is no object '{ranges[fault.item].key}', as planned.")
            found[fault.item] = data
        return found

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object, or fail."""
        fault = self._next("put")
        data = _stored(fault, buffers)
        if data is not None:
            _attempt(fault, lambda: self.inner.put(key, data))

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none, or fail."""
        fault = self._next("create")
        data = _stored(fault, buffers)
        return data is None or _attempt(fault, lambda: self.inner.create(key, data))

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects, or fail."""
        _attempt(self._next("delete_many"), lambda: self.inner.delete_many(keys))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, or fail at the call."""
        return _attempt(self._next("list"), lambda: self.inner.list(prefix))

    def _next(self, verb: Verb) -> Fault | None:
        """Count this call; the fault planned for it."""
        with self._lock:
            self._calls[verb] += 1
            now = (self._calls[verb], None)
            fault = next((fault for fault in self._plan if fault.verb == verb and fault.call in now), None)
            if fault is not None:
                self._happened.add(fault)
            return fault


def _attempt(fault: Fault | None, act: Callable[[], _T]) -> _T:
    """The answer of an act, with an error before or after it where that is planned."""
    if fault is not None and fault.effect is Effect.ERROR_BEFORE:
        raise fault.error or StorageFailed(f"{fault.verb} failed before it was done, as planned.")
    answer = act()
    if fault is not None and fault.effect is Effect.ERROR_AFTER:
        usual = OutcomeUnknown if fault.verb == "create" else StorageFailed
        raise fault.error or usual(f"The reply to {fault.verb} was lost, as planned.")
    return answer


def _damaged(fault: Fault, data: bytes) -> bytes | None:
    """What a fault leaves of the bytes of an object. An empty object can only go missing."""
    match fault.effect:
        case Effect.MISSING:
            return None
        case Effect.TRUNCATE:
            return data[: fault.offset]
        case Effect.CORRUPT if data:
            changed = bytearray(data)
            changed[fault.offset % len(data)] ^= 0xFF
            return bytes(changed)
        case _:
            return data


def _stored(fault: Fault | None, buffers: Buffers) -> Buffers | None:
    """The buffers that reach the storage; None where none do."""
    if fault is None or fault.effect in _ERRORS:
        return buffers
    data = _damaged(fault, b"".join(buffers))
    return None if data is None else [data]

"""A storage tried for what a store needs of it: the long version of the probe, for whoever is about to trust a bucket.

Each check is a value: whether it held, what was seen, and figures. Promises: nothing but keys below `probe/` is
touched, and what was made there is removed, or it is said that it was not; a check that cannot be carried out is one
that failed, with the error's own words; nothing further is tried of a storage that cannot be reached. Never: proves
what only time or a power cut can show; touches a store that is there.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from threading import Barrier, BrokenBarrierError
from typing import Final

from msgspec import Struct, field

from dataset_store.errors import (
    AccessDenied,
    CorruptObject,
    DatasetStoreError,
    ObjectMissing,
    OutcomeUnknown,
    StoreUnreachable,
)
from dataset_store.storage.backend import Backend, Key, Span, Tail
from dataset_store.storage.create_probe import try_creates

__all__ = ["CheckFinding", "Trial", "check_storage"]

_MIB: Final = 1 << 20


class CheckFinding(Struct, frozen=True):
    """What one check found.

    Attributes:
        id: Names the check; stable.
        sound: Whether the storage did what a store needs.
        text: What was seen, for people.
        figures: Numbers that were measured, by name with their unit; empty where nothing was.
    """

    id: str
    sound: bool
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


class Trial(Struct, frozen=True):
    """How much is tried.

    Attributes:
        racers: Threads that create one key at once.
        races: Keys that they race for.
        large_bytes: Size of the large object, by default larger than any pack of an object store, 40 MiB.
        samples: Small requests that are timed, one after another.
    """

    racers: int = 16
    races: int = 20
    large_bytes: int = 64 * _MIB
    samples: int = 20


def check_storage(backend: Backend, trial: Trial | None = None) -> Iterator[CheckFinding]:
    """Try a storage, one finding after another as they are made; it takes some seconds.

    Args:
        backend: The storage; a store may be there already.
        trial: How much is tried.

    Returns:
        A finding for each check, in a fixed order; those after one that found the storage out of reach are left out.
    """
    bench = _Bench(backend, f"probe/{os.urandom(8).hex()}", trial or Trial())
    try:
        for check_id, check in _CHECKS.items():
            finding, goes_on = _carried_out(check_id, check, bench)
            yield finding
            if not goes_on:
                return
    finally:
        yield from bench.cleared()


class _Bench(Struct):
    """A folder of keys to try things on, which are remembered so that they can be removed."""

    backend: Backend
    folder: str
    trial: Trial
    made: list[Key] = field(default_factory=list)

    def key(self, name: str) -> Key:
        """A key of that name, removed in the end."""
        self.made.append(Key(f"{self.folder}/{name}"))
        return self.made[-1]

    def cleared(self) -> Iterator[CheckFinding]:
        """Remove what was made; a finding only where that failed."""
        try:
            self.backend.delete_many(self.made)
        except DatasetStoreError as error:
            yield CheckFinding("cleanup", False, f"what was made below {self.folder}/ is left behind: {error}")


class _Fault(Exception):
    """The storage did what no store can live with; the message says what."""


def _carried_out(check_id: str, check: "_Check", bench: _Bench) -> tuple[CheckFinding, bool]:
    """The finding of a check, and whether another one makes sense."""
    try:
        text, figures = check(bench)
    except _Fault as fault:
        return CheckFinding(check_id, False, str(fault)), True
    except DatasetStoreError as error:
        return CheckFinding(check_id, False, str(error)), not isinstance(error, StoreUnreachable | AccessDenied)
    return CheckFinding(check_id, True, text, figures), True


_Seen = tuple[str, Mapping[str, float]]
_Check = Callable[[_Bench], _Seen]


def _absent_key(bench: _Bench) -> _Seen:
    absent = Key(f"{bench.folder}/absent")
    try:
        found = bench.backend.get_many([absent])
    except AccessDenied as error:
        raise AccessDenied(
            f"A key that holds nothing cannot be told from one that may not be read: {error.what}",
            "Give these credentials the right to list the bucket too (s3:ListBucket); without it S3 answers 403.",
        ) from error
    if found != [None]:
        raise _Fault("a key that nobody wrote holds something")
    try:
        bench.backend.get_ranges([Tail(absent, 1)])
    except ObjectMissing:
        return "what is absent is said to be absent", {}
    raise _Fault("a part of what is absent was read")


def _create_twice(bench: _Bench) -> _Seen:
    fault = try_creates(bench.backend, bench.key("created")).fault
    if fault is not None:
        raise _Fault(f"{bench.backend.describe()} {fault}; no store can be shared here")
    return "of two creates of one key the first won, and its bytes stand", {}


def _create_race(bench: _Bench) -> _Seen:
    trial = bench.trial
    keys = [bench.key(f"race-{number}") for number in range(trial.races)]
    start = Barrier(trial.racers)

    def race(racer: int) -> list[bool | None]:
        return [_raced(bench.backend, key, racer, start) for key in keys]

    with ThreadPoolExecutor(trial.racers) as pool:
        told = list(pool.map(race, range(trial.racers)))
    for key, stands, answers in zip(keys, bench.backend.get_many(keys), zip(*told, strict=True), strict=True):
        winners = [racer for racer, won in enumerate(answers) if won]
        if len(winners) > 1:
            raise _Fault(f"{len(winners)} of {trial.racers} racing creates of {key} were told that they won")
        if stands is None or (winners and stands != b"%d" % winners[0]):
            raise _Fault(f"under {key} stands {stands!r}, which is not what the winner wrote")
    doubts = sum(won is None for answers in told for won in answers)
    text = f"{trial.races} races of {trial.racers} threads had one winner each"
    return text + (f" ({doubts} answers left it open)" if doubts else ""), {}


def _raced(backend: Backend, key: Key, racer: int, start: Barrier) -> bool | None:
    try:
        start.wait()  # for each key anew: else the first winner runs ahead, and nobody races
        return backend.create(key, [b"%d" % racer])
    except (OutcomeUnknown, BrokenBarrierError):  # the barrier breaks for an error that another thread raises
        return None
    except DatasetStoreError:
        start.abort()
        raise


def _ranges(bench: _Bench) -> _Seen:
    key, content = bench.key("ranges"), os.urandom(_MIB)
    bench.backend.put(key, [content])
    spans = [(0, 1), (5, 4096), (_MIB - 1, _MIB), (1000, 900_000)]
    parts: list[Span | Tail] = [*(Span(key, *bounds) for bounds in spans), Tail(key, 100), Tail(key, 2 * _MIB)]
    wanted = [*(content[start:stop] for start, stop in spans), content[-100:], content]
    if bench.backend.get_ranges(parts) != wanted:
        raise _Fault("parts of an object are not the bytes that were asked for")
    try:
        bench.backend.get_ranges([Span(key, 0, _MIB + 1)])
    except CorruptObject:
        return f"{len(parts)} parts of an object were read as asked, two of them from its end", {}
    raise _Fault("more bytes were read than the object has")


def _list_after_write(bench: _Bench) -> _Seen:
    keys = [bench.key(f"listed-{number}") for number in range(10)]
    for key in keys:
        bench.backend.put(key, [b"listed"])
    listed = {row.key: row.size for row in bench.backend.list(bench.folder) if row.key in keys}
    if listed != dict.fromkeys(keys, 6):
        raise _Fault(
            f"a listing has {len(listed)} of {len(keys)} objects that were just written, or other sizes of them"
        )
    bench.backend.delete_many(keys)
    if any(row.key in keys for row in bench.backend.list(bench.folder)) or any(bench.backend.get_many(keys)):
        raise _Fault("objects that were deleted are listed or read still")
    return "a listing has what was written, and not what was deleted", {}


def _large_object(bench: _Bench) -> _Seen:
    key, block = bench.key("large"), os.urandom(_MIB)
    # No two blocks are alike, and not each needs random bytes of its own.
    blocks = [number.to_bytes(4, "big") + block[4:] for number in range(-(-bench.trial.large_bytes // _MIB))]
    size = len(blocks) * _MIB
    begun = time.monotonic()
    bench.backend.put(key, blocks)
    sent = time.monotonic()
    step = 16 * _MIB
    found = bench.backend.get_ranges([Span(key, at, min(at + step, size)) for at in range(0, size, step)])
    read = time.monotonic()
    if b"".join(found) != b"".join(blocks):
        raise _Fault(f"an object of {size // _MIB} MiB does not read back as it was written")
    up, down = size / _MIB / (sent - begun), size / _MIB / (read - sent)
    figures = {"size_bytes": size, "put_mib_per_s": round(up, 1), "get_mib_per_s": round(down, 1)}
    return f"{size // _MIB} MiB written at {up:.0f} MiB/s and read at {down:.0f} MiB/s", figures


def _latency(bench: _Bench) -> _Seen:
    keys = [bench.key(f"timed-{number}") for number in range(bench.trial.samples)]
    creates = _seconds(keys, lambda key: bench.backend.create(key, [b"timed"]))
    reads = _seconds(keys, lambda key: bench.backend.get_many([key]))
    figures = {
        "create_ms": round(1000 * median(creates), 1),
        "create_worst_ms": round(1000 * max(creates), 1),
        "read_ms": round(1000 * median(reads), 1),
        "read_worst_ms": round(1000 * max(reads), 1),
    }
    small = "a small create takes {create_ms} ms (worst {create_worst_ms}), a small read {read_ms} ms ({read_worst_ms})"
    return small.format(**figures), figures


def _seconds(keys: Sequence[Key], act: Callable[[Key], object]) -> list[float]:
    taken = []
    for key in keys:
        begun = time.monotonic()
        act(key)
        taken.append(time.monotonic() - begun)
    return taken


_CHECKS: Final[Mapping[str, _Check]] = {
    "absent_key": _absent_key,
    "create_twice": _create_twice,
    "create_race": _create_race,
    "ranges": _ranges,
    "list_after_write": _list_after_write,
    "large_object": _large_object,
    "latency": _latency,
}

"""Mutations of real objects, and what a decoder may answer to them: a value, or one of its own errors, soon.

A *layer* is a place where bytes can be changed: the stored object itself, or what lies behind its checksum, which is
then made right again, so that what is checked further in is reached too. A seed gives the same inputs on any machine.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

__all__ = ["BATCH", "Finding", "Layer", "Run", "Target", "changed_bytes", "changed_json", "inputs", "run"]

Change = Callable[[Random, bytes, Sequence[bytes]], bytes]

BATCH = 500
"""Inputs that one seed gives."""

SLOWEST = 1.0
"""Seconds of processor time that one input may take."""

_LONGEST = 4 << 20
"""Bytes of an input."""

_NUMBERS = [0, 1, 2, 3, 7, 20, 32, 40, 64, 127, 255, 256, 1023, 4096, 65_535, 65_536, 1 << 20, (1 << 24) + 1]
_NUMBERS += [(1 << bits) + more for bits in (31, 32, 40, 63, 64) for more in (-1, 0) if (1 << bits) + more < 1 << 64]


def _position(rng: Random, data: bytearray) -> int:
    return int(rng.random() * (len(data) + 1))


def _flip(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[int(rng.random() * len(data))] ^= 1 << rng.getrandbits(3)


def _put_byte(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[int(rng.random() * len(data))] = rng.getrandbits(8)


def _put_number(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A number that is likely to be at a limit, or near the one that stands there."""
    width = rng.choice((1, 2, 4, 4, 8))
    at = int(rng.random() * max(1, len(data) - width + 1))
    if rng.random() < 0.5:
        at -= at % 4
    number = int.from_bytes(data[at : at + width], "little") + rng.choice((-1, 1, 4, -8))
    if rng.random() < 0.7:
        number = rng.choice((*_NUMBERS, len(data), len(data) - at))
    data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")


def _cut(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = _position(rng, data)
    del data[start : start + (1 << rng.randrange(12))]


def _end_early(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_position(rng, data) :]


def _double(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, length = _position(rng, data), 1 << rng.randrange(10)
    at = _position(rng, data)
    data[at:at] = data[start : start + length] * rng.choice((1, 1, 1, 2, 40))


def _insert(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _position(rng, data)
    data[at:at] = rng.randbytes(1 << rng.randrange(6)) if rng.random() < 0.7 else bytes(1 << rng.randrange(12))


def _splice(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    start = int(rng.random() * (len(other) + 1))
    at = _position(rng, data)
    data[at : at + rng.choice((0, 16, 64, 1 << 20))] = other[start : start + (1 << rng.randrange(4, 14))]


_STEPS = (_flip, _flip, _put_byte, _put_number, _put_number, _put_number, _cut, _end_early, _double, _insert, _splice)


def changed_bytes(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Bytes with one change to eight."""
    made = bytearray(data)
    for _ in range(min(1 + int(rng.expovariate(0.7)), 8)):
        rng.choice(_STEPS)(rng, made, others)
    return bytes(made)


_VALUES: list[Any] = [
    None, True, 0, -1, 1, 1.5, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400,
    "", "\0", "a" * 70_000, "../..", "/etc/passwd", "\u00e9\U0001f600", "0" * 32, "f" * 64, "\n", "file:///x",
    [], {}, [[]], {"": {}}, ["x"] * 1_025, [None, None], "NaN", float("nan"), float("inf"),
]  # fmt: skip


def changed_json(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """JSON with one change to four in its values; now and then in its bytes, or what is no JSON at all."""
    chance = rng.random()
    if chance < 0.2:
        return changed_bytes(rng, data, others)
    if chance < 0.22:
        return b"[" * (1 << rng.randrange(18)) + data
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # changed before
        return changed_bytes(rng, data, others)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _changed_value(rng, value, others)
    try:
        return json.dumps(value, ensure_ascii=chance < 0.3).encode("utf-8", "surrogatepass")[:_LONGEST]
    except MemoryError:  # very long texts, very many times; what the decoder is given is cut in any case
        return changed_bytes(rng, data, others)


def _changed_value(rng: Random, value: Any, others: Sequence[bytes]) -> Any:
    """The same with a change somewhere inside."""
    chance = rng.random()
    if isinstance(value, dict) and value and chance < 0.9:
        return _changed_object(rng, value, others)
    if isinstance(value, list) and value and chance < 0.8:
        return _changed_list(rng, value, others)
    if isinstance(value, str) and chance < 0.4:
        return changed_bytes(rng, value.encode("utf-8", "surrogatepass"), others).decode("utf-8", "surrogateescape")
    if isinstance(value, int) and chance < 0.4:
        return value + rng.choice((-1, 1, 64, 1 << 31))
    return rng.choice(_VALUES)


def _changed_object(rng: Random, value: dict[str, Any], others: Sequence[bytes]) -> dict[str, Any]:
    name, act = rng.choice(list(value)), rng.random()
    if act < 0.15:
        return {key: held for key, held in value.items() if key != name}
    if act < 0.25:
        return value | {rng.choice(("later", "", name + "x", "kind", "\u00e9")): rng.choice(_VALUES)}
    if act < 0.3:
        return value | _any_object(rng, others)
    return value | {name: _changed_value(rng, value[name], others)}


def _changed_list(rng: Random, value: list[Any], others: Sequence[bytes]) -> list[Any]:
    at, act = rng.randrange(len(value)), rng.random()
    if act < 0.15:
        return value[:at] + value[at + 1 :]
    if act < 0.3:
        small = not isinstance(value[at], dict | list | str) or len(value[at]) < 100
        return value[:at] + [value[at]] * rng.choice((2, 3, 600 if small else 2)) + value[at:]
    return [*value[:at], _changed_value(rng, value[at], others), *value[at + 1 :]]


def _any_object(rng: Random, others: Sequence[bytes]) -> dict[str, Any]:
    try:
        found = json.loads(rng.choice(others))
    except (ValueError, RecursionError):  # some are nested as deep as they are long
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Layer:
    """Where bytes are changed.

    Attributes:
        seeds: What is there in real objects.
        wrap: Makes of it what the decoder is given, every checksum around it right.
        change: How it is changed.
    """

    seeds: Sequence[bytes]
    wrap: Callable[[bytes], bytes] = bytes
    change: Change = changed_bytes


@dataclass(frozen=True)
class Target:
    """A decoder.

    Attributes:
        decode: What is tried; it raises AssertionError where a promise is broken.
        layers: Where its objects are changed.
        allowed: What it may raise.
    """

    decode: Callable[[bytes], object]
    layers: Sequence[Layer]
    allowed: tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Finding:
    """An input that a decoder answered with what it must not."""

    data: bytes
    problem: str


@dataclass
class Run:
    """What came of many inputs."""

    executions: int = 0
    accepted: int = 0
    slowest: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def inputs(target: Target, name: str, start: int, count: int) -> Iterator[bytes]:
    """The inputs of a target from batch `start` on."""
    for batch in range(start, start + -(-count // BATCH)):
        rng = Random(f"{name} {batch}")
        for _ in range(min(BATCH, count - (batch - start) * BATCH)):
            layer = rng.choice(target.layers)
            yield layer.wrap(layer.change(rng, rng.choice(layer.seeds), layer.seeds))


def run(target: Target, given: Iterable[bytes], stop_after: int = 5) -> Run:
    """Give inputs to a decoder."""
    found = Run()
    clock = time.thread_time
    for data in given:
        begun = clock()
        problem = _problem(target, data, found)
        took = clock() - begun
        found.executions += 1
        found.slowest = max(found.slowest, took)
        if problem is None and took > SLOWEST:
            problem = f"it took {took:.1f} s"
        if problem is not None:
            found.findings.append(Finding(data, problem))
            if len(found.findings) >= stop_after:
                break
    return found


def _problem(target: Target, data: bytes, found: Run) -> str | None:
    try:
        target.decode(data)
        found.accepted += 1
    except target.allowed as error:
        return _hidden(error)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"[:300]
    return None


def _hidden(error: BaseException) -> str | None:
    """Memory that ran out is no answer, whatever it was turned into."""
    first: BaseException | None = error
    while first is not None:
        if isinstance(first, MemoryError):
            return f"MemoryError behind {error}"[:300]
        first = first.__cause__ or first.__context__
    return None

"""Samples: what one system took for one operation, once. Kept as JSON, one a line."""

import json
import lzma
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One operation of one system, once.

    Attributes:
        workload: Which folder.
        system: Who.
        operation: What.
        round: Which repetition, from 0.
        wall: Seconds.
        cpu: Seconds of processor time; None where it was not measured.
        sync: Seconds that `sync` took afterwards; None where there was none.
        peak: The largest resident set of a process, in bytes; None where it was not measured.
        bytes: Of the store afterwards; None where nothing is stored.
        files: Of the store afterwards.
        requests: Sent to the object store; None where the store is a folder.
        carried: Bytes of the bodies of these requests and of their replies.
        problem: What went wrong, if anything: then the rest is 0.
        commands: As a user would type them, with the folders of the run shortened.
    """

    workload: str
    system: str
    operation: str
    round: int
    wall: float = 0.0
    cpu: float | None = None
    sync: float | None = None
    peak: int | None = None
    bytes: int | None = None
    files: int | None = None
    requests: int | None = None
    carried: int | None = None
    problem: str | None = None
    commands: Sequence[str] = ()


def append(path: Path, samples: Iterable[Sample]) -> None:
    """Add samples to a file, all with one write: a run that is ended before leaves no part of a system's round."""
    lines = "".join(json.dumps(asdict(sample)) + "\n" for sample in samples)
    with path.open("a") as file:
        file.write(lines)


def load(paths: Iterable[Path]) -> Iterator[Sample]:
    """The samples in some files, as they are or, with a name that ends in `.xz`, compressed."""
    for path in paths:
        with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as file:
            for line in file:
                yield Sample(**json.loads(line))


def median(samples: Iterable[Sample], of: Callable[[Sample], float | None]) -> float | None:
    """The median of what samples that had no problem tell; None where there are none."""
    found = [value for one in samples if one.problem is None and (value := of(one)) is not None]
    return statistics.median(found) if found else None

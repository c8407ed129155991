"""Tables of samples: medians by operation and system, and how ours stands to the best of each kind."""

import html
from collections.abc import Iterable, Iterator, Sequence

from benchmarks import limits
from benchmarks.measuring.samples import Sample, median
from benchmarks.servers.link import RATE
from benchmarks.systems import SYSTEMS
from benchmarks.systems.base import Kind

OURS = "dataset_store"
WRITES = {
    "chain",
    "first commit",
    "no-change commit",
    "small commit",
    "cold copy",
    "next copy",
    "warm copy",
    "mutable copy",
}
WRITES |= {"link", "tar, zstd -1", "cp -a", "cp -a, cold"}
"""Operations after which something may still have to be written: the `sync` that follows counts."""


def seconds(sample: Sample) -> float:
    """What an operation took until what it wrote was on the disk."""
    return sample.wall + (sample.sync or 0.0 if sample.operation in WRITES else 0.0)


def in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def by_workload(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of each workload, in the order in which these come."""
    found: dict[str, list[Sample]] = {}
    for one in samples:
        found.setdefault(one.workload, []).append(one)
    return found


def share_of_link(sample: Sample) -> float:
    """What an operation carried, as a share of what the link to a far store carries meanwhile."""
    return (sample.carried or 0) / RATE / sample.wall


def tables(samples: Sequence[Sample]) -> Iterator[str]:
    """Markdown: the tables of each workload below its name."""
    for workload, some in by_workload(samples).items():
        yield f"## {workload}\n"
        yield from of_workload(some)


def of_workload(samples: Sequence[Sample]) -> Iterator[str]:
    """Markdown: one table of seconds, one of peak memory and stored bytes, and what else was measured."""
    measured = [one for one in samples if one.system in SYSTEMS]
    operations = in_order(one.operation for one in measured if one.operation != "failed")
    systems = in_order(one.system for one in measured)
    rounds = len({one.round for one in samples})
    yield f"Seconds, with the `sync` that follows a write; medians of {rounds}.\n"
    yield from table(["system", *operations], [[name, *cells(samples, name, operations)] for name in systems])
    yield from table(
        ["", *operations], [["best other / ours", *(ratio(samples, operation, systems) for operation in operations)]]
    )
    least = in_order(one.operation for one in samples if one.system == limits.NAME)
    if least:
        yield "The machine, doing the least that is needed.\n"
        yield from table(["", *least], [["seconds", *cells(samples, limits.NAME, least)]])
    told = [one for one in samples if one.system not in SYSTEMS and one.system != limits.NAME]
    if told:
        yield "In a process that has begun already, milliseconds.\n"
        asked = in_order(one.operation for one in told)
        names = in_order(one.system for one in told)
        yield from table(["", *asked], [[name, *milliseconds(told, name, asked)] for name in names])
    asked = in_order(one.operation for one in measured if one.requests is not None)
    if asked:
        yield "Requests to the object store, and the share of the link's rate.\n"
        yield from table(["system", *asked], [[name, *requests(samples, name, asked)] for name in systems])
    yield "Peak memory in MB, and MB and files in the store after each commit.\n"
    commits = [one for one in operations if one.endswith("commit") or one == "chain"]
    head = ["system", "memory, commit", "memory, copy", *commits]
    yield from table(head, [[name, *sizes(samples, name, commits)] for name in systems])


def commands(samples: Sequence[Sample]) -> Iterator[str]:
    """Markdown: what is typed for each operation of each system, as it first was."""
    yield "## Commands\n"
    yield "`/tree` is where the data is, `/copies` where copies go; where the store is stands in the environment.\n"
    typed = [one for one in samples if one.commands]
    for name in in_order(one.system for one in typed):
        first = {one.operation: one for one in reversed(typed) if one.system == name}
        operations = in_order(one.operation for one in typed if one.system == name)
        rows = ([operation, "<br>".join(map(_code, first[operation].commands))] for operation in operations)
        yield from table([name, "typed"], rows)


def _code(command: str) -> str:
    return f"<code>{html.escape(command).replace('|', '&#124;')}</code>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def of(samples: Iterable[Sample], system: str, operation: str) -> list[Sample]:
    return [one for one in samples if one.system == system and one.operation == operation]


def cells(samples: Sequence[Sample], system: str, operations: Sequence[str]) -> Iterator[str]:
    for operation in operations:
        found = of(samples, system, operation)
        middle = median(found, seconds)
        wrong = sum(one.problem is not None for one in found)
        yield ("-" if middle is None else f"{middle:.2f}") + (f" ({wrong} failed)" if wrong else "")


def milliseconds(samples: Sequence[Sample], system: str, operations: Sequence[str]) -> Iterator[str]:
    for operation in operations:
        middle = median(of(samples, system, operation), lambda one: one.wall)
        yield "-" if middle is None else f"{1000 * middle:.2f}"


def requests(samples: Sequence[Sample], system: str, operations: Sequence[str]) -> Iterator[str]:
    for operation in operations:
        found = of(samples, system, operation)
        count = median(found, lambda one: one.requests)
        share = median(found, share_of_link)
        yield "-" if count is None or share is None else f"{count:.0f}, {100 * share:.0f} %"


def ratio(samples: Sequence[Sample], operation: str, systems: Sequence[str]) -> str:
    """How many times longer the best other system that keeps versions takes."""
    ours = median(of(samples, OURS, operation), seconds)
    others = [
        (middle, name)
        for name in systems
        if SYSTEMS[name].kind is Kind.VERSIONING
        and (middle := median(of(samples, name, operation), seconds)) is not None
    ]
    if ours is None or not others:
        return "-"
    best, name = min(others)
    return f"{best / ours:.1f} ({name})"


def sizes(samples: Sequence[Sample], system: str, commits: Sequence[str]) -> Iterator[str]:
    for operation in ("first commit", "cold copy"):
        peak = median(of(samples, system, operation), lambda one: one.peak)
        yield "-" if peak is None else f"{peak / 1e6:.0f}"
    for operation in commits:
        found = of(samples, system, operation)
        size, files = median(found, lambda one: one.bytes), median(found, lambda one: one.files)
        yield "-" if size is None or files is None else f"{size / 1e6:.1f}, {files:.0f}"

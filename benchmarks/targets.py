"""What is aimed at, beside what was measured: each row of the page of the published run is a line of `ROWS`.

Every figure is of medians of one run. Others are the systems that keep versions; the machine's limits are measured
in the same run.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import limits, report
from benchmarks.measuring.samples import Sample, median
from benchmarks.report import OURS, by_workload, of, seconds
from benchmarks.systems import SYSTEMS
from benchmarks.systems.base import Kind

OTHERS = frozenset(name for name, system in SYSTEMS.items() if system.kind is Kind.VERSIONING)
COMPRESSING = frozenset({"restic", "borg", "casync", "desync", "ClearML"})
DECODING = frozenset({"restic", "borg", "casync", "desync", "git-lfs", "ClearML"})
"""Those whose copies are decoded or checked; the rest copy or link files as they lie."""
SECOND_FOLDER = frozenset(name for name in OTHERS if SYSTEMS[name].makes_second_folder)
ASKED_FROM_PYTHON = frozenset({"restic", "borg", "DVC"})
MEMORY = ("restic", "DVC", "Oxen", "ClearML")


@dataclass(frozen=True)
class Found:
    """What a target came to: in words, and whether it is met."""

    text: str
    met: bool

    def __str__(self) -> str:
        return self.text if self.met else f"**{self.text}**"


class Board:
    """The samples of a run, asked by workload, system and operation."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = by_workload(samples)

    def middle(
        self, workload: str, system: str, operation: str, what: Callable[[Sample], float | None] = seconds
    ) -> float | None:
        return median(of(self.samples.get(workload, ()), system, operation), what)

    def best(
        self, workload: str, names: Collection[str], operation: str, what: Callable[[Sample], float | None] = seconds
    ) -> tuple[float, str] | None:
        """The least of what some systems took, and whose it was."""
        found = [(value, name) for name in names if (value := self.middle(workload, name, operation, what)) is not None]
        return min(found) if found else None


Row = Callable[[Board], Found | None]


def faster(workload: str, operation: str, names: Collection[str] = OTHERS, least: float = 2.0) -> Row:
    """At least so many times faster than the fastest of some systems."""

    def found(board: Board) -> Found | None:
        ours, best = board.middle(workload, OURS, operation), board.best(workload, names, operation)
        if ours is None or best is None:
            return None
        return Found(f"{best[0] / ours:.1f} x ({best[1]})", best[0] / ours >= least)

    return found


def within(workload: str, operation: str, limit: str, most: float) -> Row:
    """At most so many times as long as a limit of the machine, or another system."""

    def found(board: Board) -> Found | None:
        whose, what = (limit, operation) if limit in SYSTEMS else (limits.NAME, limit)
        ours, least = board.middle(workload, OURS, operation), board.middle(workload, whose, what)
        if ours is None or least is None:
            return None
        return Found(f"{ours / least:.2f} x `{limit}`", ours / least <= most)

    return found


def rate(workload: str, operation: str, limit: str, least: float) -> Row:
    """At least this share of the rate of a limit."""

    def found(board: Board) -> Found | None:
        ours, fastest = board.middle(workload, OURS, operation), board.middle(workload, limits.NAME, limit)
        if ours is None or fastest is None:
            return None
        return Found(f"{100 * fastest / ours:.0f} % of the rate of `{limit}`", fastest / ours >= least)

    return found


def either(one: Row, other: Row) -> Row:
    """One of two is enough."""

    def found(board: Board) -> Found | None:
        told = [row for row in (one(board), other(board)) if row is not None]
        return Found("; ".join(row.text for row in told), any(row.met for row in told)) if told else None

    return found


def fewest_bytes(workload: str, operation: str, most: float, names: Collection[str] = OTHERS) -> Row:
    """The store holds at most so many times the fewest bytes of some systems."""
    return _fewest(most, names, lambda board, name: _stored(board, workload, name, operation))


def fewest_added(workload: str, operation: str, most: float) -> Row:
    """As `fewest_bytes`, of what the operation adds to what a commit of no change has left."""

    def added(board: Board, name: str) -> float | None:
        after, before = (_stored(board, workload, name, one) for one in (operation, "no-change commit"))
        return None if after is None or before is None else after - before

    return _fewest(most, OTHERS, added)


def _stored(board: Board, workload: str, name: str, operation: str) -> float | None:
    return board.middle(workload, name, operation, lambda one: one.bytes)


def _fewest(most: float, names: Collection[str], stored: Callable[[Board, str], float | None]) -> Row:
    def found(board: Board) -> Found | None:
        ours = stored(board, OURS)
        others = [(value, name) for name in names if (value := stored(board, name)) is not None]
        if ours is None or not others:
            return None
        least, whose = min(others)
        return Found(f"{ours / 1e6:.2f} MB; {whose} {least / 1e6:.2f} MB", ours <= least * most)

    return found


def milliseconds(workload: str, operation: str, most: float) -> Row:
    """From Python, in a process that has begun already."""

    def found(board: Board) -> Found | None:
        ours = board.middle(workload, f"{OURS}, from Python", operation, lambda one: 1000 * one.wall)
        return None if ours is None else Found(f"{ours:.1f} ms", ours <= most)

    return found


def from_python(workload: str, operation: str, least: float) -> Row:
    """From Python, at least so many times faster than the fastest command of some systems."""

    def found(board: Board) -> Found | None:
        ours = board.middle(workload, f"{OURS}, from Python", operation, lambda one: one.wall)
        best = board.best(workload, ASKED_FROM_PYTHON, operation)
        if ours is None or best is None:
            return None
        return Found(f"{best[0] / ours:.0f} x ({best[1]})", best[0] / ours >= least)

    return found


def short_command(workload: str, operation: str) -> Row:
    """At most four times a Python that does nothing, and 20 ms."""

    def found(board: Board) -> Found | None:
        ours = board.middle(workload, OURS, operation, lambda one: 1000 * one.wall)
        least = board.middle(workload, limits.NAME, "python -c pass", lambda one: 1000 * one.wall)
        if ours is None or least is None:
            return None
        return Found(f"{ours:.0f} ms of {4 * least + 20:.0f}", ours <= 4 * least + 20)

    return found


def share_of_link(workload: str, operation: str, least: float) -> Row:
    """At least this share of what the link carries, over the whole command."""

    def found(board: Board) -> Found | None:
        ours = board.middle(workload, OURS, operation, report.share_of_link)
        return None if ours is None else Found(f"{100 * ours:.0f} % of the link", ours >= least)

    return found


def memory(workload: str, operation: str, most: float) -> Row:
    """Less than the others that are named, and at most so many MB."""

    def found(board: Board) -> Found | None:
        ours = board.middle(workload, OURS, operation, lambda one: one.peak)
        best = board.best(workload, MEMORY, operation, lambda one: one.peak)
        if ours is None or best is None:
            return None
        text = f"{ours / 1e6:.0f} MB; {best[1]} {best[0] / 1e6:.0f} MB"
        return Found(text, ours <= min(best[0], most * 1e6))

    return found


ROWS: Sequence[tuple[str, str, str, Row]] = (
    (
        "large-noise",
        "first commit",
        "2 x others, or 1.3 x writing",
        either(faster("large-noise", "first commit"), within("large-noise", "first commit", "write and fsync", 1.3)),
    ),
    ("large-text", "first commit", "2 x those that compress", faster("large-text", "first commit", COMPRESSING)),
    ("large-text", "first commit", "1.12 x their bytes", fewest_bytes("large-text", "first commit", 1.12, COMPRESSING)),
    ("large-text", "first commit", "70 % of the rate", rate("large-text", "first commit", "compress", 0.7)),
    ("small", "first commit", "2 x others", faster("small", "first commit")),
    ("small", "first commit", "1.5 x `cp -a`", within("small", "first commit", "cp -a", 1.5)),
    *(
        (name, "small commit", "2 x others", faster(name, "small commit"))
        for name in ("large-noise", "large-text", "small", "wide")
    ),
    *(
        (name, "small commit", "fewest bytes added, or within 5 %", fewest_added(name, "small commit", 1.05))
        for name in ("large-noise", "large-text", "small", "wide")
    ),
    ("wide", "no-change commit", "2 x others", faster("wide", "no-change commit")),
    ("wide", "no-change commit", "1.5 x looking at each", within("wide", "no-change commit", "stat", 1.5)),
    ("wide", "no-change commit", "1.2 x git", within("wide", "no-change commit", "git", 1.2)),
    *(
        (name, "cold copy", "2 x those that decode or check", faster(name, "cold copy", DECODING))
        for name in ("large-noise", "large-text", "small")
    ),
    ("large-noise", "cold copy", "1.3 x `cp -a`", within("large-noise", "cold copy", "cp -a, cold", 1.3)),
    ("large-text", "cold copy", "3 x `cp -a`", within("large-text", "cold copy", "cp -a, cold", 3.0)),
    ("small", "cold copy", "1 x `cp -a`", within("small", "cold copy", "cp -a, cold", 1.0)),
    *(
        (name, "next copy", "2 x those that make a second folder", faster(name, "next copy", SECOND_FOLDER))
        for name in ("large-noise", "large-text", "small")
    ),
    ("small", "next copy", "80 % of the rate of links", rate("small", "next copy", "link", 0.8)),
    ("small", "warm copy", "5 ms from Python", milliseconds("small", "warm copy", 5.0)),
    ("small", "warm copy", "4 x Python that does nothing, and 20 ms", short_command("small", "warm copy")),
    *(
        (name, "mutable copy", "2 x others", faster(name, "mutable copy"))
        for name in ("large-noise", "large-text", "small")
    ),
    *(
        (name, "mutable copy", "1.2 x `cp -a`", within(name, "mutable copy", "cp -a", 1.2))
        for name in ("large-noise", "large-text", "small")
    ),
    *(
        (name, "mutable copy", "1.2 x `cp -a`, which shares blocks there", within(name, "mutable copy", "cp -a", 1.2))
        for name in ("small-btrfs", "large-noise-xfs")
    ),
    *(("wide", name, "10 x restic, borg, DVC", from_python("wide", name, 10.0)) for name in ("diff", "list")),
    *(("wide", name, "50 ms from Python", milliseconds("wide", name, 50.0)) for name in ("diff", "list", "merge")),
    *(
        (name, "small commit", "fewest bytes, or within 5 %", fewest_bytes(name, "small commit", 1.05))
        for name in ("parquet", "parquet-pages")
    ),
    *(
        (name, operation, "as fast as the best", faster(name, operation, least=1.0))
        for name in ("small-far", "large-noise-far")
        for operation in ("first commit", "cold copy")
    ),
    *(
        ("small-far", operation, "2 x others", faster("small-far", operation))
        for operation in ("no-change commit", "small commit", "next copy", "warm copy", "diff")
    ),
    *(
        ("large-noise-far", operation, "80 % of the link", share_of_link("large-noise-far", operation, 0.8))
        for operation in ("first commit", "cold copy")
    ),
    *(
        (name, f"memory, {operation}", f"less than {', '.join(MEMORY)}, and {most} MB", memory(name, operation, most))
        for name, most in (("large-noise", 200), ("large-text", 200), ("small", 1074), ("wide", 1074))
        for operation in ("first commit", "cold copy")
    ),
)
"""Workload, operation, what is aimed at, and how it is found."""


def rows(samples: Sequence[Sample]) -> Iterator[list[str]]:
    """The table of what is aimed at and what was found, for the workloads that were measured."""
    board = Board(samples)
    for workload, operation, asked, row in ROWS:
        found = row(board)
        if found is not None:
            yield [workload, operation, asked, str(found), "met" if found.met else "missed"]

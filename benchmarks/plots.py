"""Plots of samples: for each workload what every system took for every operation, on one logarithmic axis."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import limits
from benchmarks.measuring.samples import Sample, median
from benchmarks.report import OURS, by_workload, in_order, of, seconds
from benchmarks.systems import SYSTEMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = {
    "first commit": "write and fsync",
    "no-change commit": "stat",
    "cold copy": "cp -a, cold",
    "next copy": "link",
    "mutable copy": "cp -a",
}
"""The machine's limit that stands beside an operation."""

MARKERS = "osv^<>PXDph8*d"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 8}


def draw(samples: Sequence[Sample], folder: Path) -> Iterator[Path]:
    """Write an SVG for each workload into a folder; the same samples give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for workload, some in by_workload(samples).items():
        path = folder / f"{workload}.svg"
        _draw_one(some, workload, path)
        yield path


def _draw_one(samples: Sequence[Sample], workload: str, path: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    measured = [one for one in samples if one.system in SYSTEMS and one.operation != "failed"]
    operations = in_order(one.operation for one in measured)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.6 + 0.36 * len(operations)), layout="constrained")
        axes = figure.add_subplot(xscale="log", title=workload, xlabel="seconds, until it is on the disk; median")
        for number, name in enumerate(in_order(one.system for one in measured)):
            _points(axes, samples, name, operations, number)
        _limits(axes, samples, operations)
        axes.set_yticks(range(len(operations)), operations)
        axes.invert_yaxis()
        axes.grid(axis="x", which="major", color="0.9")
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _points(axes: "Axes", samples: Sequence[Sample], name: str, operations: Sequence[str], number: int) -> None:
    found = [(median(of(samples, name, operation), seconds), row) for row, operation in enumerate(operations)]
    told = [(value, row) for value, row in found if value is not None]
    look = {"color": "black", "marker": "D", "s": 42, "zorder": 3} if name == OURS else {"s": 22, "alpha": 0.8}
    look = {"color": f"C{number % 10}", "marker": MARKERS[number % len(MARKERS)]} | look
    axes.scatter([value for value, _ in told], [row for _, row in told], label=name, linewidths=0, **look)


def _limits(axes: "Axes", samples: Sequence[Sample], operations: Sequence[str]) -> None:
    found = [(median(of(samples, limits.NAME, LEAST.get(one, "")), seconds), row) for row, one in enumerate(operations)]
    told = [(value, row) for value, row in found if value is not None]
    if told:
        values, rows = [value for value, _ in told], [row for _, row in told]
        axes.scatter(values, rows, label="the machine's limit", marker="|", s=160, color="0.4", zorder=2)

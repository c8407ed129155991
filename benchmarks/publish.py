"""The page of the published run, made of the samples that lie beside this: nothing on it is typed by hand."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import plots, report, targets
from benchmarks.measuring.samples import Sample, load
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import WORKLOADS

SAMPLES = Path(__file__).parent / "published"
ABOUT = SAMPLES / "about.json"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
FIGURES = PAGE.parent / "figures"

HEAD = """# The published run

Made by `python -m benchmarks publish` of the samples in `benchmarks/published`. [Performance](performance.md) says why
targets are missed; what each operation is, and what a run minds, is in [benchmarks](../benchmarks/README.md). Each
workload was measured, every system in turn, on the day that stands with it, with this package as it was then.
"""


def publish() -> None:
    """Write the page and its figures."""
    samples = published()
    list(plots.draw(samples, FIGURES))
    PAGE.write_text(page(samples, json.loads(ABOUT.read_text())))


def published() -> list[Sample]:
    """All samples of the published run, workloads in the order in which they are described."""
    paths = (SAMPLES / f"{name}.jsonl.xz" for name in WORKLOADS)
    return list(load(path for path in paths if path.exists()))


def page(samples: Sequence[Sample], about: Mapping[str, Mapping[str, str]]) -> str:
    return "\n".join(_lines(samples, about)) + "\n"


def _lines(samples: Sequence[Sample], about: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield HEAD
    yield from report.table(["the machine", ""], about["machine"].items())
    yield from report.table(["system", "version"], about["versions"].items())
    yield "## What is aimed at\n"
    yield "Medians of one run. *Others* keep versions, by storing once what is the same, or by copying.\n"
    yield from report.table(["workload", "operation", "aimed at", "found", ""], targets.rows(samples))
    for workload, some in report.by_workload(samples).items():
        yield f"## {workload}\n\n{WORKLOADS[workload].about}; measured on {about['measured'][workload]}.\n"
        yield f"![What each system took for each operation](figures/{workload}.svg)\n"
        yield from report.of_workload(some)
    yield from report.commands(samples)


def about() -> dict[str, dict[str, str]]:
    """This machine, the versions of the systems that are installed on it, and the days of what is published."""
    measured = json.loads(ABOUT.read_text())["measured"] if ABOUT.exists() else {}
    return {"machine": machine(), "versions": versions(), "measured": measured}


def machine() -> dict[str, str]:
    """What decides how quick it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{model}, {os.cpu_count()} cores, as a virtual machine has them",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release().partition("-")[0],
        "Python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """What each installed system tells of itself: the first line with a number."""
    return {name: _told(name) for name in SYSTEMS if SYSTEMS[name].is_installed()}


def _told(name: str) -> str:
    (command,) = SYSTEMS[name].version()
    done = subprocess.run(command.argv, check=True, capture_output=True, text=True, env=os.environ | command.env)
    lines = done.stdout.splitlines()
    return next((line.strip() for line in lines if any(map(str.isdigit, line))), "?")

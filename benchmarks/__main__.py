"""Measure systems beside each other: see benchmarks/README.md."""

import argparse
import json
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import limits, peers, plots, publish, quick, report
from benchmarks.measuring.machine import Machine
from benchmarks.measuring.samples import Sample, append, load
from benchmarks.running import Prepared, run, run_limits
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import WORKLOADS, Workload

Turn = tuple[int, str]
"""A round, counted from 0, and a system or the limits."""


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = whole.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure systems beside each other; needs root")
    running.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    running.add_argument("--system", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    running.add_argument("--scale", type=float, default=1.0, help="of sizes and counts of the workloads")
    running.add_argument("--rounds", type=int, default=5, help="with those that the file has")
    running.add_argument("--seed", type=int, default=1)
    running.add_argument("--scratch", type=Path, help="where the images are made: /var/tmp, with --quick /dev/shm")
    running.add_argument(
        "--into", type=Path, help="a file of samples; what it has of a system in a round is not measured again"
    )
    running.add_argument("--quick", action="store_true", help="only compare with the ratios in quick.json; minutes")
    running.add_argument("--accept", action="store_true", help="with --quick: make what is measured the new ratios")
    commands.add_parser("install", help="install the other systems, and this one as users do; needs root and Debian")
    reporting = commands.add_parser("report", help="tables of samples, as Markdown")
    reporting.add_argument("samples", type=Path, nargs="+")
    reporting.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="also draw each workload, as SVG, into a folder"
    )
    commands.add_parser("about", help="this machine and the systems on it, as JSON")
    commands.add_parser(
        "publish", help="make docs/benchmarks.md and its figures of the samples in benchmarks/published"
    )
    return whole


def run_all(options: argparse.Namespace) -> int:
    if options.quick:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch or "/dev/shm") as folder:
            return quick.check(Path(folder), accept=options.accept)
    if options.into is None:
        raise SystemExit("Say with --into where the samples go.")
    there = turns_in(options.into)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch or "/var/tmp") as folder:
        machine = Machine(Path(folder))
        for name in options.workload:
            workload = WORKLOADS[name](options.scale, options.seed)
            turns = [one for one in turns_of(workload, options.system, options.rounds) if one not in there[name]]
            if not turns:
                continue
            prepared = Prepared.make(workload, machine.scratch)
            for number, system in turns:
                samples = list(shown(one_turn(system, prepared, machine, number)))
                append(options.into, samples)
                failed += sum(sample.problem is not None for sample in samples)
    return 1 if failed else 0


def turns_of(workload: Workload, names: Sequence[str], rounds: int) -> Iterator[Turn]:
    """What is measured, in order: in each round what the machine needs for the least, then every system, each round
    beginning with another one."""
    systems = [one for one in names if SYSTEMS[one].reaches_far or not workload.far]
    for number in range(rounds):
        turn = number % len(systems)
        yield from ((number, one) for one in [limits.NAME, *systems[turn:], *systems[:turn]])


def one_turn(system: str, prepared: Prepared, machine: Machine, number: int) -> Iterator[Sample]:
    """All samples of one system, or of the limits, in one round."""
    if system == limits.NAME:
        return run_limits(prepared, machine, number)
    return run(SYSTEMS[system], prepared, machine, number)


def turns_in(path: Path) -> Mapping[str, set[Turn]]:
    """By workload, the turns that a file of samples has: a run that takes hours may be made in pieces."""
    found: dict[str, set[Turn]] = defaultdict(set)
    for sample in load([path]) if path.exists() else ():
        found[sample.workload].add((sample.round, sample.system))
    return found


def shown(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The same samples, each shown as it comes."""
    for sample in samples:
        print(line(sample), flush=True)
        yield sample


def install_all(_options: argparse.Namespace) -> int:
    peers.install()
    return 0


def report_all(options: argparse.Namespace) -> int:
    samples = list(load(options.samples))
    for text in report.tables(samples):
        print(text)
    for text in report.commands(samples):
        print(text)
    for path in plots.draw(samples, options.plots) if options.plots else ():
        print(f"![{path.stem}]({path})")
    return 0


def tell_about(_options: argparse.Namespace) -> int:
    print(json.dumps(publish.about(), indent=1))
    return 0


def publish_all(_options: argparse.Namespace) -> int:
    publish.publish()
    return 0


def line(sample: Sample) -> str:
    told = f"{sample.workload:14} {sample.round} {sample.system:18} {sample.operation:18}"
    if sample.problem:
        return f"{told} {sample.problem}"
    stored = f"{sample.bytes / 1e6:9.1f} MB {sample.files:7} files" if sample.bytes is not None else ""
    if sample.cpu is None or sample.sync is None or sample.peak is None:
        return f"{told} {sample.wall:8.4f} s"
    return f"{told} {sample.wall:8.3f} s +{sample.sync:5.2f} cpu {sample.cpu:7.2f} {sample.peak / 1e6:7.0f} MB {stored}"


def main(words: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that images are unmounted
    options = parser().parse_args(words)
    act = {
        "run": run_all,
        "install": install_all,
        "report": report_all,
        "about": tell_about,
        "publish": publish_all,
    }[options.command]
    return act(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

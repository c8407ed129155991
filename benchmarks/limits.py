"""What the machine itself takes for the least that an operation needs, measured in the same run as the systems."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.measuring.machine import Machine
from benchmarks.measuring.process import Command, measure
from benchmarks.measuring.samples import Sample
from benchmarks.systems import Home
from benchmarks.systems.base import Commands
from benchmarks.workloads import Workload

PROGRAMS = Path(__file__).parent / "measuring" / "limit_programs.py"
NAME = "limit"


def limits_of(home: Home, scratch: Path) -> Mapping[str, Commands]:
    """The commands of each limit; what they write comes to lie in `scratch`."""
    data, copies = str(home.data), str(scratch)

    def program(*words: str) -> Commands:
        return [Command([sys.executable, str(PROGRAMS), *words], home.root)]

    def shell(text: str) -> Commands:
        return [Command(["sh", "-c", text, "sh", data, copies], home.root)]

    return {
        "hash": program("hash", data),
        "compress": program("compress", data),
        "stat": program("stat", data),
        "link": program("link", data, f"{copies}/linked"),
        "tar, zstd -1": shell('tar -C "$1" -c . | zstd -1 -q -o "$2/packed"'),
        "write and fsync": shell('tar -C "$1" -c . | dd of="$2/written" bs=4M iflag=fullblock conv=fsync'),
        "cp -a": [Command(["cp", "-a", data, f"{copies}/copied"], home.root)],
        "cp -a, cold": [Command(["cp", "-a", data, f"{copies}/copied again"], home.root)],
        "python -c pass": [Command([sys.executable, "-c", "pass"], home.root)],
    }


def samples_of(workload: Workload, machine: Machine, home: Home, number: int) -> Iterator[Sample]:
    """Each limit that the workload is measured by, once; `home.data` is the workload's folder."""
    for operation, commands in limits_of(home, home.copy("")).items():
        if workload.limits is not None and operation not in workload.limits:
            continue
        if operation.endswith("cold"):
            machine.forget()
        machine.fill()
        timing = measure(commands, home.root / "home")
        yield Sample(workload.name, NAME, operation, number, timing.wall, timing.cpu, timing.sync, timing.peak)

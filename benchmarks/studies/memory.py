"""Peak memory of each step of a version's life, every step in a process of its own.

    python benchmarks/studies/memory.py big --kind repeating --size 10G --scratch /somewhere/with/room
    python benchmarks/studies/memory.py big --kind random --size 1G
    python benchmarks/studies/memory.py many --files 1000000 --scratch /dev/shm

`big` makes one file: `random` is random throughout; `repeating` is 256 MiB of random bytes over and over,
each time with a few random bytes in between, so that nearly all of it is stored already after the first
round. `many` makes tiny files of 10 to 60 bytes, 1,000 in each directory. Then: create and sync, upload,
finalize, a sync of the unchanged folder, a local copy on another machine, a second version with a few bytes
changed, and its local copy on that other machine; the copy is compared with the folder. Figures are the
largest resident set of each process.
"""

import argparse
import itertools
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROUND = 256 << 20
FILES_PER_DIRECTORY = 1_000
STEPS = ("sync", "upload", "finalize", "resync", "copy", "next", "next-copy")


@dataclass(frozen=True)
class Figure:
    """One step: seconds, and the largest resident set of its process in bytes."""

    step: str
    seconds: float
    peak: int


# --- one step, in its own process ------------------------------------------------------------------------------------


def run_step(step: str, folder: str, version_id: str) -> str:
    from dataset_store import Dataset

    if step == "sync":
        dataset = Dataset.create(dataset_name="memory")
        dataset.sync_folder(folder)
        return dataset.id
    dataset = Dataset.get(version_id)
    if step == "upload":
        dataset.upload(show_progress=False)
    elif step == "finalize":
        dataset.finalize()
    elif step in {"copy", "next-copy"}:
        return dataset.get_local_copy()
    elif step == "next":
        child = Dataset.create(parent_datasets=[dataset])
        child.sync_folder(folder)
        child.finalize(auto_upload=True)
        return child.id
    elif step == "resync":
        child = Dataset.create(parent_datasets=[dataset])
        return str(child.sync_folder(folder))
    return version_id


def peak_bytes() -> int:
    """The largest resident set of this process since it began; `ru_maxrss` counts its parent's before that too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def measure_step(step: str, home: Path, folder: Path, version_id: str) -> tuple[Figure, str]:
    machine = "other" if step.endswith("copy") else "first"
    environment = os.environ | {
        "DATASET_STORE_URL": str(home / "store"),
        "DATASET_STORE_CACHE": str(home / machine / "cache"),
        "DATASET_STORE_DATA": str(home / machine / "own"),
        "DATASET_STORE_CACHE_BYTES": str(1 << 50),
    }
    command = [sys.executable, os.path.abspath(__file__), "step", step, str(folder), version_id]
    begin = time.perf_counter()
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds = time.perf_counter() - begin
    result, peak = answer.splitlines()[-1].rsplit(" ", 1)
    return Figure(step, seconds, int(peak)), result


def measure(home: Path, folder: Path) -> tuple[list[Figure], Path]:
    """All steps; the figures, and the folder of the local copy."""
    figures = []
    version_id = result = ""
    for step in STEPS:
        if step == "next":
            change(folder)
        figure, result = measure_step(step, home, folder, version_id)
        figures.append(figure)
        version_id = result if step in {"sync", "next"} else version_id
        if step == "resync" and result != "(0, 0, 0)":
            raise AssertionError(f"an unchanged folder has changes: {result}")
    return figures, Path(result)


# --- what is versioned -----------------------------------------------------------------------------------------------


def write_random(path: Path, size: int) -> None:
    rng = random.Random(1)
    with path.open("wb") as file:
        for at in range(0, size, 4 << 20):
            file.write(rng.randbytes(min(4 << 20, size - at)))


def write_repeating(path: Path, size: int) -> None:
    rng = random.Random(2)
    parts = [rng.randbytes(4 << 20) for _ in range(0, min(ROUND, size), 4 << 20)]
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(rng.randbytes(32))
            file.writelines(parts)
        file.truncate(size)


def write_many(folder: Path, files: int) -> None:
    rng = random.Random(3)
    for number in range(files):
        place, name = divmod(number, FILES_PER_DIRECTORY)
        directory = f"{folder}/{place:04}"
        if not name:
            os.makedirs(directory)
        opened = os.open(f"{directory}/{name:04}.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(opened, rng.randbytes(rng.randint(10, 60)))
        os.close(opened)


def change(folder: Path) -> None:
    """Another first byte in each of ten files, or in the only one."""
    files = (path for path in folder.rglob("*") if path.is_file())
    for path in itertools.islice(files, 10):
        with path.open("r+b") as file:
            file.write(b"!")


def require_equal(source: Path, copy: Path) -> None:
    """The copy holds the same files, every byte of them."""
    subprocess.run(["diff", "-rq", str(source), str(copy)], check=True)


def parse_size(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)


# --- the command line ------------------------------------------------------------------------------------------------


def report(title: str, figures: list[Figure], store: Path) -> None:
    stored = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    print(f"{title}; the store holds {stored / 2**20:,.0f} MiB")
    for figure in figures:
        print(f"  {figure.step:10s} {figure.seconds:7.1f} s   peak {figure.peak / 2**20:7.0f} MiB", flush=True)


def run(title: str, write: Callable[[Path], object], scratch: str | None = None) -> dict[str, int]:
    """Measure all steps with a folder that `write` fills, and print; the peak of each step in bytes."""
    home = Path(tempfile.mkdtemp(prefix="memory-", dir=scratch))
    try:
        folder = home / "in"
        folder.mkdir()
        write(folder)
        figures, copy = measure(home, folder)
        report(title, figures, home / "store")
        require_equal(folder, copy)
        return {figure.step: figure.peak for figure in figures}
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run_big(kind: str, size: int, scratch: str | None = None) -> dict[str, int]:
    writer = write_random if kind == "random" else write_repeating
    title = f"one {kind} file of {size / 2**30:.1f} GiB"
    return run(title, lambda folder: writer(folder / "big.bin", size), scratch)


def run_many(files: int, scratch: str | None = None) -> dict[str, int]:
    return run(f"{files:,} tiny files", lambda folder: write_many(folder, files), scratch)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    big = commands.add_parser("big")
    big.add_argument("--kind", choices=("random", "repeating"), default="repeating")
    big.add_argument("--size", type=parse_size, default=parse_size("10G"))
    many = commands.add_parser("many")
    many.add_argument("--files", type=int, default=1_000_000)
    for command in (big, many):
        command.add_argument("--scratch", default=None)
    step = commands.add_parser("step")
    step.add_argument("step", choices=STEPS)
    step.add_argument("folder")
    step.add_argument("version_id")
    options = parser.parse_args()
    if options.command == "step":
        result = run_step(options.step, options.folder, options.version_id)
        print(result, peak_bytes())
        return
    if options.command == "many":
        run_many(options.files, options.scratch)
    else:
        run_big(options.kind, options.size, options.scratch)


if __name__ == "__main__":
    main()

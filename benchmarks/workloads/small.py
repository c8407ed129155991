"""100,000 files of 2 to 20 KiB; then 1 % are changed, added and removed, and a directory is renamed."""

import os
from pathlib import Path

import numpy as np

from benchmarks.workloads.base import Workload

FILES = 100_000
IN_DIRECTORY = 500
WORDS = (b"sensor", b"camera", b"frame", b"label", b"weight", b"status", b"left", b"right", b"score", b"track")


class Small(Workload):
    name = "small"
    about = (
        "100,000 files of 2 to 20 KiB, half noise, half JSON, 500 in a directory; 1 % changed, 1 % added, 1 % removed, "
        "and a directory renamed"
    )
    room = 16 << 30
    quick_limit = "cp -a"
    files = FILES

    def data(self, place: int, number: int) -> bytes:
        rng = self.rng(place, number)
        size = int(rng.integers(2 << 10, 20 << 10))
        return rng.bytes(size) if number % 2 else _json(rng, size)

    def path(self, number: int) -> str:
        return f"{number // IN_DIRECTORY:04d}/{number:07d}.{'bin' if number % 2 else 'json'}"

    def build(self, folder: Path) -> None:
        for number in range(self.count(self.files)):
            _write(folder, self.path(number), self.data(0, number))

    def edit(self, folder: Path, step: int = 1) -> None:
        files = self.count(self.files)
        hundredth = max(1, files // 100)
        chosen = self.rng(step).permutation(files)[: 2 * hundredth].tolist()
        for number in chosen[:hundredth]:
            (folder / self.path(number)).unlink()
            _write(folder, self.path(number), self.data(step, number))
        for number in chosen[hundredth:]:
            (folder / self.path(number)).unlink()
        for number in range(files, files + hundredth):
            _write(folder, self.path(number), self.data(step, number))
        first = sorted(one.name for one in folder.iterdir())[files // IN_DIRECTORY // 2]
        (folder / first).rename(folder / f"{first}-renamed")


class SmallFar(Small):
    name = "small-far"
    about = "a fifth of `small`; the store is an object store 30 ms and 100 MB/s away"
    room = 6 << 30
    far = True
    files = FILES // 5


class SmallBtrfs(Small):
    name = "small-btrfs"
    about = "a fifth of `small`, on btrfs"
    room = 6 << 30
    file_system = "btrfs"
    files = FILES // 5


class Chain(Small):
    name = "chain"
    about = "2,000 files of 2 to 20 KiB; 200 versions, in each ten files changed and one added"
    room = 6 << 30
    versions = 200
    limits = frozenset(["hash", "stat", "cp -a", "python -c pass"])
    files = FILES // 50

    def edit(self, folder: Path, step: int = 1) -> None:
        files = self.count(self.files)
        for number in self.rng(step).permutation(files)[:10].tolist():
            (folder / self.path(number)).unlink()
            _write(folder, self.path(number), self.data(step, number))
        _write(folder, self.path(files + step), self.data(step, files + step))


class Wide(Workload):
    name = "wide"
    about = "1,000,000 files of 10 to 60 bytes, 1,000 in a directory; 100 changed"
    room = 24 << 30
    limits = frozenset(["hash", "stat", "link", "python -c pass"])

    def path(self, number: int) -> str:
        return f"{number // 1000:04d}/{number:07d}"

    def build(self, folder: Path) -> None:
        files = self.count(1_000_000)
        rng = self.rng(0)
        data = rng.bytes(files * 60)
        sizes = rng.integers(10, 61, files).tolist()
        for number, size in enumerate(sizes):
            _write(folder, self.path(number), data[number * 60 : number * 60 + size])

    def edit(self, folder: Path, step: int = 1) -> None:
        rng = self.rng(step)
        for number in rng.permutation(self.count(1_000_000))[:100].tolist():
            (folder / self.path(number)).unlink()
            _write(folder, self.path(number), rng.bytes(40))


def _write(folder: Path, path: str, data: bytes) -> None:
    whole = f"{folder}/{path}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        handle = os.open(whole, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(whole))
        handle = os.open(whole, flags, 0o644)
    os.write(handle, data)
    os.close(handle)


def _json(rng: np.random.Generator, size: int) -> bytes:
    count = size // 24 + 1
    words = rng.integers(0, len(WORDS), count).tolist()
    numbers = rng.integers(0, 10**6, count).tolist()
    return (
        b"{" + b",".join(b'"%s": %d' % (WORDS[word], number) for word, number in zip(words, numbers))[: size - 2] + b"}"
    )

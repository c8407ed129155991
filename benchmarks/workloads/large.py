"""Eight large files; then 1 KiB is inserted in the middle of seven, and 1 KiB added to the end of the last."""

from pathlib import Path

import numpy as np

from benchmarks.workloads.base import Workload

FILES = 8
SIZE = 128 << 20
EDIT = 1 << 10


class Noise(Workload):
    name = "large-noise"
    about = (
        "eight files of 128 MiB that no compressor makes shorter; 1 KiB inserted in the middle of seven, added to one"
    )
    room = 12 << 30
    quick_limit = "write and fsync"
    size = SIZE

    def data(self, file: int, size: int) -> bytes:
        return self.rng(0, file).bytes(size)

    def build(self, folder: Path) -> None:
        for file in range(FILES):
            (folder / f"{file}.{self.suffix}").write_bytes(self.data(file, self.count(self.size)))

    suffix = "bin"

    def edit(self, folder: Path, step: int = 1) -> None:
        for file in range(FILES):
            path = folder / f"{file}.{self.suffix}"
            data = path.read_bytes()
            at = len(data) if file == FILES - 1 else len(data) // 2
            path.unlink()
            path.write_bytes(data[:at] + self.data(FILES * step + file, EDIT) + data[at:])


class NoiseFar(Noise):
    name = "large-noise-far"
    about = "a quarter of `large-noise`; the store is an object store 30 ms and 100 MB/s away"
    room = 6 << 30
    far = True
    size = SIZE // 4


class NoiseXfs(Noise):
    name = "large-noise-xfs"
    about = "`large-noise` on xfs"
    file_system = "xfs"


class Digits(Noise):
    name = "large-text"
    about = "eight CSV files of 128 MiB, numbers of four columns; edited as large-noise"
    quick_limit = "compress"
    suffix = "csv"

    def data(self, file: int, size: int) -> bytes:
        rng = self.rng(1, file)
        rows = size // 24 + 1
        columns = [
            np.char.zfill(np.arange(rows).astype("S8"), 8),
            np.char.zfill(rng.integers(0, 100, rows).astype("S2"), 2),
            np.char.zfill((rng.normal(5000, 900, rows).astype(np.int64) % 10_000).astype("S4"), 4),
            np.char.zfill(rng.integers(0, 10**6, rows).astype("S6"), 6),
        ]
        text = np.empty((rows, 24), np.uint8)
        at = 0
        for number, column in enumerate(columns):
            width = column.dtype.itemsize
            text[:, at : at + width] = column.view(np.uint8).reshape(rows, width)
            text[:, at + width] = ord("\n") if number == 3 else ord(",")
            at += width + 1
        return text.tobytes()[:size]

"""How fast files are hashed and packed: MB (10^6 bytes) a second, warm, in /dev/shm; medians of 3.

`workers` is that of the call; "cpu" is MB for each second of all threads' processor time, which other load on the
machine disturbs less. The lookup is a dict; frames get places but are not written anywhere.
"""

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from blake3 import blake3

from dataset_store.core.chunking import ChunkerParams
from dataset_store.core.digest import PackName
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import ChunkHit
from dataset_store.local.ingest import SegmentAssembler, SourceFile, ingest
from dataset_store.local.reading import FileStat, default_workers, hash_files

LONG = 256 << 20  # bytes
SHORT = 10 << 10  # bytes
MEDIUM = 100 << 10  # bytes
FILES = 20_000
REPEATS = 3
PACK = PackRef(0, PackName(bytes(16)))


class Placer:
    """Places frames one after another in one endless pack, and remembers chunks."""

    def __init__(self) -> None:
        self.offset = 40
        self.hits: dict[bytes, ChunkHit] = {}

    def lookup_known(self, ids):
        return [self.hits.get(chunk_id) for chunk_id in ids]

    def place(self, unit, *, remember: bool):
        places = []
        for frame in unit.frames:
            place = Place(PACK, self.offset % 2**31, len(frame.data), frame.plain)
            if remember:
                self.hits[frame.ids[0]] = ChunkHit(PACK, place.offset, place.stored, 0, frame.plain, True)
            places.append(place)
            self.offset += place.stored
        return places


def lookup_nothing(ids):
    return [None] * len(ids)


def pack(sources, lookup, placer, workers, *, remember=False):
    assembler = SegmentAssembler()
    for unit in ingest(sources, ChunkerParams(), lookup, workers=workers):
        assembler.add(unit, placer.place(unit, remember=remember))


def timed(run, workers: int) -> tuple[float, float]:
    """Seconds of wall time, and of processor time."""
    began, spent = time.perf_counter(), time.process_time()
    run(workers)
    return time.perf_counter() - began, time.process_time() - spent


def report(name: str, size: int, run) -> None:
    for workers in dict.fromkeys((1, default_workers())):
        walls, processors = zip(*(timed(run, workers) for _ in range(REPEATS)), strict=True)
        wall, best, processor = (
            size / 1e6 / seconds for seconds in (statistics.median(walls), min(walls), statistics.median(processors))
        )
        print(f"{name:26} workers {workers}  wall {wall:6.0f}  best {best:6.0f}  cpu {processor:6.0f}  MB/s")


def make(folder: Path, count: int, size: int) -> list[SourceFile]:
    folder.mkdir()
    sources = []
    for number in range(count):
        data = blake3(b"%d %d" % (size, number)).digest(length=size)
        path = folder / f"{number:06}"
        path.write_bytes(data)
        sources.append(SourceFile(number, os.fsencode(path), size, blake3(data).digest()))
    return sources


def measure(folder: Path) -> None:
    (long,) = make(folder / "long", 1, LONG)
    placer = Placer()
    report("256 MiB file, new", LONG, lambda workers: pack([long], lookup_nothing, placer, workers))
    pack([long], lookup_nothing, placer, 1, remember=True)
    report("256 MiB file, all hits", LONG, lambda workers: pack([long], placer.lookup_known, placer, workers))
    measure_hashing("256 MiB file, hashing", [long])
    short = make(folder / "short", FILES, SHORT)
    measure_hashing("20,000 x 10 KiB, hashing", short)
    size = FILES * SHORT
    report("20,000 x 10 KiB, packing", size, lambda workers: pack(short, lookup_nothing, placer, workers))
    medium = make(folder / "medium", FILES // 10, MEDIUM)
    size = FILES // 10 * MEDIUM
    report("2,000 x 100 KiB, packing", size, lambda workers: pack(medium, lookup_nothing, placer, workers))


def measure_hashing(name: str, sources: list[SourceFile]) -> None:
    paths = [source.path for source in sources]
    stats = [FileStat.of(os.stat(path)) for path in paths]
    size = sum(source.size for source in sources)
    report(name, size, lambda workers: hash_files(paths, stats, workers=workers))


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        measure(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

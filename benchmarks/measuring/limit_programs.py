"""Small programs that do as little as an operation needs: what no system can be faster than, written in Python.

python limit_programs.py link FOLDER TARGET     every file linked into a new folder, by two threads
python limit_programs.py hash FOLDER            every file read and hashed with BLAKE3, by two threads
python limit_programs.py stat FOLDER            every file found and its stat read
python limit_programs.py compress FOLDER        every file read and compressed with zstd, level 1, 256 KiB at a time,
                                                by two threads
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

THREADS = 2
PIECE = 256 << 10


def directories(folder: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        files = []
        with os.scandir(at) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    waiting.append(one.path)
                else:
                    files.append(one)
        yield at, files


def link(folder: str, target: str) -> None:
    def link_all(at: str, files: Sequence[os.DirEntry[str]]) -> None:
        for one in files:
            os.link(one.path, f"{at}/{one.name}")

    with ThreadPoolExecutor(THREADS) as pool:
        done = []
        for at, files in directories(folder):
            beside = target + at[len(folder) :]
            os.mkdir(beside)
            done.append(pool.submit(link_all, beside, files))
        for one in done:
            one.result()


def read_all(folder: str, use: Callable[[memoryview], object]) -> None:
    """Read every file in two threads, into a buffer of each."""
    own = threading.local()

    def read(paths: Sequence[str]) -> None:
        if not hasattr(own, "buffer"):
            own.buffer = memoryview(bytearray(4 << 20))
        for path in paths:
            handle = os.open(path, os.O_RDONLY)
            while count := os.readv(handle, [own.buffer]):
                use(own.buffer[:count])
            os.close(handle)

    with ThreadPoolExecutor(THREADS) as pool:
        done = []
        for _, files in directories(folder):
            paths = [one.path for one in files]
            size = max(1, len(paths) // 8)
            done += [pool.submit(read, paths[at : at + size]) for at in range(0, len(paths), size)]
        for one in done:
            one.result()


def hash_all(folder: str) -> None:
    from blake3 import blake3

    read_all(folder, lambda data: blake3(data).digest())


def compress(folder: str) -> None:
    from zstandard import ZstdCompressor

    own = threading.local()

    def pack(data: memoryview) -> None:
        if not hasattr(own, "codec"):
            own.codec = ZstdCompressor(level=1)
        for at in range(0, len(data), PIECE):
            own.codec.compress(data[at : at + PIECE])

    read_all(folder, pack)


def stat(folder: str) -> None:
    for _, files in directories(folder):
        for one in files:
            one.stat(follow_symlinks=False)


if __name__ == "__main__":
    {"link": link, "hash": hash_all, "stat": stat, "compress": compress}[sys.argv[1]](*sys.argv[2:])

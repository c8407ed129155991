"""How fast files are cut: MB (10^6 bytes) per second of thread CPU time; 64 MiB random, median of 7."""

import statistics
import sys
import time

from blake3 import blake3

from dataset_store.core import chunking

SIZE = 64 << 20  # bytes
REPEATS = 7


def megabytes_per_cpu_second(cut, data: bytes, params: chunking.ChunkerParams) -> list[float]:
    """One figure for each repeat, ascending."""
    figures = []
    for _ in range(REPEATS):
        began = time.thread_time()
        cut(data, params, final=True)
        figures.append(len(data) / 1e6 / (time.thread_time() - began))
    return sorted(figures)


def main() -> None:
    kernels = {"numpy": chunking.cut_ends_numpy}
    if chunking.ACTIVE_KERNEL == "c":
        kernels = {"c": chunking.cut_ends, **kernels}
    else:
        print("the compiled kernel is not built", file=sys.stderr)
    data = blake3(b"benchmarks/studies/chunking").digest(length=SIZE)
    for average in (65_536, 262_144):
        params = chunking.ChunkerParams(average)
        for name, cut in kernels.items():
            figures = megabytes_per_cpu_second(cut, data, params)
            print(
                f"{params.name:18} {name:6} median {statistics.median(figures):7.0f}  "
                f"lowest {figures[0]:7.0f}  highest {figures[-1]:7.0f}  MB/s"
            )


if __name__ == "__main__":
    main()
